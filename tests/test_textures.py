"""Textures: crops, quilting, distances, and the experiment run small."""

import dataclasses
import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image as Pillow
from random_networks import random_arrays

from asyncpatch.config import from_json, to_json
from asyncpatch.data import to_float
from asyncpatch.data.textures import HELD_OUT, NAMES, SIDE, TRAINED_ON, TextureCrops, photograph
from asyncpatch.metrics.networks import Vgg16Features
from asyncpatch.metrics.networks.vgg16 import VGG16_SHAPES
from asyncpatch.nn import LeanUNetConfig
from asyncpatch.timesteps import AsyncPatch
from experiments import texture
from experiments.parts.quilting import Quilting, cheapest_seam
from experiments.parts.rows import read_rows
from experiments.parts.texture_distance import gram_distance, patch_distance
from experiments.parts.texture_rows import Effort, Places, Real, Synthesis, make


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


# --- distances ---


@pytest.fixture(scope="module")
def network():
    return Vgg16Features.from_arrays(random_arrays(VGG16_SHAPES))


def check_tells_textures_apart(distance) -> None:
    """Two places of one texture are nearer than two textures, equal images are at 0, and what is known is not seen."""
    grass, gravel = (
        [to_float(photograph(name)[80:144, at : at + 64]) for at in (0, 80)] for name in ("grass", "gravel")
    )
    known = np.zeros((64, 64), bool)
    assert distance(grass[0], gravel[0], known) > 1.2 * distance(grass[0], grass[1], known)
    assert distance(grass[0], grass[0], known) == 0
    known[:32] = True
    mixed = np.concatenate([gravel[0][:32], grass[0][32:]])
    assert distance(mixed, grass[0], known) < 0.05 * distance(mixed, grass[0], np.zeros((64, 64), bool))


def test_distances_of_patches_tell_textures_apart():
    check_tells_textures_apart(patch_distance)


def test_no_patch_outside_of_what_is_known_is_refused():
    with pytest.raises(ValueError, match="no patch of 8x8 pixels lies outside of the known region"):
        patch_distance(np.zeros((9, 9, 1)), np.zeros((9, 9, 1)), np.eye(9) > 0)


def test_a_distance_of_pixels_in_place_does_not():
    with pytest.raises(AssertionError):
        check_tells_textures_apart(lambda one, other, known: np.abs(one - other)[~known].mean())


def test_a_gram_distance_is_of_mean_products_outside_of_what_is_known(network):
    """Against the definition, at the first stage of one image and of its lower half."""
    one, other = (to_float(photograph(name)[80:144, :64]) for name in ("grass", "gravel"))
    known = np.zeros((64, 64), bool)
    known[:32] = True
    maps = [np.asarray(stage, np.float64) for stage in network.maps(jnp.stack([jnp.asarray(one), jnp.asarray(other)]))]
    expected = []
    for stage in maps:
        flat = [each[len(each) // 2 :].reshape(-1, each.shape[-1]) for each in stage]
        gram, real = (each.T @ each / len(each) for each in flat)
        expected.append(np.linalg.norm(gram - real) / np.linalg.norm(real))
    assert gram_distance(network, one, other, known) == pytest.approx(np.mean(expected), rel=1e-4)
    assert gram_distance(network, one, one, known) == 0
    assert gram_distance(network, one, other, ~known) != pytest.approx(np.mean(expected), rel=1e-2)


# --- the experiment, run small ---


@pytest.fixture
def small(monkeypatch):
    """A tiny network on crops of 16 pixels."""
    usual = texture.configuration

    def tiny(seed: int):
        monkeypatch.setattr(texture, "TextureCrops", lambda bands: TextureCrops(bands, 16))
        whole = usual(seed)
        network = LeanUNetConfig(channels=1, num_classes=3, widths=(8, 16), blocks=(1,), head=8, embedding=8)
        data = dataclasses.replace(whole.data, batch_size=4)
        return dataclasses.replace(whole, data=data, network=network, timesteps=AsyncPatch((1, 4)))

    monkeypatch.setattr(texture, "configuration", tiny)
    monkeypatch.setattr(texture, "_vgg", lambda weights: None)
    monkeypatch.setattr(texture, "SIDES", (16, 32))
    monkeypatch.setattr(texture, "STRIDES", (8,))
    monkeypatch.setattr(texture, "DRAWS", 4)
    ways = {
        "by exemplar, weight 1": Synthesis(input_guidance=1.0, stride=8),
        "ring after ring": Synthesis(input_guidance=0.5, stride=8, ring=8),
        "image quilting": Quilting(),
        "real, elsewhere": Real(),
    }
    monkeypatch.setattr(texture, "WAYS", ways)


SMALL = Places(count=2, canvas=32, exemplar=16)


def test_textures_grow_from_exemplars_and_rows_are_made_once(small, tmp_path, capsys):
    arguments = {"train_steps": 2, "places": SMALL, "effort": Effort(steps=3), "seed": 0}
    page = texture.main(tmp_path, **arguments)
    rows = read_rows(tmp_path / "rows.jsonl")
    assert len(rows) == 4 * 3
    assert all(np.isfinite(row["each"]["patches"]).all() and len(row["each"]["patches"]) == 2 for row in rows)
    assert [row["calls"] for row in rows] == [6] * 6 + [None] * 6
    known = SMALL.known()
    for row in rows[:6]:
        with Pillow.open(tmp_path / row["canvas"]) as picture:
            made = np.asarray(picture.convert("L"))
        assert np.array_equal(made[known], photograph(row["texture"])[80:112, :32, 0][known]), "the exemplar stays"
        assert made[~known].std() > 1
    said = page.read_text()
    assert "| image quilting | - |" in said
    assert "| windows, stride 8 | the same |" in said
    with Pillow.open(tmp_path / "textures.png") as picture:
        assert picture.height > 96
    capsys.readouterr()
    texture.main(tmp_path, **arguments)
    assert read_rows(tmp_path / "rows.jsonl") == rows
    assert capsys.readouterr().out.count("holds this row already") == 4 * 3


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"canvas": 32, "exemplar": 48}, "exemplar, of 48x48 is larger than its canvas of 32x32"),
        ({"canvas": 112}, "in a band of 96 rows"),
        ({"canvas": 40}, "give a multiple of 16 up to 96"),
        ({"count": 0}, "count must be at least 1"),
    ],
)
def test_places_that_cannot_be_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Places(**wrong)


def test_a_real_canvas_is_compared_with_one_that_it_does_not_overlap():
    places = Places(count=4)
    for left, real in zip(places.lefts, make(Real(), None, 32, "grass", places, Effort()), strict=True):
        others = [places.real("grass", other) for other in range(161) if abs(other - left) >= 96 - 16]
        assert any(np.array_equal(real, other) for other in others)
