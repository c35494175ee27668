"""The random walk's limit as a path: every token's clock runs at a random constant rate.

An *environment* gives token `i` the rate `omega_i = E_i^c`, `E_i ~ Exp(1)`, one per patch. With `ell = -log(1 - t)`
the clock of a token and `tau` the time that all clocks share (paper B.1-B.2),

    ell_i = omega_i tau,      t_i = 1 - exp(-omega_i tau),      mean_i t_i = r  fixes tau .

The *spread* `c` says how far rates differ: 0 is the diagonal, 1 the paper's walk, and for large `c` one patch after
another is noised in a random order. Rates enter as logarithms and `tau` as `log tau`, so that no spread overflows;
only ratios of rates matter.

Invariant: the mean of the field is `r` up to rounding, at every `r`, also within 1e-6 of either end.
"""

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from asyncpatch.paths.base import AbstractPath, AbstractPathLaw
from asyncpatch.paths.clock import time_of_clock
from asyncpatch.paths.patches import check_patch_sizes, draw_patch_size
from asyncpatch.ranges import check_number
from asyncpatch.shapes import TimeField
from asyncpatch.tokens import share_over_patches

MAX_ITERATIONS = 100
"""Of the solve for `log tau`. Every second one halves the bracket at least, so float64 is reached before."""

NEAREST_END = 1e-30
"""The mean level, or what is missing to 1, is not taken to be smaller than this."""

LONGEST_LOG_CLOCK = 7.0
"""The logarithm of a clock at which `1 - t` is 0, in float64 as well."""


MAX_SPREAD = 1e30
"""Times the logarithm of an exponential variable, it is still a float32."""


class EnvironmentPath(AbstractPath):
    """The curve of one environment, in its own clock: `r` is the mean level."""

    log_rates: TimeField

    def __call__(self, r: Float[Array, ""]) -> TimeField:
        # A longer clock is noise in every precision, and may be infinite, which has no slope.
        t = time_of_clock(jnp.exp(jnp.minimum(self._log_clocks(r), LONGEST_LOG_CLOCK)))
        return t - jax.lax.stop_gradient(jnp.where(r <= 0, t, 0.0))  # exactly 0 there, with the slope of its right

    def clocks(self, r: Float[Array, ""]) -> TimeField:
        """`ell = -log(1 - t)` of every token: exact where `1 - t` would round to 0."""
        return jnp.exp(self._log_clocks(r))

    def _log_clocks(self, r: Float[Array, ""]) -> TimeField:
        return self.log_rates + log_shared_time(self.log_rates, r, 1 - r)


class Environment(AbstractPathLaw):
    """Rates `E^c`, one per patch of a size drawn per path; `c` is drawn per path, evenly from `spread`.

    `spread = (1.0, 1.0)` with one patch size is the paper's walk.
    """

    patch_sizes: tuple[int, ...]
    spread: tuple[float, float] = (1.0, 1.0)

    def __check_init__(self):
        check_patch_sizes(self.patch_sizes)
        if len(self.spread) != 2 or not 0 <= self.spread[0] <= self.spread[1] < float("inf"):
            raise ValueError(
                f"spread must be two numbers (least, most) with 0 <= least <= most, got {self.spread}; "
                "give (1.0, 1.0) for the paper's walk"
            )
        check_number("spread", float(self.spread[1]), lambda most: most <= MAX_SPREAD, f"at most {MAX_SPREAD:g}")

    def sample(self, key: PRNGKeyArray, height: int, width: int) -> EnvironmentPath:
        spread_key, patch_key, rate_key = jr.split(key, 3)
        least, most = self.spread
        spread = jr.uniform(spread_key, minval=least, maxval=most)
        patch = draw_patch_size(patch_key, self.patch_sizes, height, width)
        # -Gumbel is the logarithm of an exponential variable, and is never infinite.
        return EnvironmentPath(spread * share_over_patches(-jr.gumbel(rate_key, (height, width)), patch))


@jax.custom_jvp
def log_shared_time(
    log_rates: Float[Array, "*grid"], level: Float[Array, ""], missing: Float[Array, ""]
) -> Float[Array, ""]:
    """`log tau` at which the mean over tokens of `1 - exp(-omega tau)` is `level = 1 - missing`, in [0, 1].

    Both are asked for because the smaller one decides: near 1 `missing` must not be computed from a rounded level.
    Newton's method on the logarithm of the smaller one, inside a bracket that is halved whenever Newton's step is
    too long. Differentiable any number of times, by the implicit function theorem.
    """
    upper = level > 0.5
    log_level, log_missing = jnp.log(jnp.maximum(level, NEAREST_END)), jnp.log(jnp.maximum(missing, NEAREST_END))
    # Were all rates equal to the largest (the smallest), tau would be the least (the most) that it can be.
    below = -jnp.log1p(-jnp.minimum(jnp.exp(log_level), 0.5))
    log_clock = jnp.log(jnp.where(upper, -log_missing, below))
    least, most = log_clock - jnp.max(log_rates), log_clock - jnp.min(log_rates)
    accuracy = 2 * float(jnp.finfo(log_rates.dtype).eps)

    def off_and_slope(log_tau):
        clocks = jnp.exp(log_rates + log_tau)
        log_tail, log_head = _log_mean(-clocks), jnp.log(jnp.mean(-jnp.expm1(-clocks)))
        off = jnp.where(upper, log_missing - log_tail, log_head - log_level)
        return off, jnp.exp(_log_mean(log_rates + log_tau - clocks) - jnp.where(upper, log_tail, log_head))

    def unfinished(carry):
        log_tau, _, _, step, count = carry
        return (jnp.abs(step) > accuracy * jnp.maximum(1.0, jnp.abs(log_tau))) & (count < MAX_ITERATIONS)

    def refine(carry):
        log_tau, least, most, last_step, count = carry
        off, slope = off_and_slope(log_tau)
        least, most = jnp.where(off < 0, log_tau, least), jnp.where(off > 0, log_tau, most)
        newton = log_tau - off / slope
        short = (newton >= least) & (newton <= most) & (2 * jnp.abs(newton - log_tau) <= jnp.abs(last_step))
        following = jnp.where(short, newton, (least + most) / 2)
        following = jnp.where(off == 0, log_tau, following)
        return following, least, most, following - log_tau, count + 1

    start = ((least + most) / 2, least, most, 2 * (most - least) + 1, jnp.int32(0))
    return jax.lax.while_loop(unfinished, refine, start)[0]


@log_shared_time.defjvp
def _log_shared_time_jvp(primals, tangents):
    log_rates, level, missing = primals
    rates_change, level_change, missing_change = tangents
    log_tau = log_shared_time(log_rates, level, missing)
    log_clocks = log_rates + log_tau
    log_moving = log_clocks - jnp.exp(log_clocks)  # log of ell (1 - t): how fast each token rises with log tau
    share = jax.nn.softmax(log_moving.ravel()).reshape(log_moving.shape)
    rise = jnp.where(level > 0.5, -missing_change, level_change)
    return log_tau, rise * jnp.exp(-_log_mean(log_moving)) - jnp.sum(share * rates_change)


def _log_mean(values: Float[Array, "*grid"]) -> Float[Array, ""]:
    """The logarithm of the mean of `exp(values)`."""
    return jax.nn.logsumexp(values) - jnp.log(values.size)
