"""Brush strokes as LaMa draws them, on a grid of any size.

A stroke is a chain of one to five straight segments with round ends. All lengths are LaMa's whole pixels at 256x256,
drawn in that *frame* and laid over the grid, whose shorter side is always 256 pixels of the frame: a token of a
64x64 grid is 4x4 of them. So one key gives one picture at every size.

Per stroke, a start uniform over the frame; per segment, a length, a width and one of four directions
`0.01 + {0, 1, 2, 3}` radians from the downward column, to the right in odd strokes and to the left in even ones. A
segment ends at a whole pixel, rounded up and leftwards, and no further than one pixel beyond the frame. As OpenCV, with
which LaMa draws, we make a line of nominal width `w` out of `2 ceil(w/2) + 1` pixels, and its ends of discs of radius
`ceil(w/2)`; of the pixels of single segments, 0.7% are missing and 0.5% too many.

Invariant: a stroke hides the token in which it starts and has no gaps, on grids of any size. Everything is decided by
whole numbers, or by single products of float32, so that all machines draw the same masks.
"""

import dataclasses
import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

FRAME = 256
"""Side of the frame, in which all lengths are stated."""

SEGMENTS = 5
"""Most segments of a stroke."""

ANGLES = 0.01 + np.arange(4)
"""Directions of a segment in radians. The fourth is LaMa's `max_angle`, which is not reached."""

SUBPIXELS = 8
"""Ends of segments are placed to this fraction of a token."""

LARGEST_SIDE = 2048
"""Beyond this side, products of two coordinates in subpixels leave 32 bits."""


@dataclasses.dataclass(frozen=True)
class Brush:
    """Least and most, both included, of what is drawn for strokes, in pixels of the frame."""

    strokes: tuple[int, int]
    width: tuple[int, int]
    length: tuple[int, int]


class Strokes(NamedTuple):
    """Strokes in the frame; those beyond the drawn number, and segments likewise, are to be passed over."""

    vertices: Int[Array, "stroke segment+1 2"]
    """Row and column of the start, and of the end of each segment."""
    width: Int[Array, "stroke segment"]
    drawn: Bool[Array, "stroke segment"]


def frame_size(height: int, width: int) -> tuple[int, int]:
    """The frame's height and width for this grid: the shorter side is `FRAME`. Raises `ValueError` above the limit."""
    if max(height, width) > LARGEST_SIDE:
        raise ValueError(
            f"strokes are drawn on grids of up to {LARGEST_SIDE} tokens a side, got {height}x{width}; "
            "draw them on a smaller grid and enlarge them"
        )
    side = min(height, width)
    return height * FRAME // side, width * FRAME // side


def draw_strokes(key: PRNGKeyArray, brush: Brush, frame_height: int, frame_width: int) -> Strokes:
    """Random strokes over the whole frame."""
    count_key, row_key, col_key, segments_key, angle_key, length_key, width_key = jr.split(key, 7)
    most = brush.strokes[1]
    each = (most, SEGMENTS)
    count = _uniform(count_key, (), brush.strokes)
    segments = _uniform(segments_key, (most,), (1, SEGMENTS))
    start = jnp.stack([jr.randint(row_key, (most,), 0, frame_height), jr.randint(col_key, (most,), 0, frame_width)], 1)
    angle = jr.randint(angle_key, each, 0, len(ANGLES))
    length = _uniform(length_key, each, brush.length)
    stroke = jnp.arange(most)
    steps = jnp.asarray(_steps(brush.length[1]))[stroke[:, None] % 2, angle, length]
    corner = jnp.array([[frame_height, frame_width]])

    def walk(place: Int[Array, "stroke 2"], step: Int[Array, "stroke 2"]) -> tuple[Array, Array]:
        place = jnp.clip(place + step, 0, corner)
        return place, place

    _, ends = jax.lax.scan(walk, start, steps.swapaxes(0, 1))
    drawn = (stroke < count)[:, None] & (jnp.arange(SEGMENTS)[None, :] < segments[:, None])
    vertices = jnp.concatenate([start[:, None], ends.swapaxes(0, 1)], axis=1)
    return Strokes(vertices, _uniform(width_key, each, brush.width), drawn)


class Capsules(NamedTuple):
    """The segments of all strokes on a grid, in subpixels."""

    start: Int[Array, "segment 2"]
    step: Int[Array, "segment 2"]
    side_reach: Float[Array, " segment"]
    end_reach: Float[Array, " segment"]
    drawn: Bool[Array, " segment"]


