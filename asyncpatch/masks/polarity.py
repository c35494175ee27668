"""Masks of others made known regions of ours, and back, with the meaning of their ones stated.

Half of the field writes 1 (white) where a pixel is known, the other half where it is hidden, and nothing in an array
or a picture tells which. So an array from elsewhere enters only with its `Polarity`, and leaves only with one. Inside
the package there is one type, `asyncpatch.shapes.Known`: boolean, True where observed.
"""

import enum

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, UInt8

from asyncpatch.shapes import Known


class Polarity(enum.Enum):
    """What a one, or a white pixel, of a mask means."""

    ONES_ARE_KNOWN = "white is known"
    """Ones are observed. So it is in RePaint's files."""
    ONES_ARE_HIDDEN = "white is hidden"
    """Ones are holes, to be made. So it is in LaMa's files and in most inpainting pipelines."""


def known_from_ones(ones: ArrayLike, polarity: Polarity, height: int, width: int) -> Known:
    """The known region that a mask of zeros and ones stands for.

    Raises `ValueError` for other values than 0 and 1 (or False and True), and for another shape.
    """
    values = np.asarray(ones)
    between = ~np.isin(values, (0, 1))
    if between.any():
        raise ValueError(
            f"a mask holds zeros and ones and nothing else, got {between.sum()} other values such as "
            f"{values[between][0]}; divide one of 0 and 255 by 255, and cut one of fractions at 0.5"
        )
    known = values == {Polarity.ONES_ARE_KNOWN: 1, Polarity.ONES_ARE_HIDDEN: 0}[polarity]
    return check_known(known, height, width)


def ones_from_known(
    known: Bool[Array | np.ndarray, "height width"], polarity: Polarity
) -> UInt8[np.ndarray, "height width"]:
    """A mask of zeros and ones for others, with the meaning they give to ones. `known_from_ones` is the inverse."""
    values = np.asarray(known)
    return np.where(polarity is Polarity.ONES_ARE_KNOWN, values, ~values).astype(np.uint8)


def check_known(known: ArrayLike, height: int, width: int) -> Known:
    """A user's known region as a boolean array of exactly this grid.

    Raises `TypeError` if it is not boolean and `ValueError` if its shape differs.
    """
    values = np.asarray(known)
    if values.dtype != np.bool_:
        raise TypeError(
            f"a known region must be boolean, True where a token is observed, got {values.dtype}; make one of a mask "
            "of zeros and ones with `asyncpatch.masks.known_from_ones`, which asks what its ones mean"
        )
    if values.shape != (height, width):
        raise ValueError(
            f"a known region must have shape ({height}, {width}), one value per token, True where observed, "
            f"got {values.shape}; drop channel axes, and resize with nearest neighbours"
        )
    return jnp.asarray(values)
