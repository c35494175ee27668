"""Thin and wide masks are LaMa's: against a second implementation of its definition, stroke by stroke and in law.

The second implementation draws one stroke after another with Pillow at 256x256, as LaMa does with OpenCV. Five
statistics of 300 masks each are compared by Kolmogorov-Smirnov, numbers of strokes by chi-square, each at a
false-alarm rate of 1e-4; seeds are fixed.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from PIL import Image as Pillow
from PIL import ImageDraw
from scipy import ndimage, stats

from asyncpatch.masks import Thin, Wide, mask_set
from asyncpatch.masks.lama import THIN, WIDE, at_most_half
from asyncpatch.masks.strokes import Brush, Strokes, draw_strokes, frame_size, paint

FALSE_ALARM = 1e-4
COUNT = 300
SIDE = 256


@dataclasses.dataclass(frozen=True)
class Lama:
    """LaMa's options by its own names, and its generator once more."""

    min_times: int
    max_times: int
    max_width: int
    max_len: int
    box_proba: float = 0.0
    min_width: int = 5
    min_len: int = 10

    def strokes(self, rng):
        """The start, the end and the nominal width of each segment, stroke by stroke."""
        for stroke in range(rng.integers(self.min_times, self.max_times + 2)):
            x, y = rng.integers(0, SIDE, 2)
            for _ in range(rng.integers(1, 6)):
                turn = rng.integers(0, 4) + 0.01
                turn = turn if stroke % 2 else 2 * np.pi - turn
                length = self.min_len + rng.integers(0, self.max_len)
                width = self.min_width + rng.integers(0, self.max_width)
                end = np.clip(np.trunc([x + length * np.sin(turn), y + length * np.cos(turn)]), 0, SIDE)
                yield (int(x), int(y)), (int(end[0]), int(end[1])), int(width)
                x, y = end

    def draw(self, rng):
        """One mask before any is thrown away, True where hidden."""
        picture = Pillow.new("1", (SIDE, SIDE))
        brush = ImageDraw.Draw(picture)
        if rng.random() < self.box_proba / (1 + self.box_proba):
            for _ in range(rng.integers(1, 4)):
                width, height = rng.integers(30, 151, 2)
                x, y = rng.integers(10, SIDE - 10 - width + 1), rng.integers(10, SIDE - 10 - height + 1)
                brush.rectangle((int(x), int(y), int(x + width) - 1, int(y + height) - 1), fill=1)
            return np.array(picture)
        for start, end, width in self.strokes(rng):
            radius = (width + 1) // 2
            brush.line((start, end), fill=1, width=2 * radius + 1)
            for x, y in (start, end):
                brush.ellipse((x - radius, y - radius, x + radius, y + radius), fill=1)
        return np.array(picture)

    def masks(self, seed, count=COUNT):
        """Masks that hide at most half, True where hidden."""
        rng = np.random.default_rng(seed)
        kept = []
        while len(kept) < count:
            hidden = self.draw(rng)
            if hidden.mean() <= 0.5:
                kept.append(hidden)
        return np.array(kept)


LAMA_THIN = Lama(min_times=4, max_times=50, max_width=10, max_len=40)
LAMA_WIDE = Lama(min_times=1, max_times=5, max_width=100, max_len=200, box_proba=0.3)
CASES = [(Thin(), LAMA_THIN), (Wide(), LAMA_WIDE)]
TWINS = {
    "doubled widths": (Thin(), dataclasses.replace(LAMA_THIN, max_width=20, min_width=10)),
    "lengths as named": (Thin(), dataclasses.replace(LAMA_THIN, min_len=0)),
    "fewer strokes": (Thin(), dataclasses.replace(LAMA_THIN, max_times=35)),
    "no boxes": (Wide(), dataclasses.replace(LAMA_WIDE, box_proba=0.0)),
    "wide for thin": (Thin(), LAMA_WIDE),
    "narrower": (Wide(), dataclasses.replace(LAMA_WIDE, max_width=60)),
}


def statistics(hidden):
    """What tells masks apart: area, number of pieces, largest and mean thickness, and length of outline."""
    depth = [ndimage.distance_transform_edt(np.pad(one, 1)) for one in hidden]
    return {
        "area": hidden.mean(axis=(1, 2)),
        "pieces": [ndimage.label(one, np.ones((3, 3)))[1] for one in hidden],
        "largest thickness": [one.max() for one in depth],
        "mean thickness": [one[one > 0].mean() for one in depth],
        "outline": [np.sum((one > 0) & (one < 1.5)) for one in depth],
    }


def rejections(first, second):
    """Which statistics differ."""
    return [name for name in first if stats.ks_2samp(first[name], second[name]).pvalue < FALSE_ALARM]


