"""The DDIM family: keep a share of the predicted noise, draw the rest afresh.

    z_s = alpha_s xhat + sigma_s (kept epshat + sqrt(1 - kept^2) xi)

With `r = (alpha_t / alpha_s) (sigma_s / sigma_t)`, the share of the noise of `z_t` that the posterior of the forward
process keeps, the two names of the family are

    DDIM:                    kept = sqrt(1 - eta^2 (1 - r^2))
    StochasticCoefficient:   kept = 1 - c (1 - r)                                              (paper)

so they agree where `eta^2 = c (2 - c (1 - r)) / (1 + r)`. Small steps have `r` near 1 and `eta = sqrt(c)`. Both are
deterministic at 0, and draw from the posterior given `x = xhat` at 1.
"""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray

from asyncpatch.noise_schedule import AbstractNoiseSchedule, safe_divide
from asyncpatch.process import Prediction
from asyncpatch.sampling.base import AbstractStepRule, Denoise
from asyncpatch.shapes import Image, TimeField


def as_coefficient(value: ArrayLike) -> Float[Array, ""]:
    return jnp.asarray(value, jnp.float32)


class DDIM(AbstractStepRule):
    """Denoising diffusion implicit models (arXiv 2010.02502), per token. Raises `ValueError` unless `0 <= eta <= 1`.

    `eta` is an array, so that one compiled program serves all its values.
    """

    eta: Float[Array, ""] = eqx.field(converter=as_coefficient, default=0.0)

    calls: ClassVar[int] = 1

    def __check_init__(self):
        check_unit_interval("eta", self.eta)

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
        kept, fresh = noise_shares(self.eta, posterior_share(schedule, t, s))
        return noisy_step(schedule, z, prediction, t, s, kept, fresh, key), None


class StochasticCoefficient(AbstractStepRule):
    """The same family by the paper's coefficient `c`. Raises `ValueError` unless `0 <= c <= 1`. Source: paper §4.

    `c` is an array, so that one compiled program serves all its values.
    """

    c: Float[Array, ""] = eqx.field(converter=as_coefficient)

    calls: ClassVar[int] = 1

    def __check_init__(self):
        check_unit_interval("c", self.c)

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
        redrawn = self.c * (1 - posterior_share(schedule, t, s))
        return noisy_step(schedule, z, prediction, t, s, 1 - redrawn, jnp.sqrt(redrawn * (2 - redrawn)), key), None

    def eta(self, schedule: AbstractNoiseSchedule, t: TimeField, s: TimeField) -> TimeField:
        """The `eta` of the DDIM step from `t` to `s` that has the same law, per token; `sqrt(c)` where `s = t`."""
        share = posterior_share(schedule, t, s)
        return jnp.sqrt(self.c * (2 - self.c * (1 - share)) / (1 + share))


def posterior_share(schedule: AbstractNoiseSchedule, t: TimeField, s: TimeField) -> TimeField:
    """`r = (alpha_t / alpha_s) (sigma_s / sigma_t)` in [0, 1], and 1 where `s = t`, also at times of 0 and 1."""
    share = safe_divide(schedule.alpha(t) * schedule.sigma(s), schedule.alpha(s) * schedule.sigma(t))
    return jnp.where(s == t, 1.0, jnp.clip(share, 0.0, 1.0))


def deterministic_step(
    schedule: AbstractNoiseSchedule, z: Image, prediction: Prediction, t: TimeField, s: TimeField
) -> Image:
    """The step of `eta = 0`: keep all of the predicted noise. Tokens that stay keep their bits."""
    moved = schedule.alpha(s)[..., None] * prediction.data + schedule.sigma(s)[..., None] * prediction.noise
    return jnp.where((s == t)[..., None], z, moved)


def noise_shares(eta: Float[Array, ""], share: TimeField) -> tuple[TimeField, TimeField]:
    """How much of the predicted noise a DDIM step keeps, and how much it draws afresh; their squares sum to 1."""
    return jnp.sqrt((1 - eta**2) + (eta * share) ** 2), eta * jnp.sqrt(1 - share**2)


def noisy_step(
    schedule: AbstractNoiseSchedule,
    z: Image,
    prediction: Prediction,
    t: TimeField,
    s: TimeField,
    kept: TimeField,
    fresh: TimeField,
    key: PRNGKeyArray,
) -> Image:
    """The step that keeps and draws these shares of noise. Tokens that stay keep their bits."""
    noise = kept[..., None] * prediction.noise + fresh[..., None] * jr.normal(key, z.shape, z.dtype)
    moved = schedule.alpha(s)[..., None] * prediction.data + schedule.sigma(s)[..., None] * noise
    return jnp.where((s == t)[..., None], z, moved)


def check_unit_interval(name: str, value: Float[Array, ""]) -> None:
    if not isinstance(value, Tracer) and not 0 <= float(value) <= 1:
        raise ValueError(f"{name} runs from 0 (deterministic) to 1 (posterior), got {float(value)}; keep to [0, 1]")
