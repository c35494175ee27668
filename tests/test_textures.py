"""Crops of textures, and the quilting that synthesis is compared with."""

import itertools

import numpy as np
import pytest

from asyncpatch.config import from_json, to_json
from experiments.parts.quilting import Quilting, cheapest_seam
from experiments.parts.textures import HELD_OUT, NAMES, SIDE, TRAINED_ON, TextureCrops, photograph


def test_crops_are_those_of_a_photograph_and_held_out_ones_share_no_row_with_them():
    for bands in (TRAINED_ON, HELD_OUT):
        records = TextureCrops(bands, 32).open()
        tops = [top for first, last in bands for top in range(first, last - 31)]
        assert len(records) == 3 * len(tops) * (SIDE - 31)
        index = 2 * len(tops) * (SIDE - 31) + 3 * (SIDE - 31) + 5
        record = records[index]
        assert np.array_equal(record["image"], photograph("gravel")[tops[3] : tops[3] + 32, 5:37])
        assert (record["label"], records.class_names) == (2, NAMES)
    rows = [{row for first, last in bands for row in range(first, last)} for bands in (TRAINED_ON, HELD_OUT)]
    assert rows[0] | rows[1] == set(range(SIDE))
    assert not rows[0] & rows[1]


def test_photographs_use_the_whole_range():
    for name in NAMES:
        assert np.percentile(photograph(name), (1, 99)).tolist() == pytest.approx([0, 255], abs=2)


def test_crops_can_stand_in_a_config():
    source = TextureCrops(HELD_OUT, 16)
    assert from_json(to_json(source)) == source


@pytest.mark.parametrize("bands", [(), ((0, 31),), ((230, 257),), ((-1, 40),), ((0, 80), (300, 340))])
def test_bands_that_hold_no_crop_are_refused(bands):
    with pytest.raises(ValueError, match="crops of 32 rows are cut from bands of rows within 0 to 256"):
        TextureCrops(bands, 32)


# --- quilting ---

RNG = np.random.default_rng(0)


def test_the_seam_is_the_cheapest_of_all():
    for _ in range(20):
        errors = RNG.random((5, 3))
        costs = {
            path: sum(errors[i, j] for i, j in enumerate(path))
            for path in itertools.product(range(3), repeat=5)
            if max(abs(np.diff(path))) <= 1
        }
        assert tuple(cheapest_seam(errors)) == min(costs, key=costs.get)


def test_a_seam_of_least_entries_would_break():
    """The wrong twin takes the least entry of every row, however far it is from the last."""
    errors = np.array([[0.0, 1.0, 1.0], [1.0, 1.0, 0.0]])
    assert np.abs(np.diff(errors.argmin(1))) == 2
    assert np.abs(np.diff(cheapest_seam(errors))) <= 1


def patches_of(image: np.ndarray, side: int) -> set[bytes]:
    corners = np.ndindex(image.shape[0] - side + 1, image.shape[1] - side + 1)
    return {np.ascontiguousarray(image[row : row + side, col : col + side]).tobytes() for row, col in corners}


def test_the_middle_of_every_block_is_a_patch_of_the_exemplar():
    exemplar, quilting = RNG.random((9, 10, 2)), Quilting(block=6, overlap=2)
    made = quilting(RNG, exemplar, 18, 22)
    assert made.shape == (18, 22, 2)
    assert {tuple(pixel) for pixel in made.reshape(-1, 2)} <= {tuple(pixel) for pixel in exemplar.reshape(-1, 2)}
    whole = patches_of(exemplar, 2)
    middles = [made[row + 2 : row + 4, col + 2 : col + 4] for row in range(0, 14, 4) for col in range(0, 18, 4)]
    assert {middle.tobytes() for middle in map(np.ascontiguousarray, middles)} <= whole
    assert not patches_of(RNG.random((9, 10, 2)), 2) & whole


def test_a_texture_that_repeats_is_sewn_without_a_seam():
    """Stripes of period 3: only blocks in phase fit, so the canvas goes on as the exemplar does."""
    stripes = np.tile(np.arange(3.0), 4)[None, :, None] * np.ones((12, 1, 1))
    made = Quilting(block=6, overlap=2, tolerance=0.0)(RNG, stripes, 20, 25)
    first = made[0, :3, 0]
    assert np.array_equal(made[..., 0], np.broadcast_to(np.tile(first, 9)[:25], (20, 25)))


def test_what_cannot_be_quilted_is_refused():
    with pytest.raises(ValueError, match="an exemplar of 5x9 holds no block of 6x6; give a smaller block"):
        Quilting(6, 2)(RNG, np.zeros((5, 9, 1)), 8, 8)
    with pytest.raises(ValueError, match="overlap must be at most half a block, got 4"):
        Quilting(6, 4)
