"""Known regions along the sides of the image: a border all around, or one half."""

import enum

import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, PRNGKeyArray

from asyncpatch.masks.base import AbstractMaskLaw, check_grid


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
        check_grid(height, width)
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
