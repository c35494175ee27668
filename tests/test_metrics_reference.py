"""Reference statistics in files: what is written comes back, and nothing else does."""

import dataclasses
import os

import numpy as np
import pytest
from toy_features import DIGITS, Projection, in_batches

from asyncpatch.metrics import (
    DamagedFileError,
    DataMismatchError,
    NetworkIdentity,
    NetworkMismatchError,
    collect_statistics,
    frechet_distance,
    hash_images,
    load_reference,
    measure_reference,
    save_reference,
)
from asyncpatch.metrics.archive import write_archive
from asyncpatch.metrics.reference import KIND

NETWORK = Projection.draw(6)
IMAGES = DIGITS[:200]


@pytest.fixture
def measured():
    return measure_reference(NETWORK, in_batches(IMAGES, 64))


@pytest.fixture
def path(tmp_path, measured):
    save_reference(tmp_path / "digits.npz", measured)
    return tmp_path / "digits.npz"


def test_a_reference_comes_back_to_the_bit(path, measured):
    read = load_reference(path, NETWORK, hash_images(in_batches(IMAGES, 64)))
    assert read.data_hash == measured.data_hash
    assert (read.statistics.network, read.statistics.count) == (NetworkIdentity.of(NETWORK), 200)
    np.testing.assert_array_equal(read.statistics.mean, measured.statistics.mean)
    np.testing.assert_array_equal(read.statistics.scatter, measured.statistics.scatter)
    generated = collect_statistics(NETWORK, in_batches(DIGITS[200:400], 64))
    assert frechet_distance(generated, read.statistics) == frechet_distance(generated, measured.statistics)


def test_the_data_hash_is_of_the_images_alone():
    expected = hash_images([IMAGES])
    assert hash_images(in_batches(IMAGES, 64)) == hash_images(in_batches(IMAGES, 7)) == expected
    one_level = IMAGES.copy()
    one_level[100, 4, 4, 0] += -2 / 255 if one_level[100, 4, 4, 0] > 0 else 2 / 255
    others = [one_level, IMAGES[::-1], IMAGES[:-1], IMAGES.reshape(200, 4, 16, 1)]
    assert len({expected, *(hash_images([other]) for other in others)}) == 5


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(NetworkIdentity)])
def test_the_reference_of_another_network_is_refused(path, measured, field):
    other = dataclasses.replace(measured.statistics.network, **{field: 7 if field == "size" else "another"})
    message = rf"{field} .*(another|7).* of the network in use against .* of the reference .*digits.npz"
    with pytest.raises(NetworkMismatchError, match=message):
        load_reference(path, other, measured.data_hash)


def test_the_reference_of_other_images_is_refused(path, measured):
    wanted = hash_images([DIGITS[200:400]])
    message = f"200 images with hash {measured.data_hash}, expected the images with hash {wanted}"
    with pytest.raises(DataMismatchError, match=message):
        load_reference(path, NETWORK, wanted)


def test_too_few_images_are_no_reference():
    for count in (0, 1):
        with pytest.raises(ValueError, match=f"a reference needs at least 2 images, got {count}"):
            measure_reference(NETWORK, in_batches(IMAGES[:count], 64))


def test_images_of_two_shapes_are_no_data_set():
    with pytest.raises(ValueError, match=r"must have one shape, got \(8, 8, 1\) and then \(4, 16, 1\)"):
        hash_images([IMAGES, IMAGES.reshape(200, 4, 16, 1)])


def test_damaged_files_are_refused(path, measured):
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for content in (whole[:-30], whole[: len(whole) // 2], b"", b"text", bytes(flipped)):
        path.write_bytes(content)
        with pytest.raises(DamagedFileError, match=r"digits.npz is no reference statistics .* or is damaged or cut"):
            load_reference(path, NETWORK, measured.data_hash)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"no reference statistics of asyncpatch, version 1 at .*digits.npz"):
        load_reference(path, NETWORK, measured.data_hash)


def test_pickles_are_refused(path, measured):
    np.savez(path, description=np.array([{"kind": KIND}], object))
    with pytest.raises(DamagedFileError, match="or is damaged or cut"):
        load_reference(path, NETWORK, measured.data_hash)


def test_files_that_break_their_promise_are_refused(path, measured):
    statistics = measured.statistics
    description = {"data_hash": measured.data_hash, "count": 200, "network": dataclasses.asdict(statistics.network)}
    arrays = {"mean": statistics.mean, "scatter": statistics.scatter}

    def refuse(message, description=description, kind=KIND, **changes):
        write_archive(path, kind, description, arrays | changes)
        with pytest.raises(DamagedFileError, match=message):
            load_reference(path, NETWORK, measured.data_hash)

    refuse("holds 'something else', expected 'reference statistics", kind="something else")
    refuse("lacks a part .*'network'", description={"data_hash": "0", "count": 2})
    refuse("lacks a part .*'count'", description={name: description[name] for name in ("data_hash", "network")})
    refuse(r"finite mean in float64 of shape \(6,\), got float64 of shape \(5,\)", mean=statistics.mean[:5])
    refuse(r"scatter in float64 .* got float32 of shape \(6, 6\)", scatter=statistics.scatter.astype(np.float32))
    refuse("finite mean .* with 6 values that are not finite", mean=statistics.mean * np.nan)


def test_a_write_that_fails_leaves_the_old_file(path, measured, monkeypatch):
    before = path.read_bytes()

    def fail(*_):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(OSError, match="disk full"):
            save_reference(path, measure_reference(NETWORK, [DIGITS[:64]]))
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["digits.npz"]
