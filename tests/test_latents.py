"""Latents as data, of an autoencoder that loses nothing: the cosine transform of blocks of 4x4 pixels."""

import dataclasses
import hashlib
import inspect
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from scipy.fft import dct

from asyncpatch.config import from_json, to_json
from asyncpatch.data import (
    AbstractSource,
    ArrayRecords,
    Digits,
    Encoder,
    Folds,
    InMemoryRecords,
    Latents,
    LatentScale,
    LatentView,
    PixelView,
    RandomFlip,
    batches,
    give_back,
    latents_in,
    to_float,
    to_network,
    to_uint8,
    write_array_records,
    write_latents,
)

BLOCK = 4
COSINES = jnp.asarray(dct(np.eye(BLOCK), axis=0, norm="ortho"), jnp.float32)
OURS, OTHERS = (hashlib.sha256(name).hexdigest() for name in (b"ours", b"another"))


def encode(image):
    """Eight rows and columns of one channel to two of sixteen."""
    height, width, channel = image.shape
    blocks = image.reshape(height // BLOCK, BLOCK, width // BLOCK, BLOCK, channel)
    return jnp.einsum("ui,vj,aibjc->abuvc", COSINES, COSINES, blocks).reshape(height // BLOCK, width // BLOCK, -1)


def decode(latents):
    rows, cols, features = latents.shape
    coefficients = latents.reshape(rows, cols, BLOCK, BLOCK, features // BLOCK**2)
    blocks = jnp.einsum("ui,vj,abuvc->aibjc", COSINES, COSINES, coefficients)
    return blocks.reshape(rows * BLOCK, cols * BLOCK, -1)


ENCODER = Encoder(encode, OURS)
SOME = Folds(Digits(), 20, (0,))
"""Ninety digits: two batches of the encoder and a part of one."""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("latents") / "digits"
    write_latents(SOME, ENCODER, folder, "float32", shards=3)
    return folder


@dataclasses.dataclass(frozen=True)
class Constant(AbstractSource):
    """Nine images of one value."""

    value: int

    def open(self) -> InMemoryRecords:
        return InMemoryRecords((8, 8, 1), ("a",), np.full((9, 8, 8, 1), self.value, np.uint8), np.zeros(9, np.int32))


# --- What a record holds


def every(source: AbstractSource) -> np.ndarray:
    records = source.open()
    return np.stack([records[i]["image"] for i in range(len(records))])


def test_records_are_floats_that_depend_on_their_index_and_survive_pickling(written):
    records, originals = latents_in(written, OURS).open(), SOME.open()
    assert (len(records), records.shape, records.class_names) == (len(originals), (2, 2, 16), originals.class_names)
    copy = pickle.loads(pickle.dumps(records))
    for i in (0, 40, 89, 0):
        assert records[i]["image"].dtype == np.float32
        assert records[i]["label"] == originals[i]["label"]
        assert np.array_equal(records[i]["image"], copy[i]["image"])


def check_unit(latents: np.ndarray) -> None:
    values = latents.reshape(-1, latents.shape[-1]).astype(np.float64)
    np.testing.assert_allclose(values.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(values.std(0), 1, atol=1e-5)


def test_every_channel_has_mean_0_and_variance_1(written):
    source = latents_in(written, OURS)
    check_unit(every(source))
    wrong = LatentScale(source.scale.mean, tuple(1.01 * spread for spread in source.scale.spread))
    with pytest.raises(AssertionError):
        check_unit(every(dataclasses.replace(source, scale=wrong)))


@pytest.mark.parametrize("stored", ["float16", "float32"])
def test_decoded_latents_are_the_images(tmp_path, stored):
    write_latents(SOME, ENCODER, tmp_path / "latents", stored)
    source = latents_in(tmp_path / "latents", OURS)
    view = LatentView(source.scale, decode, at_once=32)
    images = to_uint8(np.asarray(view.images(jnp.asarray(every(source)))))
    off = np.abs(images.astype(int) - every(SOME).astype(int))
    # Sixteen values rounded to 11 bits, of 4 at most, move a pixel by less than half a level of 1/127.5.
    assert off.max() == 0 if stored == "float32" else off.max() <= 1
    unscaled = LatentView(LatentScale((0.0,) * 16, (1.0,) * 16), decode)
    assert np.abs(to_uint8(np.asarray(unscaled.images(jnp.asarray(every(source))))) - images.astype(int)).max() > 9


def test_a_constant_channel_is_not_blown_up(tmp_path):
    write_latents(Constant(77), ENCODER, tmp_path / "latents", "float32")
    source = latents_in(tmp_path / "latents", OURS)
    assert source.scale.spread == (1.0,) * 16
    assert np.abs(every(source)).max() < 1e-5


def test_folders_name_the_images_that_they_were_made_of(tmp_path, written):
    def digest(folder: Path) -> str:
        return json.loads((folder / "dataset.json").read_text())["images"]

    write_latents(SOME, ENCODER, tmp_path / "same", shards=1)
    write_latents(Folds(Digits(), 20, (1,)), ENCODER, tmp_path / "other")
    assert digest(tmp_path / "same") == digest(written) != digest(tmp_path / "other")


# --- Through the pipeline


def test_batches_hold_latents_as_they_are(written):
    source = latents_in(written, OURS)
    batch = batches(source.open(), 30, 0).batch(0)["image"]
    rows = {row.tobytes() for row in every(source)}
    assert batch.dtype == np.float32
    assert all(row.tobytes() in rows for row in batch)
    assert not any(row.tobytes() in rows for row in batch / np.float32(127.5) - 1)  # as if they were pixels


def test_pixels_are_still_scaled():
    pixels = every(SOME)[:2]
    assert np.array_equal(to_network(pixels), to_float(pixels))


def test_latents_are_never_taken_for_pixels(written):
    latents = every(latents_in(written, OURS))
    assert to_network(latents) is latents
    # Without the types that tests check, as in use.
    with pytest.raises(ValueError, match="pixels are uint8, got float32"):
        inspect.unwrap(to_float)(latents)


def test_flips_of_latents_are_refused(written):
    with pytest.raises(ValueError, match="RandomFlip changes pixels, and these records are latents"):
        batches(latents_in(written, OURS).open(), 4, 0, (RandomFlip(),))


def test_latents_can_be_held_out(written):
    source = latents_in(written, OURS)
    assert len(Folds(source, 3, (0,)).open()) == 30


# --- Another autoencoder


def test_latents_of_another_autoencoder_are_refused(written):
    with pytest.raises(ValueError, match=f"were made by the autoencoder {OURS[:12]}.* {OTHERS[:12]}.* are wanted"):
        latents_in(written, OTHERS)
    source = from_json(json.loads(json.dumps(to_json(latents_in(written, OURS)))))
    assert source == latents_in(written, OURS)
    assert len(source.open()) == 90
    with pytest.raises(ValueError, match="were made by the autoencoder"):
        dataclasses.replace(source, autoencoder=OTHERS).open()


def test_a_run_that_goes_on_refuses_a_folder_that_was_encoded_anew(tmp_path):
    write_latents(SOME, ENCODER, tmp_path / "latents")
    source = latents_in(tmp_path / "latents", OURS)
    (tmp_path / "latents").rename(tmp_path / "old")
    write_latents(SOME, Encoder(encode, OTHERS), tmp_path / "latents")
    with pytest.raises(ValueError, match="were made by the autoencoder"):
        source.open()


def test_a_scale_of_other_latents_is_refused(written):
    with pytest.raises(ValueError, match=r"the scale has 1 channels, the latents in .* have 16"):
        Latents(str(written), OURS, LatentScale((0.0,), (1.0,))).open()


# --- Bad input


def test_latents_and_images_are_not_mistaken_for_each_other(tmp_path, written):
    with pytest.raises(ValueError, match="latents are opened by Latents"):
        ArrayRecords(str(written)).open()
    write_array_records(SOME, tmp_path / "images")
    with pytest.raises(ValueError, match="images by ArrayRecords"):
        latents_in(tmp_path / "images", OURS)
    with pytest.raises(ValueError, match="Latents holds latents, not images"):
        write_array_records(latents_in(written, OURS), tmp_path / "again")
    with pytest.raises(ValueError, match="Latents holds latents already"):
        write_latents(latents_in(written, OURS), ENCODER, tmp_path / "again")
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize(
    ("scale", "stored", "message"),
    [(jnp.nan, "float32", "not finite as float32"), (1e5, "float16", "not finite as float16.* store float32")],
)
def test_latents_that_are_not_finite_are_refused(tmp_path, scale, stored, message):
    with pytest.raises(ValueError, match=message):
        write_latents(SOME, Encoder(lambda image: encode(image) * scale, OURS), tmp_path / "latents", stored)
    assert not list(tmp_path.iterdir())


def edit(folder: Path, **fields: object) -> None:
    content = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps(content | fields))


def foreign_shard(folder: Path) -> None:
    writer = ArrayRecordWriter(str(folder / "records-00000-of-00001.array_record"), "group_size:1")
    for _ in range(9):
        writer.write(b"APR1, the images of somebody else")
    writer.close()


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "foreign shard": (foreign_shard, "record 0 in .* is damaged .*a record begins with"),
    "count": (lambda folder: edit(folder, count=8), "hold 9 records, but its dataset.json says 8"),
    "shape": (lambda folder: edit(folder, shape=[4, 1, 16]), r"has shape \(2, 2, 16\)"),
    "stored": (lambda folder: edit(folder, stored="float16"), "record 0 in .* is damaged .*128 bytes as float16"),
    "unknown type": (lambda folder: edit(folder, stored="float8"), "stored must be one of float16, float32"),
    "digest": (lambda folder: edit(folder, images="12"), "images must be a SHA-256"),
    "mean": (lambda folder: edit(folder, mean=[None] * 16), "mean must hold a finite number for each channel"),
    "spread": (lambda folder: edit(folder, spread=[0.0] * 16), "spread must be above 0"),
    "channels": (lambda folder: edit(folder, spread=[1.0] * 3), "spread must hold 16 numbers"),
    "other": (lambda folder: (folder / "dataset.json").write_text("{}"), "was not written by write_latents"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_folders_are_refused(tmp_path, kind):
    write_latents(Constant(3), ENCODER, tmp_path / "latents", "float32")
    damage, message = DAMAGE[kind]
    damage(tmp_path / "latents")
    with pytest.raises(ValueError, match=message):
        latents_in(tmp_path / "latents", OURS).open()[0]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Encoder(encode, "the one of yesterday"), "autoencoder must be a SHA-256"),
        (lambda: LatentScale((0.0, 0.0), (1.0,)), "spread must hold 2 numbers"),
        (lambda: LatentScale((0.0,), (-1.0,)), "spread must be above 0"),
        (lambda: LatentView(LatentScale((0.0,), (1.0,)), decode, at_once=0), "at_once must be at least 1"),
    ],
)
def test_bad_arguments_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


# --- Seeing what was made


def test_no_decoded_image_depends_on_the_others_of_its_batch(written):
    source = latents_in(written, OURS)
    latents = jnp.asarray(every(source)[:5])
    whole = LatentView(source.scale, decode, at_once=2).images(latents)
    alone = [LatentView(source.scale, decode).images(latent[None])[0] for latent in latents]
    np.testing.assert_allclose(whole, np.stack(alone), atol=1e-5)


def test_views_give_images_that_can_be_shown():
    latents = 50 * jax.random.normal(jax.random.key(0), (3, 2, 2, 16))
    for images in (
        LatentView(LatentScale((0.0,) * 16, (1.0,) * 16), decode).images(latents),
        PixelView().images(latents),
    ):
        assert float(jnp.abs(images).max()) == 1.0


def test_known_pixels_are_given_back_to_the_bit():
    made, given = jax.random.normal(jax.random.key(1), (2, 3, 8, 8, 1))
    known = jnp.arange(64).reshape(8, 8) < 32
    result = give_back(made, given, known)
    assert np.array_equal(result[:, :4], given[:, :4])
    assert np.array_equal(result[:, 4:], made[:, 4:])
