"""Bounded information: first the cleanest time of the image, then the other tokens, all noisier.

    m = 1 - sigmoid(0.7 + N),   t_i = m + (1 - m) h_i,   h_i = |N_i| / 2, or U(0, 1) where |N_i| / 2 > 1

so that no token is cleaner than `m`, whose median is 0.33. The mean given `m` is `m + 0.368 (1 - m)`; spread (variance
inside an image, given `m`) `0.064 (1 - 1/d) (1 - m)^2` for `d` patches; the scale is the patch.

Source: the logit-normal truncated Gaussian of Patch Forcing (arXiv 2604.19141), in our direction of time. Its
half-normal has deviation `min((1 - m)/2, 0.6)`, of which the second never binds, and what falls off the end is redrawn
uniformly: the form above.
"""

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from asyncpatch.paths import check_patch_sizes, draw_patch_size
from asyncpatch.timesteps.base import AbstractTimestepSampler
from asyncpatch.tokens import share_over_patches

LOGIT_MEAN = 0.7
"""The source's mean of the logit of the cleanest token's signal; its deviation is 1."""


class PatchForcing(AbstractTimestepSampler):
    """A logit-normal cleanest time; half-normal steps up from it, one per patch of a size drawn from `patch_sizes`."""

    patch_sizes: tuple[int, ...]

    def __check_init__(self):
        check_patch_sizes(self.patch_sizes)

    def __call__(self, key: PRNGKeyArray, height: int, width: int) -> Float[Array, "{height} {width}"]:
        cleanest_key, patch_key, step_key, redraw_key = jr.split(key, 4)
        signal = jax.nn.sigmoid(LOGIT_MEAN + jr.normal(cleanest_key))
        patch = draw_patch_size(patch_key, self.patch_sizes, height, width)
        step = jnp.abs(jr.normal(step_key, (height, width))) / 2
        step = jnp.where(step > 1, jr.uniform(redraw_key, (height, width)), step)
        return 1 - signal * (1 - share_over_patches(step, patch))
