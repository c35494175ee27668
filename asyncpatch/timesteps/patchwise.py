"""Independent uniform times for patches of a random size.

With `d` patches the mean sits at 1/2 with deviation `1/sqrt(12 d)`; spread (variance inside an image)
`(1 - 1/d)/12`; the scale is the patch.
"""

import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from asyncpatch.paths import check_patch_sizes, draw_patch_size
from asyncpatch.timesteps.base import AbstractTimestepSampler
from asyncpatch.tokens import share_over_patches


class Patchwise(AbstractTimestepSampler):
    """One `t ~ U(0, 1)` per patch; one patch size per image, drawn from `patch_sizes`."""

    patch_sizes: tuple[int, ...]

    def __check_init__(self):
        check_patch_sizes(self.patch_sizes)

    def __call__(self, key: PRNGKeyArray, height: int, width: int) -> Float[Array, "{height} {width}"]:
        patch_key, time_key = jr.split(key)
        patch = draw_patch_size(patch_key, self.patch_sizes, height, width)
        return share_over_patches(jr.uniform(time_key, (height, width)), patch)
