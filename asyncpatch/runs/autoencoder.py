"""Training an autoencoder: its config, its learner, its validation.

Its folder is one of the trainer's: it resumes to the bit, discriminator and all, and its checkpoints open as those of a
denoiser do.
"""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from asyncpatch.data import AbstractSource, RandomFlip, hold_out, open_once
from asyncpatch.losses import AutoencoderObjective, reconstruction_errors
from asyncpatch.nn import Autoencoder, AutoencoderConfig, DiscriminatorConfig, autoencoder_preset
from asyncpatch.runs.cache import keep_compiled
from asyncpatch.runs.experiment import DataConfig, check_batch_size, open_images
from asyncpatch.runs.perceptual import AbstractPerceptual, NoPerceptual
from asyncpatch.shapes import Image, Label, TimeField
from asyncpatch.train import (
    AbstractOptimizerConfig,
    Adversarial,
    OptimizerConfig,
    RunConfig,
    TrainConfig,
    TrainState,
    Validation,
    make_mesh,
    train,
)

USUAL_OPTIMIZER = OptimizerConfig(learning_rate=4e-4, warmup_steps=200, b2=0.99, eps=1e-8)
"""Of the autoencoder of small photographs."""

OF_DISCRIMINATOR = OptimizerConfig(learning_rate=2e-4, warmup_steps=100, b1=0.5, b2=0.9, eps=1e-8)
"""One that learns five times as fast, with more momentum, is soon level with a guess, and its gradient, brought up to
the size of the others', is noise: the loss of photographs rose from .17 to .85 within a hundred steps."""


@dataclasses.dataclass(frozen=True)
class AutoencoderExperiment:
    """Everything that decides the numbers of an autoencoder."""

    data: DataConfig
    autoencoder: AutoencoderConfig
    discriminator: DiscriminatorConfig
    objective: AutoencoderObjective
    perceptual: AbstractPerceptual
    discriminator_optimizer: AbstractOptimizerConfig
    training: TrainConfig

    def learner(self) -> Adversarial:
        """What the trainer is given. Raises `FileNotFoundError` if a perceptual network has no weights here."""
        return Adversarial(
            self.autoencoder,
            self.discriminator,
            self.objective,
            self.discriminator_optimizer,
            self.perceptual.load(),
        )

    def image_errors(
        self, autoencoder: Autoencoder, key: PRNGKeyArray, image: Image, label: Label
    ) -> tuple[TimeField, TimeField]:
        """The share of the image that is hidden, at every pixel, and the absolute errors, whose mean is over known
        pixels: the trainer's validation then tells losses apart by how much is hidden."""
        known = self.objective.draw_known(key, *image.shape[:2])
        hidden = 1 - jnp.mean(known, dtype=jnp.float32)
        return jnp.full(known.shape, hidden), reconstruction_errors(autoencoder(image, known), image, known)


def configure_autoencoder(
    source: AbstractSource,
    preset_name: str,
    *,
    held_out: AbstractSource | None = None,
    flip: bool = False,
    batch_size: int = 16,
    objective: AutoencoderObjective | None = None,
    perceptual: AbstractPerceptual | None = None,
    optimizer: AbstractOptimizerConfig | None = None,
    discriminator_optimizer: AbstractOptimizerConfig | None = None,
    ema_decay: float = 0.999,
    accumulation: int = 1,
    seed: int = 0,
) -> AutoencoderExperiment:
    """The config of an autoencoder for the images of `source`, whose shape is read off the data.

    Validation is on `held_out`, or else on one in ten images of `source`. Raises `ValueError` for an unknown preset and
    for images that it cannot take.
    """
    training, validating = hold_out(source, 10) if held_out is None else (source, held_out)
    records = open_once(source)
    height, width, channels = shape = records.shape
    autoencoder, discriminator = autoencoder_preset(preset_name, channels)
    autoencoder.check_image(height, width, channels)
    discriminator.check_image(height, width, channels)
    trainer = TrainConfig(
        num_classes=len(records.class_names),
        optimizer=optimizer or USUAL_OPTIMIZER,
        ema_decay=ema_decay,
        label_dropout=0.0,
        accumulation=accumulation,
        seed=seed,
    )
    return AutoencoderExperiment(
        data=DataConfig(training, validating, (), (RandomFlip(),) if flip else (), shape, batch_size),
        autoencoder=autoencoder,
        discriminator=discriminator,
        objective=objective or AutoencoderObjective(),
        perceptual=perceptual or NoPerceptual(),
        discriminator_optimizer=discriminator_optimizer or OF_DISCRIMINATOR,
        training=trainer,
    )


def train_autoencoder(
    folder: Path, experiment: AutoencoderExperiment, config: RunConfig, workers: int = 0
) -> TrainState:
    """Train, or go on training, in `folder`.

    What can be known to go wrong is raised before anything is computed: see `asyncpatch.runs.train_run`.
    """
    check_batch_size(experiment.data, experiment.training)
    learner = experiment.learner()
    experiment.autoencoder.check_image(*experiment.data.shape)
    experiment.discriminator.check_image(*experiment.data.shape)
    keep_compiled()
    training, held_out = open_images(experiment.data, experiment.training, workers)
    return train(
        folder,
        experiment,
        experiment.training,
        config,
        learner,
        training,
        make_mesh(jax.device_count()),
        Validation(held_out, experiment.image_errors),
    )
