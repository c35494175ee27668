"""The thin and wide masks of LaMa (`random_thin_256` and `random_thick_256`), on grids of any size.

The laws are those of LaMa's generator as it runs, whose offsets are not in the names of its options: widths start at
5, lengths at 10, and one stroke more than stated can be drawn. A wide mask is made of strokes *or*, with odds
1 : 0.3, of boxes. Draws that hide more than half of the image are thrown away and drawn anew.

Lengths scale with the shorter side (`asyncpatch.masks.strokes`). LaMa's own masks of 512 pixels have other constants:
these are the masks of 256 pixels, enlarged.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from asyncpatch.masks.base import AbstractMaskLaw
from asyncpatch.masks.strokes import FRAME, Brush, draw_strokes, frame_size, paint

THIN = Brush(strokes=(4, 51), width=(5, 14), length=(10, 49))
WIDE = Brush(strokes=(1, 6), width=(5, 104), length=(10, 209))

BOX_ODDS = 0.3
"""Boxes to strokes in wide masks, as 0.3 : 1."""
MOST_BOXES = 3
BOX_SIDE = (30, 150)
"""Least and most, both included, in pixels of the frame."""
BOX_MARGIN = 10
"""Pixels of the frame, at least, between a box and the edge."""

SMALLEST_SIDE = 6
"""Below it a token is larger than many strokes are long, and most draws would hide more than half."""

ATTEMPTS = 200
"""Draws before the one that hides least is taken. At the smallest side a tenth of thin masks hide at most half, so that
all fail less than once in 10^8 masks; larger grids keep more."""


class Thin(AbstractMaskLaw):
    """Hides 4 to 51 short, thin strokes: LaMa's `random_thin_256`, scaled to the grid's shorter side."""

    def __call__(self, key: PRNGKeyArray, height: int, width: int) -> Bool[Array, "{height} {width}"]:
        _check_side(height, width)

        def draw(draw_key: PRNGKeyArray) -> Bool[Array, "height width"]:
            return paint(draw_strokes(draw_key, THIN, *frame_size(height, width)), height, width)

        return ~at_most_half(key, draw, height, width)


class Wide(AbstractMaskLaw):
    """Hides 1 to 6 long, wide strokes, or 1 to 3 boxes: LaMa's `random_thick_256`, scaled to the shorter side."""

    def __call__(self, key: PRNGKeyArray, height: int, width: int) -> Bool[Array, "{height} {width}"]:
        _check_side(height, width)

        def draw(draw_key: PRNGKeyArray) -> Bool[Array, "height width"]:
            kind_key, box_key, stroke_key = jr.split(draw_key, 3)
            is_boxes = jr.bernoulli(kind_key, BOX_ODDS / (1 + BOX_ODDS))
            strokes = draw_strokes(stroke_key, WIDE, *frame_size(height, width))
            painted = paint(strokes._replace(drawn=strokes.drawn & ~is_boxes), height, width)
            return painted | (_boxes(box_key, height, width) & is_boxes)

        return ~at_most_half(key, draw, height, width)


def at_most_half(
    key: PRNGKeyArray, draw: Callable[[PRNGKeyArray], Bool[Array, "height width"]], height: int, width: int
) -> Bool[Array, "{height} {width}"]:
    """The first draw that hides at most half, or the one that hides least of `ATTEMPTS`."""
    half = height * width // 2

    def goes_on(state: tuple[Int[Array, ""], Bool[Array, "height width"]]) -> Bool[Array, ""]:
        attempt, hidden = state
        return (jnp.sum(hidden) > half) & (attempt < ATTEMPTS)

    def again(state: tuple[Int[Array, ""], Bool[Array, "height width"]]):
        attempt, least = state
        hidden = draw(jr.fold_in(key, attempt))
        return attempt + 1, jnp.where(jnp.sum(hidden) < jnp.sum(least), hidden, least)

    _, hidden = jax.lax.while_loop(goes_on, again, (jnp.asarray(0), jnp.ones((height, width), bool)))
    return hidden


def _boxes(key: PRNGKeyArray, height: int, width: int) -> Bool[Array, "{height} {width}"]:
    """True inside one to `MOST_BOXES` boxes."""
    count_key, row_key, col_key = jr.split(key, 3)
    frame_height, frame_width = frame_size(height, width)
    scale = min(height, width)
    in_rows = _intervals(row_key, frame_height, scale, height)
    in_cols = _intervals(col_key, frame_width, scale, width)
    drawn = jnp.arange(MOST_BOXES) < jr.randint(count_key, (), 1, MOST_BOXES + 1)
    return jnp.any(in_rows[:, :, None] & in_cols[:, None, :] & drawn[:, None, None], axis=0)


def _intervals(key: PRNGKeyArray, frame: int, scale: int, tokens: int) -> Bool[Array, "box {tokens}"]:
    """The extent of each box along one axis: at least one token, its ends rounded to whole ones."""
    size_key, start_key = jr.split(key)
    size = jr.randint(size_key, (MOST_BOXES,), BOX_SIDE[0], BOX_SIDE[1] + 1)
    start = jr.randint(start_key, (MOST_BOXES,), BOX_MARGIN, frame - BOX_MARGIN - size + 1)
    first = (2 * start * scale + FRAME) // (2 * FRAME)
    last = jnp.maximum((2 * (start + size) * scale + FRAME) // (2 * FRAME), first + 1)
    token = jnp.arange(tokens)[None, :]
    return (token >= first[:, None]) & (token < last[:, None])


def _check_side(height: int, width: int) -> None:
    if min(height, width) < SMALLEST_SIDE:
        raise ValueError(
            f"strokes are finer than the tokens of a grid of {height}x{width}; give at least "
            f"{SMALLEST_SIDE}x{SMALLEST_SIDE}, or hide boxes (Square, RandomBox)"
        )