def paint(strokes: Strokes, height: int, width: int) -> Bool[Array, "{height} {width}"]:
    """True where a token's centre lies under a stroke."""
    side = min(height, width)
    vertices = (2 * strokes.vertices + 1) * (side * SUBPIXELS) // (2 * FRAME) - SUBPIXELS // 2
    starts, ends = vertices[:, :-1].reshape(-1, 2), vertices[:, 1:].reshape(-1, 2)
    half_pixel = side * SUBPIXELS / (2 * FRAME)
    diameter = 2.0 * ((strokes.width.ravel() + 1) // 2).astype(jnp.float32)
    # Half a token leaves no gaps, and half a pixel of the frame is for strokes along the pixels just beyond it.
    least_reach = SUBPIXELS / 2 + half_pixel
    side_reach = jnp.maximum((diameter + 1) * half_pixel, least_reach)
    # Half a token's diagonal around a point always holds a token's centre.
    end_reach = jnp.maximum(diameter * half_pixel, math.sqrt(2) * least_reach)
    capsules = Capsules(starts, ends - starts, side_reach, end_reach, strokes.drawn.ravel())
    one_by_one, at_once = (partial(paint, height=height, width=width) for paint in (paint_one_by_one, paint_at_once))
    return jax.lax.platform_dependent(capsules, cpu=one_by_one, default=at_once)


def paint_one_by_one(capsules: Capsules, height: int, width: int) -> Bool[Array, "{height} {width}"]:
    """In a loop over those that are drawn: less work, 1.2 to 50 times faster on a CPU, least for thin strokes."""
    order = jnp.flatnonzero(capsules.drawn, size=capsules.drawn.size, fill_value=0)

    def add(place: Int[Array, ""], hidden: Bool[Array, "height width"]) -> Bool[Array, "height width"]:
        capsule = jax.tree.map(lambda each: each[order[place]], capsules)
        return hidden | _hidden_by(capsule, height, width)

    return jax.lax.fori_loop(0, jnp.sum(capsules.drawn), add, jnp.zeros((height, width), bool))


def paint_at_once(capsules: Capsules, height: int, width: int) -> Bool[Array, "{height} {width}"]:
    """All of them in one program, drawn or not: an accelerator waits for the host at every round of a loop."""
    hidden = jax.vmap(partial(_hidden_by, height=height, width=width))(capsules)
    return jnp.any(hidden & capsules.drawn[:, None, None], axis=0)


def _hidden_by(capsule: Capsules, height: int, width: int) -> Bool[Array, "{height} {width}"]:
    rows, cols = jnp.arange(height)[:, None] * SUBPIXELS, jnp.arange(width)[None, :] * SUBPIXELS
    row, col = capsule.start
    return _capsule(rows - row, cols - col, capsule.step, capsule.side_reach, capsule.end_reach)


def _capsule(
    row: Int[Array, "height 1"],
    col: Int[Array, "1 width"],
    step: Int[Array, "2"],
    side_reach: Float[Array, ""],
    end_reach: Float[Array, ""],
) -> Bool[Array, "height width"]:
    """Tokens beside the straight line from the origin to `step`, or around its ends, all in subpixels."""
    down, right = step
    length = down * down + right * right
    along = row * down + col * right
    across = (col * down - row * right).astype(jnp.float32)
    reach = side_reach * side_reach * length.astype(jnp.float32)
    beside = (along > 0) & (along < length) & (across * across <= reach)
    disc = jnp.floor(end_reach * end_reach).astype(jnp.int32)
    around_start = row * row + col * col <= disc
    around_end = (row - down) ** 2 + (col - right) ** 2 <= disc
    return beside | around_start | around_end


def _steps(longest: int) -> Int[np.ndarray, "parity angle length 2"]:
    """Rows and columns gone by a segment, by the parity of its stroke, its angle and its length."""
    along = np.arange(longest + 1)
    down, right = np.cos(ANGLES)[:, None] * along, np.sin(ANGLES)[:, None] * along
    return np.floor(np.stack([np.stack([down, -right], -1), np.stack([down, right], -1)])).astype(np.int32)


def _uniform(key: PRNGKeyArray, shape: tuple[int, ...], bounds: tuple[int, int]) -> Int[Array, "..."]:
    """Whole numbers between two bounds, both included."""
    least, most = bounds
    return jr.randint(key, shape, least, most + 1)
