"""Transforms, and the batches that training reads: they depend on the seed and the step alone."""

import itertools
from collections.abc import Callable

import grain
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_data import write_idx

from asyncpatch.data import (
    ArrayRecords,
    Batches,
    Digits,
    InMemoryRecords,
    PadTo,
    RandomFlip,
    Shrink,
    batches,
    check_image,
    to_float,
    to_uint8,
    write_array_records,
)

# --- Transforms


def test_float_and_back_is_exact():
    values = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    floats = to_float(values)
    assert (floats.dtype, floats.min(), floats.max()) == (np.float32, -1, 1)
    assert np.array_equal(to_uint8(floats), values)


@given(st.integers(0, 2**32 - 1))
def test_uint8_is_the_nearest(seed):
    floats = np.random.default_rng(seed).uniform(-1.2, 1.2, (8, 8, 1)).astype(np.float32)
    assert np.abs(to_float(to_uint8(floats)) - floats.clip(-1, 1)).max() <= 1 / 255 + 1e-6


def test_padding_centres_on_black():
    image = np.full((3, 4, 2), 9, np.uint8)
    padded = PadTo(6, 6)(image, np.random.default_rng(0))
    assert padded.shape == (6, 6, 2)
    assert np.array_equal(padded[1:4, 1:5], image)
    assert padded.sum() == image.sum()
    with pytest.raises(ValueError, match="3x4 does not fit on a canvas of 2x6"):
        PadTo(2, 6)(image, np.random.default_rng(0))


def test_shrinking_averages_squares():
    image = np.random.default_rng(0).integers(0, 256, (6, 4, 2)).astype(np.uint8)
    small = Shrink(2)(image, np.random.default_rng(0))
    assert small.shape == (3, 2, 2)
    assert small.dtype == np.uint8
    assert small[2, 1, 0] == np.rint(image[4:6, 2:4, 0].mean())
    assert np.array_equal(Shrink(1)(image, np.random.default_rng(0)), image)
    with pytest.raises(ValueError, match="6x4 cannot be shrunk 4 times"):
        Shrink(4)(image, np.random.default_rng(0))


def valid_image() -> np.ndarray:
    return np.zeros((8, 8, 1), np.float32)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((8, 8, 1), np.uint8), "must be floating, got uint8"),
        (np.zeros((9, 8, 1), np.float32), r"has shape \(9, 8, 1\), expected"),
        (np.zeros((8, 8), np.float32), r"has shape \(8, 8\), expected"),
        (np.where(np.arange(64).reshape(8, 8, 1) == 10, np.nan, 0.0), r"NaN or infinite, the first at \(1, 2, 0\)"),
        (np.full((8, 8, 1), np.inf), "64 values that are NaN or infinite"),
        (np.full((8, 8, 1), 255.0), r"must lie in \[-1, 1\], got values from 255 to 255"),
    ],
)
def test_check_image(image, message):
    check_image(valid_image(), (8, 8, 1))
    with pytest.raises(ValueError, match=message):
        check_image(image, (8, 8, 1))


def test_nan_is_not_turned_into_a_pixel():
    with pytest.raises(ValueError, match="1 NaN values"):
        to_uint8(np.array([[[np.nan]], [[0.0]]], np.float32))


# --- Batches


def numbered(count: int) -> InMemoryRecords:
    """Each image is filled with its own number on the left, and 0 on the right; the label is the number."""
    images = np.zeros((count, 2, 2, 1), np.uint8)
    images[:, :, 0, 0] = np.arange(count)[:, None]
    names = tuple(str(i) for i in range(count))
    return InMemoryRecords((2, 2, 1), names, images, np.arange(count, dtype=np.int32))


def same_batch(one: dict, other: dict) -> bool:
    return np.array_equal(one["image"], other["image"]) and np.array_equal(one["label"], other["label"])


def check_process_count_does_not_matter(build: Callable[[int, int], Batches]) -> None:
    """`build(process_index, process_count)`: joined in the order of the processes, batches are those of one."""
    for step, count in itertools.product((0, 1, 6), (2, 4)):
        blocks = [build(index, count).batch(step) for index in range(count)]
        joined = {key: np.concatenate([block[key] for block in blocks]) for key in ("image", "label")}
        assert same_batch(joined, build(0, 1).batch(step))


def test_process_count_does_not_matter():
    check_process_count_does_not_matter(
        lambda index, count: batches(numbered(21), 8, 3, (RandomFlip(),), process_index=index, process_count=count)
    )


