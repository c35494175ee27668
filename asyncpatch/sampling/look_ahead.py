"""Looking ahead: hard tokens step by what the denoiser says once easy ones have gone ahead.

At every step the tokens of least expected error are moved ahead by their present estimate, from `t` to the time at
which they have `ratio` times as little noise to go, `1 - ratio (1 - t)`. The denoiser looks again at this image. The
easy tokens then take the step by the first look, the hard ones by the second, and what went ahead is forgotten: the
context is provisional, which makes this a step rule and not a plan. It takes two calls a step.

Source: the look-ahead sampler of Patch Forcing (arXiv 2604.19141), with a share of 0.4 of patches and a ratio of 1.4 to
1.5. There are tokens for patches here, and any rule of one call in the place of Euler's.

Invariant: a token with `s = t` keeps its bits, as under the rule that it wraps.
"""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from asyncpatch.noise_schedule import AbstractNoiseSchedule
from asyncpatch.plans import easiest
from asyncpatch.process import Prediction
from asyncpatch.ranges import check_number, check_share
from asyncpatch.sampling.base import AbstractStepRule, Denoise
from asyncpatch.sampling.ddim import DDIM
from asyncpatch.shapes import Image, TimeField


def _as_scalar(value: ArrayLike) -> Float[Array, ""]:
    return jnp.asarray(value, jnp.float32)


class LookAhead(AbstractStepRule):
    """DDIM, with a second look for hard tokens.

    `share` is that of easy tokens. Raises `ValueError` for a share outside of [0, 1] or a ratio below 1.
    """

    rule: DDIM = eqx.field(default_factory=DDIM)
    share: Float[Array, ""] = eqx.field(converter=_as_scalar, default=0.5)
    ratio: Float[Array, ""] = eqx.field(converter=_as_scalar, default=1.5)

    calls: ClassVar[int] = 2

    def __check_init__(self):
        if not isinstance(self.share, Tracer) and not isinstance(self.ratio, Tracer):
            check_share("share", float(self.share))
            check_number("ratio", float(self.ratio), lambda ratio: ratio >= 1, "at least 1")

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
    ) -> tuple[Image, PyTree]:
        easy = easiest(prediction, t, self.share)
        ahead = jnp.where(easy, jnp.clip(1 - self.ratio * (1 - t), 0.0, t), t)
        moved = schedule.alpha(ahead)[..., None] * prediction.data + schedule.sigma(ahead)[..., None] * prediction.noise
        second = denoise(jnp.where(easy[..., None], moved, z), ahead)
        data = jnp.where(easy[..., None], prediction.data, second.data)
        noise = jnp.where(easy[..., None], prediction.noise, second.noise)
        return self.rule(schedule, z, Prediction(data, noise), t, s, None, key, denoise)
