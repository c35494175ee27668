"""Supervised inpainting: known tokens are clean, the others share one time.

With `u` the unknown part of the image and `t ~ U(0, 1)`, the mean is `u t`; spread (variance inside an image)
`t^2 u (1 - u)`; the scale is that of the masks. TD-Paint trains on such fields.
"""

import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from asyncpatch.masks import AbstractMaskLaw
from asyncpatch.timesteps.base import AbstractTimestepSampler


class Masked(AbstractTimestepSampler):
    """Exactly 0 on a known region drawn from `mask_law`, one `t ~ U(0, 1)` on the rest."""

    mask_law: AbstractMaskLaw

    def __call__(self, key: PRNGKeyArray, height: int, width: int) -> Float[Array, "{height} {width}"]:
        mask_key, time_key = jr.split(key)
        return jnp.where(self.mask_law(mask_key, height, width), 0.0, jr.uniform(time_key))