@pytest.fixture(scope="module")
def drawn():
    return {law: ~mask_set(law, COUNT, SIDE, SIDE, seed=1) for law, _ in CASES}


@pytest.fixture(scope="module")
def ours(drawn):
    return {law: statistics(hidden) for law, hidden in drawn.items()}


@pytest.mark.parametrize(("law", "lama"), CASES, ids=["thin", "wide"])
def test_masks_have_the_statistics_of_lama(ours, law, lama):
    assert rejections(ours[law], statistics(lama.masks(seed=2))) == []


@pytest.mark.parametrize("twin", TWINS)
def test_statistics_tell_wrong_twins_from_lama(ours, twin):
    law, lama = TWINS[twin]
    assert rejections(ours[law], statistics(lama.masks(seed=2)))


def check_numbers(brush, lama):
    """Numbers of strokes and segments, widths and starts are uniform on LaMa's ranges."""
    keys = jr.split(jr.key(3), 1000)
    strokes = jax.jit(jax.vmap(lambda key: draw_strokes(key, brush, SIDE, SIDE)))(keys)
    drawn, width, vertices = (np.asarray(part) for part in (strokes.drawn, strokes.width, strokes.vertices))
    segments = drawn.sum(axis=2)
    ranges = {
        "strokes": ((segments > 0).sum(axis=1), lama.min_times, lama.max_times + 1),
        "segments": (segments[segments > 0], 1, 5),
        "width": (width[drawn], lama.min_width, lama.min_width + lama.max_width - 1),
        "row": (vertices[:, 0, 0, 0], 0, SIDE - 1),
        "column": (vertices[:, 0, 0, 1], 0, SIDE - 1),
    }
    for name, (values, least, most) in ranges.items():
        assert (values.min(), values.max()) == (least, most), name
        assert stats.chisquare(np.bincount(values - least)).pvalue > FALSE_ALARM, name


def check_steps(brush, lama):
    """Directions and lengths of segments are uniform on LaMa's, in a frame so large that none is cut off."""
    frame = 10_000
    keys = jr.split(jr.key(4), 200)
    vertices = np.asarray(jax.jit(jax.vmap(lambda key: draw_strokes(key, brush, frame, frame).vertices))(keys))
    steps = np.diff(vertices, axis=2)
    # With the sign of the sine turned back, strokes of both parities have the same four directions.
    steps[:, ::2, :, 1] *= -1
    inside = np.all((vertices > 0) & (vertices < frame), axis=(2, 3))
    down, right = steps[inside].reshape(-1, 2).T
    # Ends are rounded to whole pixels, which turns the shortest segments by a tenth.
    turn = np.round(np.arctan2(right, down) - 0.01).astype(int) % 6
    assert set(turn) == {0, 1, 2, 3}
    assert stats.chisquare(np.bincount(turn)).pvalue > FALSE_ALARM
    length = np.hypot(down, right)
    exact = stats.randint(lama.min_len, lama.min_len + lama.max_len)
    error = 5 * exact.std() / np.sqrt(len(length))
    assert abs(length.mean() - exact.mean()) < 1.0 + error
    assert np.abs([length.min() - lama.min_len, length.max() - lama.min_len - lama.max_len + 1]).max() < 2


@pytest.mark.parametrize("check", [check_numbers, check_steps])
@pytest.mark.parametrize(("brush", "lama", "twin"), [(THIN, LAMA_THIN, LAMA_WIDE), (WIDE, LAMA_WIDE, LAMA_THIN)])
def test_strokes_are_drawn_by_lamas_numbers(check, brush, lama, twin):
    check(brush, lama)
    with pytest.raises(AssertionError):
        check(brush, twin)


def one_segment(start, end, width):
    return Strokes(jnp.array([[start, end]]), jnp.array([[width]]), jnp.ones((1, 1), bool))


@pytest.mark.parametrize("width", [5, 6, 14])
@pytest.mark.parametrize(("start", "end"), [((9, 20), (40, 33)), ((30, 10), (30, 50)), ((60, 3), (60, 3))])
def test_a_segment_is_a_capsule(start, end, width):
    """At 256 pixels, against distances in float64. Straight lines are `2 ceil(w/2) + 1` pixels wide, as OpenCV's."""
    painted = np.asarray(paint(one_segment(start, end, width), SIDE, SIDE))
    rows, cols = np.mgrid[:SIDE, :SIDE]
    step = np.subtract(end, start)
    along = (rows - start[0]) * step[0] + (cols - start[1]) * step[1]
    across = np.abs((cols - start[1]) * step[0] - (rows - start[0]) * step[1])
    radius = (width + 1) // 2
    beside = (along > 0) & (along < step @ step) & (across < (radius + 0.5) * np.hypot(*step))
    around = [np.hypot(rows - row, cols - col) <= radius for row, col in (start, end)]
    np.testing.assert_array_equal(painted, beside | around[0] | around[1])


