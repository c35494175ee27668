"""Supervised inpainting: known tokens are clean, the others share one time.

With `u` the unknown part of the image and `t ~ U(0, 1)`, the mean is `u t`; spread (variance inside an image)
`t^2 u (1 - u)`; the scale is that of the masks. TD-Paint trains on such fields. A share of the fields may know nothing,
so that a network can be asked for its answer without the image as well: there `u = 1`.
"""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from asyncpatch.masks import AbstractMaskLaw
from asyncpatch.ranges import check_share
from asyncpatch.timesteps.base import AbstractTimestepSampler


class Masked(AbstractTimestepSampler):
    """Exactly 0 on a known region drawn from `mask_law`, one `t ~ U(0, 1)` on the rest.

    In a share `dropped` of the fields no token is known. Raises `ValueError` for a share out of [0, 1].
    """

    mask_law: AbstractMaskLaw
    dropped: float = eqx.field(static=True, default=0.0)

    def __check_init__(self):
        check_share("dropped", self.dropped)

    def __call__(self, key: PRNGKeyArray, height: int, width: int) -> Float[Array, "{height} {width}"]:
        mask_key, time_key, dropping_key = jr.split(key, 3)
        known = self.mask_law(mask_key, height, width) & jr.bernoulli(dropping_key, 1 - self.dropped)
        return jnp.where(known, 0.0, jr.uniform(time_key))
