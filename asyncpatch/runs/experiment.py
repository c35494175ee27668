"""What a run is made of, and how its parts are put together.

`Experiment` is the whole config of a run: it is saved with every checkpoint, and data, denoiser and loss are built from
it by the functions here alone, so that a checkpoint can be opened with nothing else at hand.
"""

import dataclasses

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from asyncpatch.data import AbstractSource, AbstractTransform, Batches, Folds, batches, open_once
from asyncpatch.losses import AbstractWeighting, denoising_errors, denoising_loss
from asyncpatch.nn import AbstractNetworkConfig, DroppingDenoiser, NetworkDenoiser
from asyncpatch.noise_schedule import AbstractNoiseSchedule
from asyncpatch.process import AbstractDenoiser
from asyncpatch.ranges import check_counts, check_number
from asyncpatch.shapes import Image, Label, TimeField
from asyncpatch.timesteps import AbstractTimestepSampler
from asyncpatch.train import Descent, TrainConfig


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where images come from and how they are batched."""

    source: AbstractSource
    held_out: AbstractSource
    """Images kept for validation and for the known parts of inpainted samples; never trained on."""
    transforms: tuple[AbstractTransform, ...]
    """Applied to every image, held out or not."""
    augmentations: tuple[AbstractTransform, ...]
    """Applied to training images, after the transforms."""
    shape: tuple[int, int, int]
    """Height, width and channels of an image after the transforms: what the network was made for."""
    batch_size: int

    def __post_init__(self):
        check_counts(batch_size=self.batch_size)
        parts = self.source, self.held_out
        if isinstance(parts[0], Folds) and isinstance(parts[1], Folds) and parts[0].source == parts[1].source:
            # Parts of one source that were read from a file are parts of equal ones; as parts of one it is opened once.
            object.__setattr__(self, "held_out", dataclasses.replace(parts[1], source=parts[0].source))


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything that decides the numbers of a run."""

    data: DataConfig
    network: AbstractNetworkConfig
    schedule: AbstractNoiseSchedule
    timesteps: AbstractTimestepSampler
    weighting: AbstractWeighting
    training: TrainConfig

    @property
    def learner(self) -> Descent:
        """What the trainer is given."""
        return Descent(self.make_denoiser, self.training_loss)

    def make_denoiser(self, key: PRNGKeyArray) -> NetworkDenoiser:
        """A denoiser with fresh weights."""
        return NetworkDenoiser(self.network.build(key), self.schedule)

    def image_loss(self, denoiser: AbstractDenoiser, key: PRNGKeyArray, image: Image, label: Label) -> Float[Array, ""]:
        """The denoising loss of one image at one random time field, dropout off."""
        t, noise = self._corruption(key, image)
        return denoising_loss(denoiser, self.weighting, image, t, noise, label)

    def image_errors(
        self, denoiser: AbstractDenoiser, key: PRNGKeyArray, image: Image, label: Label
    ) -> tuple[TimeField, TimeField]:
        """The noise time of every token and its error, whose mean is `image_loss` of the same key."""
        t, noise = self._corruption(key, image)
        return t, jnp.mean(denoising_errors(denoiser, self.weighting, image, t, noise, label), axis=-1)

    def training_loss(
        self, denoiser: NetworkDenoiser, key: PRNGKeyArray, image: Image, label: Label
    ) -> Float[Array, ""]:
        """The same with dropout on."""
        dropout_key, loss_key = jr.split(key)
        return self.image_loss(DroppingDenoiser(denoiser, dropout_key), loss_key, image, label)

    def _corruption(self, key: PRNGKeyArray, image: Image) -> tuple[TimeField, Image]:
        time_key, noise_key = jr.split(key)
        return self.timesteps(time_key, *image.shape[:2]), jr.normal(noise_key, image.shape)


def open_batches(experiment: Experiment, workers: int) -> tuple[Batches, Batches]:
    """This process's batches of the training and the held-out images.

    Raises `ValueError` before any compute if the images do not fit the network or have labels that it lacks.
    """
    data, network = experiment.data, experiment.network
    training, held_out = open_images(data, experiment.training, workers)
    network.check_image(*data.shape)
    if len(training.class_names) > network.num_classes > 0:
        raise ValueError(
            f"the data has {len(training.class_names)} classes, the network {network.num_classes}; give the network "
            "as many, or 0 to train without labels"
        )
    return training, held_out


def open_images(data: DataConfig, config: TrainConfig, workers: int) -> tuple[Batches, Batches]:
    """The same for whatever is trained on them.

    Raises `ValueError` if the images have another shape than the config says, or other classes.
    """
    training = _open(data, config, data.source, data.transforms + data.augmentations, workers)
    held_out = _open(data, config, data.held_out, data.transforms, 0)
    for part in (training, held_out):
        if part.shape != tuple(data.shape):
            raise ValueError(
                f"the config says that images are {tuple(data.shape)} (height, width, channels), the data gives "
                f"{part.shape}; pad or resize them, or change data.shape"
            )
    if len(training.class_names) > config.num_classes:
        raise ValueError(
            f"the data has {len(training.class_names)} classes, the config of training {config.num_classes}; set "
            "training.num_classes to those of the data"
        )
    if held_out.class_names != training.class_names[: len(held_out.class_names)]:
        raise ValueError(
            f"the held-out images are of the classes {_few(held_out.class_names)}, those to train on of "
            f"{_few(training.class_names)}; give a set whose classes are the same, in the same order"
        )
    return training, held_out


def check_batch_size(data: DataConfig, config: TrainConfig) -> None:
    """Raise `ValueError` unless a batch can be dealt to the devices of all processes and the microbatches."""
    parts = config.accumulation * jax.device_count()
    check_number(
        "batch_size",
        data.batch_size,
        lambda images: images % parts == 0,
        f"a multiple of {parts} (microbatches times devices)",
    )


def _few(names: tuple[str, ...], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f", ... ({len(names)})" if len(names) > most else "")


def _open(
    data: DataConfig,
    config: TrainConfig,
    source: AbstractSource,
    transforms: tuple[AbstractTransform, ...],
    workers: int,
) -> Batches:
    return batches(
        open_once(source),
        data.batch_size,
        config.seed,
        transforms,
        jax.process_index(),
        jax.process_count(),
        workers,
    )
