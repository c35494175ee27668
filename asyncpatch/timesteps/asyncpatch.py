"""AsyncPatch's law of training times: first the mean level, then how far tokens stray from it.

The widest window around the mean that stays in [0, 1] keeps every token's expectation at the mean, so nearly clean and
nearly noisy images are seen as often as any other. Independent times never show them: their mean sits at 1/2 with
deviation `1/sqrt(12 d)`. Source: paper §3.1.

With `d` patches the mean given the level is the level, with deviation at most `1/(2 sqrt(3 d))`, and the level is
U(0, 1); spread (variance inside an image) `(1 - 1/d)/36` for the widest window; the scale is the patch. One token has
the density `-(1/2) log(t (1 - t))`. The law with the widest window is a random point of `asyncpatch.paths.Window`.
"""

import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from asyncpatch.paths import check_patch_sizes, draw_patch_size
from asyncpatch.timesteps.base import AbstractTimestepSampler
from asyncpatch.tokens import share_over_patches

WIDEST_SPREAD = 0.5
"""The spread that never binds: half of [0, 1]."""


class AsyncPatch(AbstractTimestepSampler):
    """Uniform mean level; uniform times in a window around it, one per patch of a size drawn from `patch_sizes`.

    The window reaches `max_spread` to either side, or less where [0, 1] ends sooner.
    """

    patch_sizes: tuple[int, ...]
    max_spread: float = WIDEST_SPREAD

    def __check_init__(self):
        check_patch_sizes(self.patch_sizes)
        if not 0 < self.max_spread <= WIDEST_SPREAD:
            raise ValueError(
                f"max_spread must be in (0, {WIDEST_SPREAD}], got {self.max_spread}; {WIDEST_SPREAD} never binds, and "
                "for no spread at all use Synchronous"
            )

    def __call__(self, key: PRNGKeyArray, height: int, width: int) -> Float[Array, "{height} {width}"]:
        mean_key, patch_key, offset_key = jr.split(key, 3)
        mean = jr.uniform(mean_key)
        spread = jnp.minimum(jnp.minimum(mean, 1 - mean), self.max_spread)
        patch = draw_patch_size(patch_key, self.patch_sizes, height, width)
        offset = share_over_patches(jr.uniform(offset_key, (height, width), minval=-1.0), patch)
        return mean + spread * offset
