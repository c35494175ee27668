"""Images as grids of patches: rearrange pixels, spread a per-patch field, pool a field for inner layers.

Invariants: `merge_patches(split_patches(x)) == x` to the bit; a field spread over patches is constant on each;
pooling keeps the mean.
"""

import jax.numpy as jnp
from einops import rearrange, reduce
from jaxtyping import Array, Float, Int


def split_patches(image: Float[Array, "height width channel"], patch: int) -> Float[Array, "rows cols features"]:
    """Space to depth: each `patch x patch` block of pixels becomes the features of one site.

    Raises `ValueError` if `patch` does not divide the height and the width.
    """
    _check_divides(patch, image.shape[0], image.shape[1])
    return rearrange(image, "(rows py) (cols px) channel -> rows cols (py px channel)", py=patch, px=patch)


def merge_patches(sites: Float[Array, "rows cols features"], patch: int) -> Float[Array, "height width channel"]:
    """Depth to space: the inverse of `split_patches`. Raises `ValueError` if `patch^2` does not divide the features."""
    if patch < 1 or sites.shape[2] % patch**2:
        raise ValueError(
            f"{sites.shape[2]} features cannot be dealt to {patch}x{patch} pixels; "
            "give a positive size whose square divides the number of features"
        )
    return rearrange(sites, "rows cols (py px channel) -> (rows py) (cols px) channel", py=patch, px=patch)


def share_over_patches(field: Float[Array, "height width"], patch: Int[Array, ""]) -> Float[Array, "height width"]:
    """Give every pixel the value at the corner of its patch; `patch` may be traced."""
    height, width = field.shape
    rows, cols = jnp.arange(height) // patch * patch, jnp.arange(width) // patch * patch
    return field[rows[:, None], cols[None, :]]


def pool(features: Float[Array, "height width channel"], factor: int) -> Float[Array, "rows cols channel"]:
    """Mean of each `factor x factor` block. Raises `ValueError` if `factor` does not divide the height and width."""
    _check_divides(factor, features.shape[0], features.shape[1])
    return reduce(features, "(rows fy) (cols fx) channel -> rows cols channel", "mean", fy=factor, fx=factor)


def _check_divides(factor: int, height: int, width: int) -> None:
    if factor < 1 or height % factor or width % factor:
        raise ValueError(
            f"blocks of {factor}x{factor} do not tile a grid of {height}x{width}; "
            "give a positive size that divides the height and the width"
        )
