"""Plans that look at how wrong the denoiser expects to be: easy tokens run ahead, and hard ones see them as context.

**The rule.** `Adaptive` walks the window path of `asyncpatch.paths`, whose random points networks are trained on, from
`r = 1` to 0 in even steps, but chooses the leads anew at every call:

    t_i <- min(t_i,  r + min(r, 1 - r) q_i),      q_i = strength (e_i - e) / (e_i + e)

with `e_i` the squared velocity error that the denoiser expects at token `i`, and `e` the geometric mean of those of all
tokens under way. A token of no error leads by all of `strength`, one of the mean error is at `r`, a hopeless one lags
by all of `strength`: every token has all calls for itself. docs/theory.md derives the rule and what it can gain.

Invariants: exactly `budget` calls; times never rise, and all are 0 after the last call; the unit of the errors does not
matter, nor do tokens that are known (their expected error is 0). Strength 0 is the synchronous plan to rounding.

Source: the paper's §5.5 lets easy tokens take longer steps by a rule that it does not state. `Adaptive` and
`ByDifficulty` are ours; `DualSpeed` is the dual loop of Patch Forcing (arXiv 2604.19141).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from asyncpatch.paths import StagedPath, WindowPath, raster
from asyncpatch.plans.base import AbstractPlan
from asyncpatch.process import Prediction
from asyncpatch.ranges import check_counts, check_share
from asyncpatch.shapes import TimeField

ROUNDING = 1e-5
"""What a time may have lost of 1 to rounding, far below a step."""


def _as_share(value: ArrayLike) -> Float[Array, ""]:
    return jnp.asarray(value, jnp.float32)


class Adaptive(AbstractPlan):
    """Tokens of low expected error take longer steps first, and shorter ones in the end.

    `strength` in [0, 1] is an array: one compiled program serves all. Raises `ValueError` for a budget below 1 and a
    strength outside of [0, 1].
    """

    budget: int = eqx.field(static=True)
    strength: Float[Array, ""] = eqx.field(converter=_as_share, default=0.25)

    def __check_init__(self):
        _check(self.budget, strength=self.strength)

    @property
    def steps(self) -> int:
        return self.budget

    def init(self, height: int, width: int) -> tuple[Int[Array, ""], TimeField]:
        return jnp.zeros((), jnp.int32), jnp.ones((height, width))

    def next(self, state: Int[Array, ""], t: TimeField, prediction: Prediction) -> tuple[Int[Array, ""], TimeField]:
        log_error = _log_error(prediction)
        counted = _under_way(t, log_error)
        mean = jnp.sum(jnp.where(counted, log_error, 0.0)) / jnp.maximum(jnp.sum(counted, dtype=t.dtype), 1)
        lead = -self.strength * jnp.tanh((mean - log_error) / 2)
        return state + 1, jnp.minimum(t, WindowPath(lead)(_grid(self.budget)[state + 1]))


class ByDifficulty(AbstractPlan):
    """One patch after another, the easiest first: whenever a patch starts, it is the one of least expected error.

    Neighbouring patches share the fraction `overlap` of their steps, as in `asyncpatch.plans.staged`. Patches that have
    started keep their turn. Raises `ValueError` for a budget or a patch below 1 and an overlap outside of [0, 1].
    """

    budget: int = eqx.field(static=True)
    patch: int = eqx.field(static=True)
    overlap: Float[Array, ""] = eqx.field(converter=_as_share, default=0.5)

    def __check_init__(self):
        _check(self.budget, overlap=self.overlap)
        check_counts(patch=self.patch)

    @property
    def steps(self) -> int:
        return self.budget

    def init(self, height: int, width: int) -> tuple[tuple[Int[Array, ""], Int[Array, " patches"]], TimeField]:
        """The state is the number of the step and every patch's turn."""
        turns = jnp.zeros(-(-height // self.patch) * -(-width // self.patch), jnp.int32)
        return (jnp.zeros((), jnp.int32), turns), jnp.ones((height, width))

    def next(
        self, state: tuple[Int[Array, ""], Int[Array, " patches"]], t: TimeField, prediction: Prediction
    ) -> tuple[tuple[Int[Array, ""], Int[Array, " patches"]], TimeField]:
        number, turns = state
        log_error, cells = _log_error(prediction), raster(*t.shape, self.patch)

        def total(field: TimeField) -> Float[Array, " patches"]:
            return jax.ops.segment_sum(field.reshape(-1), cells.reshape(-1), len(turns))

        # Known tokens have no error to be sure of, and patches that are known throughout have no turn of their own.
        unknown = total((log_error > -jnp.inf).astype(t.dtype))
        error = total(jnp.exp(log_error)) / jnp.maximum(unknown, 1)
        started = total((t < 1 - ROUNDING).astype(t.dtype)) > 0
        order = jnp.where(started, turns.astype(error.dtype) - len(turns), error)
        ranks = jnp.argsort(jnp.argsort(jnp.where(unknown == 0, -jnp.inf, order))).astype(jnp.int32)
        turns = jnp.maximum(ranks - jnp.sum(unknown == 0), 0)
        path = StagedPath(turns[cells], self.overlap)
        return (number + 1, turns), jnp.minimum(t, path(_grid(self.budget)[number + 1]))


class DualSpeed(AbstractPlan):
    """The tokens of least expected error take one step where the others take `inner` ones, and wait for them.

    The `share` of easy tokens is chosen anew after every `inner` calls, when all are at one time again. This is the
    dual loop of Patch Forcing, written as a plan: theirs has 4 inner steps and a share of 0.4 to 0.7 of patches; here
    they are tokens, and a budget that `inner` does not divide ends with a shorter round. Raises `ValueError` for a
    budget or `inner` below 1 and a share outside of [0, 1].
    """

    budget: int = eqx.field(static=True)
    inner: int = eqx.field(static=True, default=4)
    share: Float[Array, ""] = eqx.field(converter=_as_share, default=0.5)

    def __check_init__(self):
        _check(self.budget, share=self.share)
        check_counts(inner=self.inner)

    @property
    def steps(self) -> int:
        return self.budget

    def init(self, height: int, width: int) -> tuple[tuple[Int[Array, ""], Bool[Array, "height width"]], TimeField]:
        """The state is the number of the step and who is easy."""
        return (jnp.zeros((), jnp.int32), jnp.zeros((height, width), bool)), jnp.ones((height, width))

    def next(
        self, state: tuple[Int[Array, ""], Bool[Array, "height width"]], t: TimeField, prediction: Prediction
    ) -> tuple[tuple[Int[Array, ""], Bool[Array, "height width"]], TimeField]:
        number, easy = state
        easy = jnp.where(number % self.inner == 0, easiest(prediction, t, self.share), easy)
        together = jnp.minimum((number // self.inner + 1) * self.inner, self.budget)
        times = _grid(self.budget)
        return (number + 1, easy), jnp.where(easy, times[together], times[number + 1])


def easiest(prediction: Prediction, t: TimeField, share: Float[Array, ""]) -> Bool[Array, "height width"]:
    """The `share` of least expected error among the tokens under way; known tokens are easy and do not count."""
    log_error = _log_error(prediction)
    return log_error <= jnp.nanquantile(jnp.where(_under_way(t, log_error), log_error, jnp.nan), share)


def _log_error(prediction: Prediction) -> TimeField:
    if prediction.log_error is None:
        raise ValueError(
            "an adaptive plan follows the error that the denoiser expects of itself, and this denoiser says none; give "
            "a SelfAssessingDenoiser, which asyncpatch.runs.open_head opens, or a plan that is known beforehand"
        )
    return prediction.log_error


def _under_way(t: TimeField, log_error: TimeField) -> Bool[Array, "height width"]:
    """Tokens that are neither finished nor known."""
    return (t > 0) & (log_error > -jnp.inf)


def _grid(budget: int) -> Float[Array, " budget_plus_1"]:
    """Even times from noise to image."""
    return jnp.linspace(1.0, 0.0, budget + 1)


def _check(budget: int, **shares: Float[Array, ""]) -> None:
    check_counts(budget=budget)
    for name, share in shares.items():
        if not isinstance(share, Tracer):
            check_share(name, float(share))
