"""AsyncPatch's window as a path: tokens run ahead of the mean or lag behind it, most of all half way.

    t_j(r) = r + min(r, 1 - r) q_j,   q_j ~ U(-1, 1), one per patch of a random size

A token rises with slope `1 + q_j` up to `r = 1/2` and with slope `1 - q_j` after it. Its point at `r ~ U(0, 1)` is the
training law of the paper (§3.1), so that this law trains a network, plans a generation and gives a bound alike.
"""

import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from asyncpatch.paths.base import AbstractPath, AbstractPathLaw
from asyncpatch.paths.patches import check_patch_sizes, draw_patch_size
from asyncpatch.shapes import TimeField
from asyncpatch.tokens import share_over_patches


class WindowPath(AbstractPath):
    """One draw of the window: `lead` is the `q` in [-1, 1] of each token, positive where it is noised first."""

    lead: TimeField

    def __call__(self, r: Float[Array, ""]) -> TimeField:
        # The two halves of r + min(r, 1 - r) q, each written as a product so that rounding cannot make it fall.
        return jnp.where(r < 0.5, r * (1 + self.lead), 1 - (1 - r) * (1 - self.lead))


class Window(AbstractPathLaw):
    """Uniform leads, one per patch of a size drawn per path from `patch_sizes`."""

    patch_sizes: tuple[int, ...]

    def __check_init__(self):
        check_patch_sizes(self.patch_sizes)

    def sample(self, key: PRNGKeyArray, height: int, width: int) -> WindowPath:
        patch_key, lead_key = jr.split(key)
        patch = draw_patch_size(patch_key, self.patch_sizes, height, width)
        return WindowPath(share_over_patches(jr.uniform(lead_key, (height, width), minval=-1.0), patch))