def test_process_law_rejects_a_shuffle_per_process():
    def wrong(index: int, count: int) -> Batches:
        shard = grain.MapDataset.source(numbered(21))[index::count].seed(3).shuffle().repeat()
        return Batches((2, 2, 1), ("a",), 0, shard.batch(8 // count))

    with pytest.raises(AssertionError):
        check_process_count_does_not_matter(wrong)


def take(stream: Batches, start: int, count: int) -> list[dict]:
    iterator = stream.iterate(start)
    taken = list(itertools.islice(iterator, count))
    iterator.close()
    return taken


def test_seeking_gives_the_same_batches():
    stream = batches(numbered(10), 4, 0, (RandomFlip(), PadTo(4, 4)))
    assert stream.shape == (4, 4, 1)
    for start in (0, 5):
        expected = [stream.batch(start + i) for i in range(4)]
        assert all(itertools.starmap(same_batch, zip(take(stream, start, 4), expected, strict=True)))


def test_worker_count_does_not_matter():
    """None against two, which take turns at making batches."""
    records = Digits().open()
    alone, helped = (batches(records, 16, 1, (RandomFlip(),), workers=workers) for workers in (0, 2))
    assert all(itertools.starmap(same_batch, zip(take(alone, 3, 5), take(helped, 3, 5), strict=True)))


def test_batches_have_the_promised_types():
    batch = batches(Digits().open(), 4, 0).batch(0)
    assert (batch["image"].shape, batch["image"].dtype) == ((4, 8, 8, 1), np.float32)
    assert (batch["label"].shape, batch["label"].dtype) == ((4,), np.int32)
    assert (batch["image"].min(), batch["image"].max()) == (-1, 1)


@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_every_epoch_holds_every_image_once(seed, count):
    """Also for data sets that are smaller than a batch: a batch then holds images of several epochs."""
    stream = batches(numbered(count), 5, seed)
    labels = np.concatenate([stream.batch(step)["label"] for step in range(2 * count)])
    for epoch in labels.reshape(-1, count):
        assert sorted(epoch) == list(range(count))


def test_epochs_and_seeds_differ():
    orders = [
        batches(numbered(200), 200, seed).batch(epoch)["label"].tolist() for seed in (0, 1) for epoch in (0, 1, 2)
    ]
    assert len(set(map(tuple, orders))) == 6


def test_flips_half_of_the_images_and_anew_in_every_epoch():
    """4000 coins of probability 1/2; five standard deviations, so a false alarm in 2 million seeds, once fixed."""
    stream = batches(numbered(200), 200, 0, (RandomFlip(),))
    flipped = np.zeros((20, 200), bool)
    for epoch in range(20):
        batch = stream.batch(epoch)
        flipped[epoch, batch["label"]] = batch["image"][:, 0, 0, 0] == -1
    coins = flipped[:, 1:]  # image 0 is black on both sides
    assert abs(coins.mean() - 0.5) < 5 * 0.5 / np.sqrt(coins.size)
    assert len({row.tobytes() for row in coins}) == 20


def test_converted_data_gives_the_same_batches(tmp_path):
    source = write_idx(tmp_path)
    write_array_records(source, tmp_path / "records", shards=4)
    original, converted = (batches(s.open(), 4, 5) for s in (source, ArrayRecords(str(tmp_path / "records"))))
    assert all(same_batch(original.batch(step), converted.batch(step)) for step in range(5))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 6, "process_count": 4}, "6 images cannot be dealt to 4 processes"),
        ({"batch_size": 0}, "batch of 0 images"),
        ({"batch_size": 4, "process_index": 2, "process_count": 2}, r"process_index must lie in \[0, 2\)"),
        ({"batch_size": 4, "workers": -1}, "workers must be 0"),
        ({"batch_size": 4, "seed": -1}, "seed must lie in"),
        ({"batch_size": 4, "transforms": (PadTo(1, 1),)}, "does not fit on a canvas"),
    ],
)
def test_bad_pipeline_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        batches(numbered(5), **({"seed": 0} | arguments))


def test_negative_step():
    stream = batches(numbered(5), 4, 0)
    with pytest.raises(ValueError, match="steps count from 0, got -1"):
        stream.batch(-1)
    with pytest.raises(ValueError, match="steps count from 0, got -1"):
        stream.iterate(-1)