@pytest.mark.parametrize(("height", "width"), [(8, 8), (32, 32), (20, 48)])
def test_strokes_finer_than_a_token_are_drawn_without_gaps(height, width):
    single = Brush(strokes=(1, 1), width=(1, 1), length=(10, 60))

    def draw(key):
        strokes = draw_strokes(key, single, *frame_size(height, width))
        return paint(strokes, height, width), strokes.vertices[0, 0]

    hidden, starts = jax.jit(jax.vmap(draw))(jr.split(jr.key(5), COUNT))
    side = min(height, width)
    for one, (row, col) in zip(np.asarray(hidden), np.asarray(starts), strict=True):
        assert one[row * side // 256, col * side // 256]
        assert ndimage.label(one, np.ones((3, 3)))[1] == 1


@pytest.mark.parametrize("law", [Thin(), Wide()], ids=repr)
@pytest.mark.parametrize("side", [32, 64])
def test_smaller_masks_are_the_same_masks_shrunk(drawn, law, side):
    """Up to pixels on outlines, unless one size keeps a draw that the other throws away."""
    small = ~mask_set(law, COUNT, side, side, seed=1)
    share = drawn[law].reshape(COUNT, side, SIDE // side, side, SIDE // side).mean(axis=(2, 4))
    agreement = np.mean((share > 0.5) == small, axis=(1, 2))
    assert np.median(agreement) > 0.95
    other = ~mask_set(law, COUNT, side, side, seed=2)
    assert np.median(np.mean((share > 0.5) == other, axis=(1, 2))) < 0.9
    assert abs(small.mean() / drawn[law].mean() - 1) < 0.1
    assert stats.ks_2samp(small.mean(axis=(1, 2)), drawn[law].mean(axis=(1, 2))).pvalue > FALSE_ALARM


@pytest.mark.parametrize("law", [Thin(), Wide()], ids=repr)
@pytest.mark.parametrize(("height", "width"), [(6, 6), (9, 14)])
def test_at_most_half_is_hidden_on_the_smallest_grids(law, height, width):
    hidden = ~mask_set(law, 2000, height, width, seed=6)
    area = hidden.sum(axis=(1, 2))
    assert area.min() >= 1
    assert area.max() <= height * width // 2
    assert np.all(hidden.any(axis=0))


def test_the_least_of_refused_draws_is_kept():
    """Draws that hide 5 to 8 of 8 tokens are all refused; the first that hides 4 or fewer is taken."""

    def draw(key, least):
        return jnp.arange(8).reshape(2, 4) < jr.randint(key, (), least, 9)

    key = jr.key(7)
    assert at_most_half(key, lambda key: draw(key, 5), 2, 4).sum() == 5
    first = next(area for area in (draw(jr.fold_in(key, i), 1).sum() for i in range(100)) if area <= 4)
    assert at_most_half(key, lambda key: draw(key, 1), 2, 4).sum() == first


@pytest.mark.parametrize("law", [Thin(), Wide()], ids=repr)
def test_grids_that_cannot_hold_strokes_are_refused(law):
    with pytest.raises(ValueError, match="finer than the tokens of a grid of 5x64"):
        law(jr.key(0), 5, 64)
    with pytest.raises(ValueError, match="up to 2048 tokens a side, got 64x4096"):
        law(jr.key(0), 64, 4096)


def test_masks_are_drawn_alike_alone_and_in_a_batch():
    known = mask_set(Wide(), 4, 32, 32, seed=8)
    keys = jax.vmap(lambda index: jr.fold_in(jr.key(8), index))(jnp.arange(4))
    np.testing.assert_array_equal(known, jax.vmap(lambda key: Wide()(key, 32, 32))(keys))


@pytest.mark.parametrize("brush", [THIN, WIDE])
@pytest.mark.parametrize("size", [(9, 6), (64, 64)])
def test_accelerators_draw_the_same_strokes_without_a_loop(brush, size, monkeypatch):
    height, width = size
    strokes = jax.vmap(lambda key: draw_strokes(key, brush, *frame_size(height, width)))(jr.split(jr.key(0), 8))
    painted = partial(paint, height=height, width=width)
    traced = jax.jit(jax.vmap(painted)).trace(strokes)
    loops = {
        platform: "while" in traced.lower(lowering_platforms=(platform,)).as_text() for platform in ("cpu", "cuda")
    }
    assert loops == {"cpu": True, "cuda": False}

    one_by_one = jax.vmap(painted)(strokes)
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda capsules, cpu, default: default(capsules))
    assert jnp.all(jax.vmap(painted)(strokes) == one_by_one)
    assert one_by_one.any()
    assert not one_by_one.all()
