"""Known regions: the right polarity, the right shapes, every place as likely as any other, and stable hashes.

What Thin and Wide draw is tested in `tests/test_mask_strokes.py`.
"""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from PIL import Image as Pillow
from PIL import PngImagePlugin
from scipy import stats

from asyncpatch.masks import (
    PUBLISHED,
    Border,
    Extrema,
    Half,
    OfSites,
    OneOf,
    Polarity,
    RandomBox,
    Side,
    Square,
    Thin,
    Wide,
    check_known,
    known_from_ones,
    mask_hash,
    mask_set,
    ones_from_known,
    published_set,
    read_known,
    write_known,
)

HEIGHT, WIDTH = 8, 6
FALSE_ALARM = 1e-4
LAWS = [
    Square(),
    Extrema(),
    RandomBox(),
    Border(),
    Border(0.1),
    Half(),
    Half((Side.LEFT, Side.TOP)),
    Thin(),
    Wide(),
    OneOf((Square(), Thin())),
    OfSites(Thin(), 2),
]
KNOWN = np.array([[True, True, False], [False, True, False]])


def draw(law, seed=0, count=4000, height=HEIGHT, width=WIDTH):
    keys = jr.split(jr.key(seed), count)
    return np.asarray(jax.jit(jax.vmap(lambda key: law(key, height, width)))(keys))


def box_of(region):
    """Top, left, height and width of a region, or None if it is not a full box."""
    rows, cols = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    if region.sum() != len(rows) * len(cols) or np.any(np.diff(rows) > 1) or np.any(np.diff(cols) > 1):
        return None
    return rows[0], cols[0], len(rows), len(cols)


@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_every_mask_has_known_and_unknown_tokens(law):
    known = draw(law, count=500)
    assert known.dtype == np.bool_
    assert known.shape == (500, HEIGHT, WIDTH)
    assert np.all(known.any(axis=(1, 2)))
    assert not np.any(known.all(axis=(1, 2)))
    assert np.array_equal(known, draw(law, count=500))


