"""Laws of known regions: which tokens of an image are observed, and which are to be generated.

Polarity: True is observed (`asyncpatch.shapes.Known`). Invariant: every law leaves at least one token known and at
least one unknown, and raises `ValueError` for a grid too small for that.

A published number names its masks by their hash (`mask_hash`), so that two results can be told to rest on the same set.
"""

import abc
import enum
import hashlib

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from asyncpatch.shapes import Known


class AbstractMaskLaw(eqx.Module):
    """A law of known regions.

    To write one more: implement `__call__` so that it runs inside `jit` and `vmap` (`height` and `width` are static),
    True where a token is observed, and enrol the class in `tests/test_masks.py`.
    """

    @abc.abstractmethod
    def __call__(self, key: PRNGKeyArray, height: int, width: int) -> Bool[Array, "{height} {width}"]:
        """A random known region of a grid of `height x width` tokens."""


class Square(AbstractMaskLaw):
    """Hides a box of half the height and half the width at a random place; the rest is known."""

    def __call__(self, key: PRNGKeyArray, height: int, width: int) -> Bool[Array, "{height} {width}"]:
        return ~_half_box(key, height, width)


class Outpaint(AbstractMaskLaw):
    """Keeps only a box of half the height and half the width at a random place (the `extreme` mask of RAD)."""

    def __call__(self, key: PRNGKeyArray, height: int, width: int) -> Bool[Array, "{height} {width}"]:
        return _half_box(key, height, width)


class RandomBox(AbstractMaskLaw):
    """Hides a box of random height, width and place, each of the sizes `1..side-1` as likely as any other."""

    def __call__(self, key: PRNGKeyArray, height: int, width: int) -> Bool[Array, "{height} {width}"]:
        _check_grid(height, width)
        height_key, width_key, place_key = jr.split(key, 3)
        box_height = jr.randint(height_key, (), 1, height)
        box_width = jr.randint(width_key, (), 1, width)
        return ~_box(place_key, height, width, box_height, box_width)


class Border(AbstractMaskLaw):
    """Knows a border and hides the centre. Not random; the key is not used.

    `fraction` is the border's thickness on each side as a fraction of that side, rounded to whole tokens.
    """

    fraction: float = 0.25

    def __check_init__(self):
        if not 0 < self.fraction < 0.5:
            raise ValueError(
                f"fraction must lie strictly between 0 and 1/2, got {self.fraction}; 0.25 hides the middle half"
            )

    def __call__(self, key: PRNGKeyArray, height: int, width: int) -> Bool[Array, "{height} {width}"]:
        rows, cols = round(self.fraction * height), round(self.fraction * width)
        if rows + cols == 0 or 2 * rows >= height or 2 * cols >= width:
            raise ValueError(
                f"a border of {self.fraction} of each side is {rows} rows and {cols} columns of a grid of "
                f"{height}x{width}: nothing is known or nothing is hidden; give another fraction or a larger grid"
            )
        return jnp.ones((height, width), bool).at[rows : height - rows, cols : width - cols].set(False)


class Side(enum.Enum):
    """A side of the image."""

    TOP = enum.auto()
    BOTTOM = enum.auto()
    LEFT = enum.auto()
    RIGHT = enum.auto()


class Half(AbstractMaskLaw):
    """Knows the half of the image at one side, drawn from `sides`; of an odd length it knows the smaller part."""

    sides: tuple[Side, ...] = tuple(Side)

    def __check_init__(self):
        if not self.sides or not all(isinstance(side, Side) for side in self.sides):
            raise ValueError(f"sides must be a tuple of one or more of {list(Side)}, got {self.sides!r}")

    def __call__(self, key: PRNGKeyArray, height: int, width: int) -> Bool[Array, "{height} {width}"]:
        _check_grid(height, width)
        halves = np.zeros((len(self.sides), height, width), bool)
        region = {
            Side.TOP: np.s_[: height // 2],
            Side.BOTTOM: np.s_[height - height // 2 :],
            Side.LEFT: np.s_[:, : width // 2],
            Side.RIGHT: np.s_[:, width - width // 2 :],
        }
        for half, side in zip(halves, self.sides, strict=True):
            half[region[side]] = True
        return jnp.asarray(halves)[jr.randint(key, (), 0, len(self.sides))]


def mask_hash(known: Bool[Array | np.ndarray, "batch height width"]) -> str:
    """SHA-256, in hexadecimal, of a set of known regions: of its shape and its bits, in their order."""
    values = np.asarray(known)
    shape = np.asarray(values.shape, "<i8").tobytes()
    return hashlib.sha256(shape + np.packbits(values).tobytes()).hexdigest()


def check_known(known: ArrayLike, height: int, width: int) -> Known:
    """A user's known region as a boolean array of exactly this grid.

    Raises `TypeError` if it is not boolean and `ValueError` if its shape differs.
    """
    values = np.asarray(known)
    if values.dtype != np.bool_:
        raise TypeError(
            f"a known region must be boolean, True where a token is observed, got {values.dtype}; for an array with "
            "1 at observed tokens pass `array > 0.5`, for one with 1 at holes pass `array < 0.5`"
        )
    if values.shape != (height, width):
        raise ValueError(
            f"a known region must have shape ({height}, {width}), one value per token, True where observed, "
            f"got {values.shape}; drop channel axes, and resize with nearest neighbours"
        )
    return jnp.asarray(values)


def _half_box(key: PRNGKeyArray, height: int, width: int) -> Known:
    _check_grid(height, width)
    return _box(key, height, width, jnp.asarray(height // 2), jnp.asarray(width // 2))


def _box(key: PRNGKeyArray, height: int, width: int, box_height: Int[Array, ""], box_width: Int[Array, ""]) -> Known:
    """True inside a box of this size, every place inside the grid as likely as any other."""
    top_key, left_key = jr.split(key)
    rows = jnp.arange(height) - jr.randint(top_key, (), 0, height - box_height + 1)
    cols = jnp.arange(width) - jr.randint(left_key, (), 0, width - box_width + 1)
    in_rows, in_cols = (rows >= 0) & (rows < box_height), (cols >= 0) & (cols < box_width)
    return in_rows[:, None] & in_cols[None, :]


def _check_grid(height: int, width: int) -> None:
    if height < 2 or width < 2:
        raise ValueError(f"a grid of {height}x{width} cannot be split into known and unknown; give at least 2x2")
