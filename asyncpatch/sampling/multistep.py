"""A second-order multistep rule with a step per token: DPM-Solver++ (2M) of arXiv 2211.01095, for times of their own.

With the noise share `p = sigma / (alpha + sigma)` of a token, so that `alpha/sigma = 1/p - 1`, its deterministic flow
is, exactly,

    z_s / sigma_s = z_t / sigma_t + integral of xhat d(1/p),   p from p_t down to p_s

A constant `xhat` gives DDIM. Here `xhat` is taken to be linear in `p`, with the slope that the token's last own move
showed: if its estimate changed by `change` while its share fell by `fall`,

    z_s = [DDIM step with xhat] + alpha_s (1 - k r) min(W / fall, 2) change,   r = (alpha_t/alpha_s) (sigma_s/sigma_t)
    W = p_t - mean of p = p_t (1 - log(1 + q) / q),     q = p_t / p_s - 1

with `k` the share of noise that the step keeps, 1 without fresh noise, and `alpha_s (1 - k r)` the weight of the
estimate in it. `W` is half of the step for a short one, and all of `p_t` for the last step to 0. The share has no
infinite end, unlike the log-SNR, whose differences the original divides by: a step from noise is a quotient like any
other here.

A token that has not moved yet has no slope and starts with a first-order step. One that pauses keeps `change` and
`fall` of its last own move, and forgets how its estimate changed while others moved: that is not the slope along its
own time. `docs/theory.md` says why this is of second order.

Invariants: a token that stays keeps its bits; a step adds no more than twice the change that the last one saw; the
images depend on the log-SNRs of the times alone, whatever the noise schedule.
"""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from asyncpatch.noise_schedule import AbstractNoiseSchedule, safe_divide
from asyncpatch.process import Prediction
from asyncpatch.sampling.base import AbstractStepRule, Denoise
from asyncpatch.sampling.ddim import (
    as_coefficient,
    check_unit_interval,
    noise_shares,
    noisy_step,
    posterior_share,
)
from asyncpatch.shapes import Image, TimeField

MOST = 2.0
"""Of the last change, what one step may add. Equal steps add half of it, and all at the last one; the bound is met
where a step is four times as long as the one before. Without it, a token that barely moved while its neighbours did
would have their doing taken for its own and enlarged without limit."""


class Moves(eqx.Module):
    """What is remembered of the last step, and of each token's last own move."""

    data: Float[Array, "height width channel"]
    """The last estimate."""
    fallen: Float[Array, "height width"]
    """By how much each noise share fell in the last step; 0 for a token that stayed."""
    change: Float[Array, "height width channel"]
    """Of the estimate of each token, over its last own move but the one of the last step."""
    fall: Float[Array, "height width"]
    """Of its noise share over the same move; 0 for a token that made none."""


class Multistep(AbstractStepRule):
    """Second order at one call a step, from the estimates of the step before.

    `eta` in [0, 1] is the share of fresh noise in each step, as in `DDIM`: an array, so that one compiled program
    serves all its values. Raises `ValueError` for a share outside of that.
    """

    eta: Float[Array, ""] = eqx.field(converter=as_coefficient, default=0.0)

    calls: ClassVar[int] = 1

    def __check_init__(self):
        check_unit_interval("eta", self.eta)

    def init(self, z: Image) -> Moves:
        nothing, still = jnp.zeros_like(z), jnp.zeros(z.shape[:2], z.dtype)
        return Moves(nothing, still, nothing, still)

    def __call__(
        self,
        schedule: AbstractNoiseSchedule,
        z: Image,
        prediction: Prediction,
        t: TimeField,
        s: TimeField,
        state: Moves,
        key: PRNGKeyArray,
        denoise: Denoise,
    ) -> tuple[Image, Moves]:
        moved = state.fallen > 0
        change = jnp.where(moved[..., None], prediction.data - state.data, state.change)
        fall = jnp.where(moved, state.fallen, state.fall)
        noisier, cleaner = noise_share(schedule, t), noise_share(schedule, s)
        part = jnp.minimum(safe_divide(mean_fall(noisier, cleaner), fall), MOST)
        share = posterior_share(schedule, t, s)
        kept, fresh = noise_shares(self.eta, share)
        data_weight = schedule.alpha(s) * (1 - kept * share)
        first = noisy_step(schedule, z, prediction, t, s, kept, fresh, key)
        following = jnp.where((s == t)[..., None], z, first + (data_weight * part)[..., None] * change)
        return following, Moves(prediction.data, jnp.where(s == t, 0.0, noisier - cleaner), change, fall)


def noise_share(schedule: AbstractNoiseSchedule, t: TimeField) -> TimeField:
    """`sigma / (alpha + sigma)` in [0, 1]: how noisy a token is, under any schedule; the time of rectified flow."""
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    return sigma / (alpha + sigma)


def mean_fall(noisier: TimeField, cleaner: TimeField) -> TimeField:
    """By how much the noise share has fallen on average over a step, weighted as the step weighs its estimates."""
    steepness = safe_divide(noisier - cleaner, cleaner)
    return jnp.where(noisier > cleaner, noisier * (1 - safe_divide(jnp.log1p(steepness), steepness)), 0.0)
