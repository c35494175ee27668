"""The fields of filling, following and trailing: one time on the region that is made, another one on what is known.

With `t ~ U(0, 1)` and odds `k ~ U(0, 1)`, each patch is known with probability `k`, so that any number of patches is
known equally often. Known tokens are at `b t`, where `b` is 0 (clean) in a share of the fields and `U(0, 1)` in the
others; all other tokens are at `t`. In a share `together` of the fields nothing is known, and all tokens have one time,
as in generation.

With `c` the share that is clean, `E b = (1 - c)/2`; the mean is `t (1 - (1 - b) a)`, where `a` is the known area, half
of the image on average; spread (variance inside an image) `(1 - together) (1 - 1/d) (c + (1 - c)/3) / 18` for `d`
patches; the scale is the patch.
"""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from asyncpatch.paths import check_patch_sizes, draw_patch_size
from asyncpatch.ranges import check_share
from asyncpatch.timesteps.base import AbstractTimestepSampler
from asyncpatch.tokens import share_over_patches


class Regions(AbstractTimestepSampler):
    """Known patches of a size drawn from `patch_sizes` at a share of the others' time, which is 0 in a part `clean`.

    A part `together` of the fields has one time. Raises `ValueError` for parts out of [0, 1].
    """

    patch_sizes: tuple[int, ...]
    together: float = eqx.field(static=True, default=0.5)
    clean: float = eqx.field(static=True, default=0.5)

    def __check_init__(self):
        check_patch_sizes(self.patch_sizes)
        check_share("together", self.together)
        check_share("clean", self.clean)

    def __call__(self, key: PRNGKeyArray, height: int, width: int) -> Float[Array, "{height} {width}"]:
        time_key, patch_key, odds_key, known_key, apart_key, share_key, clean_key = jr.split(key, 7)
        patch = draw_patch_size(patch_key, self.patch_sizes, height, width)
        known = share_over_patches(jr.uniform(known_key, (height, width)), patch) < jr.uniform(odds_key)
        known &= jr.bernoulli(apart_key, 1 - self.together)
        share = jnp.where(jr.bernoulli(clean_key, self.clean), 0.0, jr.uniform(share_key))
        return jr.uniform(time_key) * jnp.where(known, share, 1.0)