@pytest.mark.parametrize(("law", "inside_is_known"), [(Square(), False), (Extrema(), True)])
def test_half_boxes(law, inside_is_known):
    known = draw(law)
    boxes = [box_of(region == inside_is_known) for region in known]
    assert {box[2:] for box in boxes} == {(HEIGHT // 2, WIDTH // 2)}
    places = np.bincount([top * 4 + left for top, left, _, _ in boxes], minlength=20)
    assert len(places) == 20
    assert stats.chisquare(places).pvalue > FALSE_ALARM


def test_the_polarity_of_a_twin_is_noticed():
    assert box_of(~draw(Extrema(), count=1)[0]) is None


def test_random_boxes_have_uniform_sizes_and_every_place():
    boxes = np.array([box_of(~known) for known in draw(RandomBox())])
    top, left, height, width = boxes.T
    assert stats.chisquare(np.bincount(height, minlength=HEIGHT)[1:]).pvalue > FALSE_ALARM
    assert stats.chisquare(np.bincount(width, minlength=WIDTH)[1:]).pvalue > FALSE_ALARM
    assert (top.min(), (top + height).max(), left.min(), (left + width).max()) == (0, HEIGHT, 0, WIDTH)


def test_border_hides_the_centre():
    assert box_of(~draw(Border(), count=1)[0]) == (2, 2, 4, 2)
    # A tenth of the width rounds to one column, and of the height to one row.
    assert box_of(~draw(Border(0.1), count=1)[0]) == (1, 1, 6, 4)


@pytest.mark.parametrize(
    ("side", "box"),
    [
        (Side.TOP, (0, 0, 3, 5)),
        (Side.BOTTOM, (4, 0, 3, 5)),
        (Side.LEFT, (0, 0, 7, 2)),
        (Side.RIGHT, (0, 3, 7, 2)),
    ],
)
def test_half_knows_the_named_side(side, box):
    assert box_of(draw(Half((side,)), count=1, height=7, width=5)[0]) == box


def test_a_mixture_draws_its_laws_alike():
    """Left halves know 24 tokens, squares 36 and extrema 12."""
    known = draw(OneOf((Half((Side.LEFT,)), Square(), Extrema())))
    counts = np.unique(known.sum(axis=(1, 2)), return_counts=True)
    assert counts[0].tolist() == [12, 24, 36]
    assert stats.chisquare(counts[1]).pvalue > FALSE_ALARM


def test_a_mixture_needs_a_law():
    with pytest.raises(ValueError, match="give at least one"):
        OneOf(())


def test_half_draws_its_sides_alike():
    known = draw(Half())
    corners = known[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    _, counts = np.unique(corners, axis=0, return_counts=True)
    assert len(counts) == 4
    assert stats.chisquare(counts).pvalue > FALSE_ALARM


def test_hash_names_a_set_and_its_order_and_shape():
    known = draw(Square(), count=3)
    assert mask_hash(known) == mask_hash(jnp.asarray(known))
    # Stated once, so that published hashes stay valid: any change of the hash is a change of its definition.
    corner = np.zeros((1, 2, 2), bool)
    corner[0, 0, 0] = True
    assert mask_hash(corner) == "4d975b940405b47e3482e8b488c493e7ebfe5c53cb00a4a30fd9d5bceac28c93"
    flipped = known.copy()
    flipped[2, 5, 5] ^= True
    others = [known[:2], known[::-1], ~known, flipped, known.reshape(3, WIDTH, HEIGHT)]
    assert len({mask_hash(known), *map(mask_hash, others)}) == 6


def test_a_valid_known_region_passes_through():
    known = draw(Square(), count=1)[0]
    assert np.array_equal(check_known(known, HEIGHT, WIDTH), known)


@pytest.mark.parametrize(
    ("known", "error", "text"),
    [
        (np.zeros((HEIGHT, WIDTH)), TypeError, "True where a token is observed, got float64; .*known_from_ones"),
        (np.zeros((HEIGHT, WIDTH), np.uint8), TypeError, "boolean"),
        (np.zeros((HEIGHT, WIDTH, 1), bool), ValueError, r"shape \(8, 6\).*True where observed, got \(8, 6, 1\)"),
        (np.zeros((WIDTH, HEIGHT), bool), ValueError, r"got \(6, 8\)"),
    ],
)
def test_a_bad_known_region_is_refused(known, error, text):
    with pytest.raises(error, match=text):
        check_known(known, HEIGHT, WIDTH)


@pytest.mark.parametrize("fraction", [0.0, 0.5, -1.0, float("nan")])
def test_a_bad_border_is_refused(fraction):
    with pytest.raises(ValueError, match="strictly between 0 and 1/2"):
        Border(fraction)


def test_bad_sides_and_grids_are_refused():
    with pytest.raises(ValueError, match="sides must be a tuple"):
        Half(())
    for law in (Square(), Extrema(), RandomBox(), Half()):
        with pytest.raises(ValueError, match="give at least 2x2"):
            law(jr.key(0), 1, 4)
    for fraction, side in ((0.1, 3), (0.45, 2)):
        with pytest.raises(ValueError, match="nothing is known or nothing is hidden"):
            Border(fraction)(jr.key(0), side, side)


def test_polarity_decides_what_ones_mean_and_comes_back():
    for polarity, ones in [(Polarity.ONES_ARE_KNOWN, KNOWN), (Polarity.ONES_ARE_HIDDEN, ~KNOWN)]:
        for values in (ones, ones.astype(np.uint8), ones.astype(np.float32)):
            assert np.array_equal(known_from_ones(values, polarity, 2, 3), KNOWN)
        assert np.array_equal(ones_from_known(KNOWN, polarity), ones.astype(np.uint8))


@pytest.mark.parametrize(
    ("ones", "text"),
    [
        (KNOWN * 255, "3 other values such as 255; divide"),
        (KNOWN * 0.5, "such as 0.5; .* cut one of fractions"),
        (np.where(KNOWN, np.nan, 0.0), "such as nan"),
        (KNOWN[..., None], r"shape \(2, 3\)"),
    ],
)
def test_what_is_not_a_mask_of_zeros_and_ones_is_refused(ones, text):
    with pytest.raises(ValueError, match=text):
        known_from_ones(ones, Polarity.ONES_ARE_KNOWN, 2, 3)


@pytest.mark.parametrize("polarity", Polarity)
def test_files_come_back_to_the_bit_and_only_under_their_polarity(tmp_path, polarity):
    path = tmp_path / "mask.png"
    write_known(path, KNOWN, polarity)
    assert np.array_equal(read_known(path, polarity, 2, 3), KNOWN)
    with Pillow.open(path) as file:
        white = np.asarray(file) == 255
    assert np.array_equal(white, KNOWN if polarity is Polarity.ONES_ARE_KNOWN else ~KNOWN)
    (other,) = set(Polarity) - {polarity}
    with pytest.raises(ValueError, match=f"says of itself that {polarity.value}, but is read as if {other.value}"):
        read_known(path, other, 2, 3)


def test_files_of_others_are_read_under_the_stated_polarity(tmp_path):
    path = tmp_path / "mask.png"
    for mode in ("1", "L", "RGB", "RGBA", "P"):
        Pillow.fromarray(KNOWN.astype(np.uint8) * 255).convert(mode).save(path)
        assert np.array_equal(read_known(path, Polarity.ONES_ARE_KNOWN, 2, 3), KNOWN)
        assert np.array_equal(read_known(path, Polarity.ONES_ARE_HIDDEN, 2, 3), ~KNOWN)


def test_files_that_are_no_masks_are_refused(tmp_path):
    path = tmp_path / "mask.png"
    write_known(path, KNOWN, Polarity.ONES_ARE_KNOWN)
    with pytest.raises(ValueError, match=r"shape \(3, 3\)"):
        read_known(path, Polarity.ONES_ARE_KNOWN, 3, 3)
    Pillow.fromarray(np.full((2, 3), 7, np.uint8)).save(path)
    with pytest.raises(ValueError, match=r"white is hidden\), but 6 pixels of .* are grey"):
        read_known(path, Polarity.ONES_ARE_HIDDEN, 2, 3)
    Pillow.fromarray(np.stack([KNOWN * 255] * 4, axis=-1).astype(np.uint8)).save(path)
    with pytest.raises(ValueError, match="transparent pixels"):
        read_known(path, Polarity.ONES_ARE_KNOWN, 2, 3)
    text = PngImagePlugin.PngInfo()
    text.add_text("Mask polarity", "upside down")
    Pillow.fromarray(KNOWN.astype(np.uint8) * 255).save(path, pnginfo=text)
    with pytest.raises(ValueError, match="says of itself that upside down"):
        read_known(path, Polarity.ONES_ARE_KNOWN, 2, 3)
    with pytest.raises(ValueError, match=r"name it \.png"):
        write_known(tmp_path / "mask.jpg", KNOWN, Polarity.ONES_ARE_KNOWN)


def test_a_set_is_told_by_its_seed_and_begins_with_the_shorter_one():
    known = mask_set(Square(), 5, HEIGHT, WIDTH, seed=1)
    assert np.array_equal(known[:3], mask_set(Square(), 3, HEIGHT, WIDTH, seed=1))
    assert not np.array_equal(known, mask_set(Square(), 5, HEIGHT, WIDTH, seed=2))
    assert len({one.tobytes() for one in mask_set(RandomBox(), 40, HEIGHT, WIDTH, seed=1)}) > 30


def test_sets_do_not_depend_on_the_default_generator():
    known = mask_set(Square(), 5, HEIGHT, WIDTH, seed=1)
    with jax.default_prng_impl("rbg"):
        assert np.array_equal(known, mask_set(Square(), 5, HEIGHT, WIDTH, seed=1))


@pytest.mark.parametrize("law", [Square(), Extrema(), Thin(), Wide()], ids=repr)
def test_published_sets_are_drawn_to_the_bit(law):
    """A set that has changed breaks every number published on it: give the law another name instead."""
    known = published_set(law, 32)
    assert known.shape == (1000, 32, 32)
    assert mask_hash(known) == PUBLISHED[law, 32]


def test_a_published_set_that_is_drawn_otherwise_is_refused(monkeypatch):
    monkeypatch.setitem(PUBLISHED, (Square(), 8), PUBLISHED[Square(), 32])
    with pytest.raises(RuntimeError, match=r"drawn here has hash .* not the published"):
        published_set(Square(), 8)
    with pytest.raises(ValueError, match=r"no set of Wide\(\) on 33x33 is published .*Square\(\): 32"):
        published_set(Wide(), 33)
    with pytest.raises(ValueError, match="at least one mask, got a count of 0"):
        mask_set(Square(), 0, HEIGHT, WIDTH, seed=0)
