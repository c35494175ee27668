"""Random patch sizes: checked on the host, drawn per image inside the compiled step.

The size is a traced value, so one program serves all sizes. Patches start at the top left corner; where a size does
not divide the grid, the last row and column of patches are cut off at the edge.
"""

import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray


def check_patch_sizes(patch_sizes: tuple[int, ...]) -> None:
    """Raise unless `patch_sizes` is a non-empty tuple of positive integers."""
    if not isinstance(patch_sizes, tuple) or not patch_sizes or not all(map(_is_size, patch_sizes)):
        raise ValueError(
            f"patch sizes must be a tuple of one or more positive integers, got {patch_sizes!r}; "
            "give the sides in pixels to draw from, such as (1, 2, 4), or (4,) for one size"
        )


def check_patch_fits(patch: int, height: int, width: int) -> None:
    """Raise if a patch is larger than the image in both directions."""
    if patch > max(height, width):
        raise ValueError(
            f"a patch of {patch}x{patch} is larger than the grid of {height}x{width}; "
            f"give patch sizes of at most {max(height, width)}, which makes the whole image one patch"
        )


def draw_patch_size(key: PRNGKeyArray, patch_sizes: tuple[int, ...], height: int, width: int) -> Int[Array, ""]:
    """One of `patch_sizes`, each as likely as any other. Raises `ValueError` if one is larger than the grid."""
    check_patch_fits(max(patch_sizes), height, width)
    return jr.choice(key, jnp.array(patch_sizes))


def _is_size(value: object) -> bool:
    return isinstance(value, int | np.integer) and int(value) > 0
