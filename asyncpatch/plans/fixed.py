"""Plans that are an array: all time fields are known before the first step, and one program runs any of them.

Invariant: a plan built outside of `jit` and `vmap` has passed `check_plan`.
"""

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from asyncpatch.plans.base import AbstractPlan
from asyncpatch.process import Prediction
from asyncpatch.shapes import Known, TimeField


class FixedPlan(AbstractPlan):
    """A plan given by its time fields, from the first to the last.

    Raises `ValueError` as `check_plan` does, if the values are at hand (they are not under `jax.vmap`, which makes a
    plan per image: `jax.vmap(inpaint, in_axes=(None, 0))(plan, known)`).
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


def inpaint(plan: FixedPlan, known: Known, trail: float = 0.0) -> FixedPlan:
    """Hold the known tokens at 0 throughout, and let the unknown ones follow `plan`.

    Outpainting is this function with another region. With a `trail` in (0, 1] the known tokens are at that share of the
    plan's times, and `sample` must be told of them: 0 conditions exactly if the network is exact, 1 is what samplers
    for one time per image do (replacement), and between them a network meets fields that are less unlike those it was
    trained on. Raises `ValueError` if the shapes differ or `trail` leaves [0, 1], and `TypeError` if `known` is not
    boolean: the polarity of a mask of numbers is anybody's guess.
    """
    if not 0 <= trail <= 1:
        raise ValueError(
            f"known tokens trail at a share of the others' times in [0, 1], got {trail}; 0 holds them clean"
        )
    if known.dtype != bool:
        raise TypeError(f"known must be boolean, True where a token is observed, got dtype {known.dtype}; compare it")
    if known.shape != plan.times.shape[1:]:
        raise ValueError(f"known is {known.shape}, the plan's time fields are {plan.times.shape[1:]}; make them equal")
    return FixedPlan(jnp.where(known[None], trail, 1.0) * plan.times)


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
