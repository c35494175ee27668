"""What decides the numbers of a training run, and what only decides how long it runs and what it reports.

Invariant: two runs with equal `TrainConfig`, data, loss and denoiser have the same losses whatever their
`RunConfig`; a run may therefore be resumed under another `RunConfig`, and under no other `TrainConfig`.
"""

from dataclasses import dataclass, field

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from asyncpatch.ranges import check_counts, check_number, check_seed, check_share
from asyncpatch.train.optimizers import AbstractOptimizerConfig, OptimizerConfig


@dataclass(frozen=True)
class Cooldown:
    """The end of a run: after `start` updates the learning rate falls to 0, in a straight line over `steps` more.

    What a network of a constant rate lacks is less time than quiet: an eighth more training at a falling rate took 16
    to 22% off Frechet distances, where twice the training at a constant one takes 7 to 10% (docs/results.md). A run may
    still be prolonged: it goes on from where its cooldown began.
    """

    start: int
    steps: int

    def __post_init__(self):
        check_number("start", self.start, lambda x: x >= 0, "at least 0")
        check_counts(steps=self.steps)

    def factor_at(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """Of the rate of the update made after `step` others: 1 up to `start`, 0 from `start + steps` on."""
        return jnp.clip((self.start + self.steps - step) / self.steps, 0.0, 1.0)


@dataclass(frozen=True)
class TrainConfig:
    """Everything in the trainer that decides the numbers. The data, the loss and the denoiser have their own configs.

    `num_classes` bounds the labels; 0 means that every label is `NULL_LABEL`. `ema_decay` is the decay that the
    moving average of the weights ends with. `accumulation` is the number of microbatches that one batch is worked
    off in. `cooldown` is the falling rate of the end; a run without one has no end in sight.
    """

    num_classes: int
    optimizer: AbstractOptimizerConfig = field(default_factory=OptimizerConfig)
    ema_decay: float = 0.999
    label_dropout: float = 0.1
    accumulation: int = 1
    seed: int = 0
    cooldown: Cooldown | None = None

    def __post_init__(self):
        check_number("num_classes", self.num_classes, lambda x: x >= 0, "at least 0")
        check_number("ema_decay", self.ema_decay, lambda x: 0 <= x < 1, "in [0, 1)")
        check_share("label_dropout", self.label_dropout)
        check_counts(accumulation=self.accumulation)
        check_seed(self.seed)

    def learning_rate_at(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """The rate of the update made after `step` others."""
        rate = self.optimizer.learning_rate_at(step)
        return rate if self.cooldown is None else rate * self.cooldown.factor_at(step)

    def ema_decay_at(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """The decay after `step` updates, `min(ema_decay, (1 + step) / (10 + step))`.

        It warms up so that the initial weights leave the average of a short run: the window is about a tenth of the
        steps made until it reaches `1 / (1 - ema_decay)`. In a cooldown it is no longer than the steps that are left:
        weights that come to rest are not averaged with those from before, and the last are what is sampled from.
        """
        decay = jnp.minimum(self.ema_decay, (1 + step) / (10 + step))
        if self.cooldown is None:
            return decay
        left = self.cooldown.start + self.cooldown.steps - step
        return jnp.where(step < self.cooldown.start, decay, jnp.minimum(decay, 1 - 1 / jnp.maximum(left, 1)))


@dataclass(frozen=True)
class RunConfig:
    """How long to train and how often to report, validate, sample and save; all counted in steps.

    Validation runs before every scheduled checkpoint. `keep_best` counts by validation loss.
    """

    steps: int = 1_000_000
    log_every: int = 100
    sample_every: int = 10_000
    checkpoint_every: int = 10_000
    keep_last: int = 2
    keep_best: int = 1
    validation_batches: int = 8

    def __post_init__(self):
        for name in ("steps", "log_every", "sample_every", "checkpoint_every", "keep_last", "validation_batches"):
            check_counts(**{name: getattr(self, name)})
        check_number("keep_best", self.keep_best, lambda x: x >= 0, "at least 0")
