"""Boxes at a random place: hidden (`Square`, `RandomBox`), or all that is known (`Extrema`)."""

import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from asyncpatch.masks.base import AbstractMaskLaw, check_grid
from asyncpatch.shapes import Known


class Square(AbstractMaskLaw):
    """Hides a box of half the height and half the width at a random place; the rest is known."""

    def __call__(self, key: PRNGKeyArray, height: int, width: int) -> Bool[Array, "{height} {width}"]:
        return ~_half_box(key, height, width)


class Extrema(AbstractMaskLaw):
    """Keeps only a box of half the height and half the width at a random place: outpainting."""

    def __call__(self, key: PRNGKeyArray, height: int, width: int) -> Bool[Array, "{height} {width}"]:
        return _half_box(key, height, width)


class RandomBox(AbstractMaskLaw):
    """Hides a box of random height, width and place, each of the sizes `1..side-1` as likely as any other."""

    def __call__(self, key: PRNGKeyArray, height: int, width: int) -> Bool[Array, "{height} {width}"]:
        check_grid(height, width)
        height_key, width_key, place_key = jr.split(key, 3)
        box_height = jr.randint(height_key, (), 1, height)
        box_width = jr.randint(width_key, (), 1, width)
        return ~_box(place_key, height, width, box_height, box_width)


def _half_box(key: PRNGKeyArray, height: int, width: int) -> Known:
    check_grid(height, width)
    return _box(key, height, width, jnp.asarray(height // 2), jnp.asarray(width // 2))


def _box(key: PRNGKeyArray, height: int, width: int, box_height: Int[Array, ""], box_width: Int[Array, ""]) -> Known:
    """True inside a box of this size, every place inside the grid as likely as any other."""
    top_key, left_key = jr.split(key)
    rows = jnp.arange(height) - jr.randint(top_key, (), 0, height - box_height + 1)
    cols = jnp.arange(width) - jr.randint(left_key, (), 0, width - box_width + 1)
    in_rows, in_cols = (rows >= 0) & (rows < box_height), (cols >= 0) & (cols < box_width)
    return in_rows[:, None] & in_cols[None, :]
