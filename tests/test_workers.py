"""Worker processes that fail: named, with what failed and what to do, in place of a wait without end."""

import multiprocessing
import os
import signal
from collections import deque
from itertools import islice

import numpy as np
import pytest

from asyncpatch.data import (
    AbstractSource,
    ArrayRecords,
    Digits,
    InMemoryRecords,
    WorkerError,
    batches,
    write_array_records,
)


class Fixed(AbstractSource):
    """A source of records that are there already."""

    def __init__(self, records):
        self.records = records

    def open(self):
        return self.records


def test_a_killed_worker_is_named():
    records = Digits().open()
    stream = batches(records, 8, 0, workers=1).iterate()
    before = set(multiprocessing.active_children())
    next(stream)
    (worker,) = set(multiprocessing.active_children()) - before
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(WorkerError, match=r"one of the 1 processes that prepare batches was killed \(exit code -9"):
        deque(islice(stream, 100), maxlen=0)


def test_a_damaged_record_is_named_by_the_worker_that_read_it(tmp_path):
    folder = tmp_path / "records"
    images = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), np.uint8)
    write_array_records(Fixed(InMemoryRecords((32, 32, 3), ("a",), images, np.zeros(64, np.int32))), folder)
    shard = folder / "records-00000-of-00001.array_record"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 0xFF
    shard.write_bytes(content)
    stream = batches(ArrayRecords(str(folder)).open(), 8, 0, workers=1).iterate()
    with pytest.raises(ValueError, match=rf"in a worker process: ValueError: record [0-9]+ in {folder} is damaged"):
        deque(islice(stream, 9), maxlen=0)
