"""The optimisers: a warm-up to a constant learning rate, clipping of the gradient's norm, and a rule of updates.

How the rate falls at the end is not theirs but the run's (`asyncpatch.train.Cooldown`).
"""

import abc
from dataclasses import dataclass, field
from typing import ClassVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from asyncpatch.ranges import check_number
from asyncpatch.train.muon import scale_by_muon


@dataclass(frozen=True)
class AbstractOptimizerConfig(abc.ABC):
    """A rule of updates with its rates.

    To write one more: a frozen dataclass with `rule`. Give it a line in `asyncpatch.config.names`, and in `OPTIMIZERS`
    of `tests/test_optimizers.py`.
    """

    elementwise: ClassVar[bool] = False
    """Whether a number moves by its own slopes alone, whatever array it is in; but for the clipping."""

    learning_rate: float = 3e-5
    warmup_steps: int = 10_000
    max_gradient_norm: float = field(default=1.0, kw_only=True)

    def __post_init__(self):
        check_number("learning_rate", self.learning_rate, lambda x: x > 0, "above 0")
        check_number("warmup_steps", self.warmup_steps, lambda x: x >= 0, "at least 0")
        check_number("max_gradient_norm", self.max_gradient_norm, lambda x: x > 0, "above 0")
        self.check()

    @abc.abstractmethod
    def check(self) -> None:
        """Raises `ValueError` for settings of the rule that are out of range."""

    @abc.abstractmethod
    def rule(self) -> optax.GradientTransformation:
        """From clipped gradients to updates."""

    def learning_rate_at(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """The rate of the update made after `step` others: the first update already moves."""
        return self.learning_rate * jnp.minimum(1.0, (step + 1) / max(self.warmup_steps, 1))

    def build(self) -> optax.GradientTransformation:
        """Clip, then update by the rule."""
        return optax.chain(optax.clip_by_global_norm(self.max_gradient_norm), self.rule())

    def rate(self, count: jax.typing.ArrayLike) -> Float[Array, ""]:
        """`learning_rate_at` as optax calls it."""
        return self.learning_rate_at(jnp.asarray(count))


@dataclass(frozen=True)
class OptimizerConfig(AbstractOptimizerConfig):
    """Adam: the recipe of the paper (docs/theory.md). `eps` is added to the root of the second moment."""

    elementwise: ClassVar[bool] = True

    b1: float = field(default=0.9, kw_only=True)
    b2: float = field(default=0.99, kw_only=True)
    eps: float = field(default=1e-12, kw_only=True)

    def check(self) -> None:
        check_number("b1", self.b1, lambda x: 0 <= x < 1, "in [0, 1)")
        check_number("b2", self.b2, lambda x: 0 <= x < 1, "in [0, 1)")
        check_number("eps", self.eps, lambda x: x > 0, "above 0")

    def rule(self) -> optax.GradientTransformation:
        return optax.adam(self.rate, b1=self.b1, b2=self.b2, eps=self.eps)


RMS_OF_ADAM = 0.2
"""A Muon update is scaled to this root mean square times the rate, about that of Adam's: one rate serves both."""

SMALLEST_SIDE = 8
"""A kernel with fewer inputs or outputs is a thin matrix; it is left to Adam."""


@dataclass(frozen=True)
class MuonConfig(AbstractOptimizerConfig):
    """Muon for the kernels of convolutions and products, Adam (with Nesterov's momentum) for all else.

    The update of a kernel, seen as a matrix from inputs to outputs, is its averaged gradient with all singular values
    brought near 1 (`asyncpatch.train.muon`).
    """

    momentum: float = field(default=0.95, kw_only=True)
    b1: float = field(default=0.9, kw_only=True)
    b2: float = field(default=0.99, kw_only=True)

    def check(self) -> None:
        for name in ("momentum", "b1", "b2"):
            check_number(name, getattr(self, name), lambda x: 0 <= x < 1, "in [0, 1)")

    def rule(self) -> optax.GradientTransformation:
        muon = optax.chain(scale_by_muon(self.momentum, RMS_OF_ADAM), optax.scale_by_learning_rate(self.rate))
        adam = optax.nadam(self.rate, b1=self.b1, b2=self.b2)
        return optax.partition({True: muon, False: adam}, kernels)


def kernels(weights: PyTree) -> PyTree:
    """Which arrays are kernels: the last four axes are height, width, inputs and outputs.

    An axis before them counts equal layers.
    """
    return jax.tree.map(lambda weight: weight.ndim >= 4 and min(weight.shape[-2:]) >= SMALLEST_SIDE, weights)
