"""Known regions of latent sites, from a law of known regions of pixels.

A site stands for `factor x factor` pixels and is known when all of them are, as in `asyncpatch.nn.known_sites`. So a
thin stroke hides whole sites, and more than half of them where a law of pixels promises at most half.
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, PRNGKeyArray

from asyncpatch.masks.base import AbstractMaskLaw
from asyncpatch.ranges import check_counts


class OfSites(AbstractMaskLaw):
    """The sites that `pixels`, drawn `factor` times as large, leaves known.

    If it leaves none, the first one with most known pixels counts as known, for a region has something known.
    """

    pixels: AbstractMaskLaw
    factor: int = eqx.field(static=True)

    def __check_init__(self):
        check_counts(factor=self.factor)

    def __call__(self, key: PRNGKeyArray, height: int, width: int) -> Bool[Array, "{height} {width}"]:
        factor = self.factor
        known = self.pixels(key, height * factor, width * factor).reshape(height, factor, width, factor)
        shares = jnp.mean(known, axis=(1, 3), dtype=jnp.float32)
        most = (jnp.arange(height * width) == jnp.argmax(shares)).reshape(height, width)
        return known.all((1, 3)) | (most & (jnp.max(shares) < 1))
