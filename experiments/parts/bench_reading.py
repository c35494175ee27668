"""Speed of the input pipeline, from ArrayRecord files to batches of float32, on photographs."""

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from asyncpatch.data import ArrayRecords, InMemoryRecords, RandomFlip, batches
from asyncpatch.data.array_records import ArrayRecordRecords
from asyncpatch.data.base import AbstractRecords, AbstractSource
from asyncpatch.data.convert import write_array_records
from asyncpatch.data.images import shrink

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")
"""What scikit-image calls them: colour, and at least 300 pixels high."""

COUNT = {64: 4096, 256: 512}
"""Images of a size: 50 and 100 MB, so that they stay in the memory that the system keeps files in."""

BATCH = 256


class Photographs(AbstractSource):
    """Random crops of the photographs of scikit-image."""

    def __init__(self, size: int):
        self.size = size

    def open(self) -> AbstractRecords:
        rng = np.random.default_rng(0)
        images = np.stack([_crop(rng, self.size, number) for number in range(COUNT[self.size])])
        labels = (np.arange(len(images)) % len(PHOTOGRAPHS)).astype(np.int32)
        return InMemoryRecords((self.size, self.size, 3), PHOTOGRAPHS, images, labels)


def bench_reading(workers: tuple[int, ...] = (0, 1, 2), rounds: int = 3) -> None:
    """Print images a second: of records alone, and of batches for each number of worker processes."""
    with tempfile.TemporaryDirectory() as folder:
        for size in COUNT:
            where = Path(folder) / str(size)
            write_array_records(Photographs(size), where, shards=4)
            records = ArrayRecords(str(where)).open()
            print(f"{size}x{size}x3: records alone {_records_a_second(records, rounds):8.0f} images/s", flush=True)
            for count in workers:
                rates = _batches_a_second(records, count, rounds)
                how = f"{count} processes" if count else "threads"
                print(f"{size}x{size}x3: batches, {how:12s} {statistics.median(rates):8.0f} images/s", flush=True)


def _records_a_second(records: ArrayRecordRecords, rounds: int) -> float:
    order = np.random.default_rng(0).permutation(len(records))
    seconds = []
    for _ in range(rounds):
        begun = time.perf_counter()
        for index in order:
            records[int(index)]
        seconds.append(time.perf_counter() - begun)
    return len(order) / statistics.median(seconds)


def _batches_a_second(records: ArrayRecordRecords, workers: int, rounds: int) -> list[float]:
    stream = batches(records, BATCH, 0, (RandomFlip(),), workers=workers).iterate()
    number = max(8, 2 * len(records) // BATCH)
    for _ in range(8):  # workers start, and what is made ahead is used up
        next(stream)
    rates = []
    for _ in range(rounds):
        begun = time.perf_counter()
        for _ in range(number):
            next(stream)
        rates.append(number * BATCH / (time.perf_counter() - begun))
    stream.close()
    return rates


def _crop(rng: np.random.Generator, size: int, number: int) -> UInt8[np.ndarray, "size size 3"]:
    from skimage import data

    photograph = getattr(data, PHOTOGRAPHS[number % len(PHOTOGRAPHS)])()
    side = int(rng.integers(size, min(photograph.shape[:2]) + 1))
    top, left = (int(rng.integers(0, length - side + 1)) for length in photograph.shape[:2])
    return shrink(photograph[top : top + side, left : left + side], size)
