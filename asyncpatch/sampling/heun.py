"""Heun's rule with a step per token: look again where a first step leads, then take the step anew with both estimates.

    z~  = [DDIM step from z_t with xhat_t],     xhat_s the estimate at (z~, s)
    z_s = [DDIM step from z_t with (1 - w) xhat_t + w xhat_s],     w = W / (p_t - p_s)

with the noise share `p` and its mean fall `W` of `asyncpatch.sampling.multistep`: the estimate is taken to be linear in
`p` over the step. `w` is 1/2 for a short step, the trapezoid of Heun's rule, and nears 1 towards `s = 0`; nothing is
divided by `sigma_s`, and nothing is infinite at times of 0 and 1. A token that ends clean takes DDIM's step: what the
second look says of a clean token is the token itself.

Source: Karras et al. (arXiv 2206.00364), in the exponential form of DPM-Solver++ (arXiv 2211.01095).

Invariant: a token that stays keeps its bits.
"""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from asyncpatch.noise_schedule import AbstractNoiseSchedule, safe_divide
from asyncpatch.process import Prediction
from asyncpatch.sampling.base import AbstractStepRule, Denoise
from asyncpatch.sampling.ddim import deterministic_step, posterior_share
from asyncpatch.sampling.multistep import mean_fall, noise_share
from asyncpatch.shapes import Image, TimeField


class Heun(AbstractStepRule):
    """Second order at two calls a step, remembering nothing. Deterministic: draws no noise."""

    calls: ClassVar[int] = 2

    def init(self, z: Image) -> None:
        return None

    def __call__(
        self,
        schedule: AbstractNoiseSchedule,
        z: Image,
        prediction: Prediction,
        t: TimeField,
        s: TimeField,
        state: None,
        key: PRNGKeyArray,
        denoise: Denoise,
    ) -> tuple[Image, None]:
        first = deterministic_step(schedule, z, prediction, t, s)
        change = denoise(first, s).data - prediction.data
        noisier, cleaner = noise_share(schedule, t), noise_share(schedule, s)
        weight = safe_divide(mean_fall(noisier, cleaner), noisier - cleaner)
        data_weight = schedule.alpha(s) * (1 - posterior_share(schedule, t, s))
        second = first + (data_weight * weight)[..., None] * change
        # Not at clean tokens: their second estimate has no more to say, and a denoiser need not be exact there.
        return jnp.where(((s == t) | (cleaner == 0))[..., None], first, second), None
