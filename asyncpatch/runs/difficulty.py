"""Training a difficulty head on a run's network, and opening it beside the run.

All but the head's own size and trainer is taken from the run: its images, its law of times, its noise schedule. The
network stands outside of what is trained. A head's folder is one of the trainer's: it resumes to the bit, and its
checkpoints hold the head and its config, not the network.
"""

import dataclasses
import functools
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from asyncpatch.losses import difficulty_errors
from asyncpatch.nn import DifficultyHead, NetworkDenoiser, SelfAssessingDenoiser, field_network, fingerprint
from asyncpatch.ranges import check_counts
from asyncpatch.runs.cache import keep_compiled
from asyncpatch.runs.experiment import Experiment, open_batches
from asyncpatch.runs.opened import Run
from asyncpatch.shapes import Image, Label, TimeField
from asyncpatch.train import (
    Descent,
    OptimizerConfig,
    RunConfig,
    TrainConfig,
    TrainState,
    Validation,
    load_for_sampling,
    make_mesh,
    train,
)


@dataclasses.dataclass(frozen=True)
class DifficultyExperiment:
    """Everything that decides the numbers of a head."""

    run: Experiment
    """The config of the run whose network it belongs to."""
    network: str
    """The fingerprint of that network."""
    width: int
    """Channels that the network's last layer reads."""
    hidden: int
    """Channels of the head."""
    training: TrainConfig

    def __post_init__(self):
        check_counts(width=self.width, hidden=self.hidden)

    def make_head(self, key: PRNGKeyArray) -> DifficultyHead:
        """A head with fresh weights."""
        return DifficultyHead(self.width, self.hidden, self.network, key)

    def image_errors(
        self, denoiser: NetworkDenoiser, head: DifficultyHead, key: PRNGKeyArray, image: Image, label: Label
    ) -> tuple[TimeField, TimeField]:
        """The noise time of every token, from the run's law, and its loss."""
        time_key, noise_key = jr.split(key)
        t, noise = self.run.timesteps(time_key, *image.shape[:2]), jr.normal(noise_key, image.shape)
        return t, difficulty_errors(SelfAssessingDenoiser(denoiser, head), image, t, noise, label)

    def image_loss(
        self, denoiser: NetworkDenoiser, head: DifficultyHead, key: PRNGKeyArray, image: Image, label: Label
    ) -> Float[Array, ""]:
        """The mean of these."""
        return jnp.mean(self.image_errors(denoiser, head, key, image, label)[1])


def configure_head(
    run: Run, hidden: int = 32, optimizer: OptimizerConfig | None = None, ema_decay: float = 0.99, seed: int = 0
) -> DifficultyExperiment:
    """The config of a head for a run's network. Labels are hidden as often as in the run's own training."""
    training = dataclasses.replace(
        run.experiment.training,
        optimizer=optimizer or OptimizerConfig(learning_rate=3e-3, warmup_steps=50),
        ema_decay=ema_decay,
        accumulation=1,
        seed=seed,
    )
    width = field_network(run.denoiser).last.weight.shape[2]
    return DifficultyExperiment(run.experiment, fingerprint(run.denoiser), width, hidden, training)


def train_head(
    folder: Path, experiment: DifficultyExperiment, denoiser: NetworkDenoiser, config: RunConfig, workers: int = 0
) -> TrainState:
    """Train, or go on training, in `folder`. Raises `ValueError` for the denoiser of another run."""
    keep_compiled()
    # What does not fit is said before any data is opened.
    SelfAssessingDenoiser(denoiser, eqx.filter_eval_shape(experiment.make_head, jax.eval_shape(lambda: jr.key(0))))
    training, held_out = open_batches(experiment.run, workers)
    return train(
        folder,
        experiment,
        experiment.training,
        config,
        Descent(experiment.make_head, functools.partial(experiment.image_loss, denoiser)),
        training,
        make_mesh(),
        Validation(held_out, functools.partial(experiment.image_errors, denoiser)),
    )


def open_head(folder: str | Path, run: Run, step: int | None = None) -> SelfAssessingDenoiser:
    """The run's denoiser with the head in `folder`, the newest whole one or that of `step`.

    Raises `ValueError` for a folder of anything but a head and for a head of another network, and as
    `asyncpatch.runs.open_run` does.
    """
    _, head = load_for_sampling(folder, _build_head, make_mesh(1, 1), step)
    return SelfAssessingDenoiser(run.denoiser, head)


def _build_head(experiment: object, key: PRNGKeyArray) -> DifficultyHead:
    if not isinstance(experiment, DifficultyExperiment):
        raise ValueError(
            f"the folder holds a {type(experiment).__name__} and no head; give the folder that "
            "experiments.train_difficulty wrote to"
        )
    return experiment.make_head(key)
