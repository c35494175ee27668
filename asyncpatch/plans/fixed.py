"""Plans that are an array: all time fields are known before the first step, and one program runs any of them.

Invariant: a plan built outside of `jit` and `vmap` has passed `check_plan`.
"""

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from asyncpatch.plans.base import AbstractPlan
from asyncpatch.process import Prediction
from asyncpatch.shapes import TimeField


class FixedPlan(AbstractPlan):
    """A plan given by its time fields, from the first to the last.

    Raises `ValueError` as `check_plan` does, if the values are at hand (they are not under `jax.vmap`, which makes a
    plan per image).
    """

    times: Float[Array, "steps_plus_1 height width"]

    def __check_init__(self):
        if self.times.ndim != 3:
            raise ValueError(f"a plan is (steps + 1, height, width), got shape {self.times.shape}; stack time fields")
        check_plan(self.times, *self.times.shape[1:])

    @property
    def steps(self) -> int:
        return self.times.shape[-3] - 1

    def init(self, height: int, width: int) -> tuple[Int[Array, ""], TimeField]:
        """Raises `ValueError` if the plan was made for another height or width."""
        _check_shape(self.times, height, width)
        return jnp.zeros((), jnp.int32), self.times[0]

    def next(self, state: Int[Array, ""], t: TimeField, prediction: Prediction) -> tuple[Int[Array, ""], TimeField]:
        return state + 1, self.times[state + 1]


def check_plan(times: Float[Array, "..."], height: int, width: int) -> None:
    """Check a plan's time fields before any compute; under `jit` and `vmap` only their shape is looked at.

    Raises `ValueError` if `times` is not `(steps + 1, height, width)`, holds a NaN or a time outside of [0, 1], rises
    anywhere, or does not end at 0.
    """
    _check_shape(times, height, width)
    if isinstance(times, Tracer):
        return
    values = np.asarray(times)
    _refuse(values, ~((values >= 0) & (values <= 1)), "leaves [0, 1]", "give times between 0 (clean) and 1 (noise)")
    rises = np.concatenate([np.zeros_like(values[:1], bool), values[1:] > values[:-1]])
    _refuse(values, rises, "rises", "generation only removes noise: give times that never rise")
    unfinished = np.concatenate([np.zeros_like(values[:-1], bool), values[-1:] > 0])
    _refuse(values, unfinished, "does not end at 0", "finish every token: end the plan with zeros")


def _check_shape(times: Float[Array, "..."], height: int, width: int) -> None:
    if times.ndim != 3 or times.shape[0] < 2 or times.shape[1:] != (height, width):
        raise ValueError(
            f"a plan for {height}x{width} tokens has shape (steps + 1, {height}, {width}) with at least one step, got "
            f"{times.shape}; build it for this size (for a plan per image, sample with plan_axes=0)"
        )


def _refuse(values: np.ndarray, wrong: np.ndarray, what: str, advice: str) -> None:
    if wrong.any():
        step, row, col = (int(index) for index in np.argwhere(wrong)[0])
        time, before = values[step, row, col], "" if step == 0 else f" after {values[step - 1, row, col]}"
        raise ValueError(f"the plan {what} at step {step}, token ({row}, {col}), with time {time}{before}; {advice}")
