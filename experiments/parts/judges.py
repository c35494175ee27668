"""The networks that a distance may rest on, by the name that the command line gives them, and the images they judge."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Float, Int32

from asyncpatch.config import to_json
from asyncpatch.data import AbstractSource, open_once, to_network
from asyncpatch.metrics import Classifier, load_classifier, save_classifier, train_classifier
from asyncpatch.metrics.networks import EfficientNetLite0, InceptionV3, Vgg16Features
from asyncpatch.runs import Experiment

BATCH = 64
"""Images sampled, and judged, at a time."""

Images = Float[np.ndarray, "images height width channel"]
Labels = Int32[np.ndarray, " images"]


@dataclasses.dataclass(frozen=True)
class OwnClassifier:
    """A small classifier of the run's own training images, trained once and kept in a file."""

    file: Path | None = None
    """Beside the rows if not given."""

    def load(self, experiment: Experiment, folder: Path) -> Classifier:
        """Raises `ValueError` for data without classes."""
        if experiment.network.num_classes < 2:
            raise ValueError("the data has no classes to train a classifier on; choose another judge")
        path = self.file or folder / f"classifier-{short_hash(to_json(experiment.data))}.npz"
        first = jax.process_index() == 0
        if first and not path.is_file():
            print(f"training a classifier of the training images for {path}", flush=True)
            images, labels = read_images(experiment, experiment.data.source)
            save_classifier(path, train_classifier(images, labels, experiment.network.num_classes, seed=0))
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("the first process has trained the classifier")
        return load_classifier(path)


@dataclasses.dataclass(frozen=True)
class Inception:
    """InceptionV3 in the form of the FID, from a weight file of yours."""

    weights: Path

    def load(self, experiment: Experiment, folder: Path) -> InceptionV3:
        return InceptionV3.load(self.weights)


@dataclasses.dataclass(frozen=True)
class Vgg16:
    """VGG16, from a weight file or the installed package."""

    weights: Path | None = None

    def load(self, experiment: Experiment, folder: Path) -> Vgg16Features:
        return Vgg16Features.load(self.weights)


@dataclasses.dataclass(frozen=True)
class EfficientNet:
    """EfficientNet-Lite0, from a weight file or the installed package."""

    weights: Path | None = None

    def load(self, experiment: Experiment, folder: Path) -> EfficientNetLite0:
        return EfficientNetLite0.load(self.weights)


AnyJudge = OwnClassifier | Inception | Vgg16 | EfficientNet


def read_batches(
    experiment: Experiment, source: AbstractSource, count: int | None = None
) -> Iterator[tuple[Images, Labels]]:
    """The first `count` images of a source (all of them if not given), in its order, as the network sees them.

    Raises `ValueError` if there are fewer.
    """
    records = open_once(source)
    wanted = len(records) if count is None else count
    if not 1 <= wanted <= len(records):
        raise ValueError(f"asked for {wanted} images, the data holds {len(records)}; ask for 1 to {len(records)}")
    rng = np.random.default_rng(0)
    for start in range(0, wanted, BATCH):
        chosen = [records[index] for index in range(start, min(start + BATCH, wanted))]
        pixels = []
        for record in chosen:
            image = record["image"]
            for transform in experiment.data.transforms:
                image = transform(image, rng)
            pixels.append(image)
        yield to_network(np.stack(pixels)), np.asarray([record["label"] for record in chosen], np.int32)


def read_images(experiment: Experiment, source: AbstractSource, count: int | None = None) -> tuple[Images, Labels]:
    """The same as two arrays."""
    images, labels = zip(*read_batches(experiment, source, count), strict=True)
    return np.concatenate(images), np.concatenate(labels)


def in_batches(images: Images) -> Iterator[Images]:
    """An array of images, a batch at a time."""
    return (images[start : start + BATCH] for start in range(0, len(images), BATCH))


def short_hash(written: object) -> str:
    """Twelve digits that name a JSON tree."""
    return hashlib.sha256(json.dumps(written, sort_keys=True).encode()).hexdigest()[:12]
