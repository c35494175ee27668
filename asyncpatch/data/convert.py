"""The converter: any source to a folder of ArrayRecord files.

Invariants: records keep the order of their source, so both give the same batches; converting twice gives the
same bytes; a folder under its final name is complete.
"""

import contextlib
import itertools
import os
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path

import grain
import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter  # ty: ignore[import-not-found]  (compiled)
from rich.progress import track

from asyncpatch.data.base import AbstractSource
from asyncpatch.data.record_format import Sidecar, encode_record, shard_names

WRITER_OPTIONS = "group_size:1,uncompressed"
"""One image to a chunk: reading one would cost reading its whole group otherwise. Compressed, photographs of 256x256
take an eighth less room and four times the processor's time to be read."""
READING = grain.ReadOptions(num_threads=16, prefetch_buffer_size=64)  # images decoded ahead of the writer
RECORDS_WORTH_A_BAR = 20_000  # some seconds of writing


def write_array_records(source: AbstractSource, folder: str | Path, shards: int = 1) -> None:
    """Write all records of `source`, in order, to the new folder `folder`, in `shards` files of equal length.

    The folder gets its name when it is complete: a run that fails leaves nothing under that name.
    """
    with new_folder(folder) as partial:
        records = source.open()
        if records[0]["image"].dtype != np.uint8:
            raise ValueError(f"{type(source).__name__} holds latents, not images; give the images they were made of")
        check_shards(shards, len(records))
        encoded = iter(grain.MapDataset.source(records).map(encode_record).to_iter_dataset(READING))
        with contextlib.closing(encoded):
            write_shards(encoded, len(records), [str(partial / name) for name in shard_names(shards)])
        Sidecar(len(records), records.shape, records.class_names, shards).write(partial)


@contextlib.contextmanager
def new_folder(folder: str | Path) -> Generator[Path, None, None]:
    """A folder to write to, which gets the name `folder` if nothing is raised, and is removed otherwise."""
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f"{folder} exists already; remove it or choose another name")
    partial = folder.parent / f".{folder.name}.{os.getpid()}.partial"
    partial.mkdir(parents=True)
    try:
        yield partial
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)  # there is nothing left to remove unless something failed


def check_shards(shards: int, count: int) -> None:
    """Raise `ValueError` unless every shard gets a record."""
    if not 1 <= shards <= count:
        raise ValueError(f"{count} images cannot fill {shards} shards; give 1 to {count} shards")


def write_shards(contents: Iterator[bytes], count: int, paths: list[str]) -> None:
    """Write `count` encoded records, in order, to files of equal length."""
    ends = [count * (shard + 1) // len(paths) for shard in range(len(paths))]
    bar = iter(track(contents, "Writing records", total=count, disable=count < RECORDS_WORTH_A_BAR))
    for path, start, end in zip(paths, [0, *ends], ends, strict=False):
        with contextlib.closing(ArrayRecordWriter(path, WRITER_OPTIONS)) as writer:
            for content in itertools.islice(bar, end - start):
                writer.write(content)
    next(bar, None)  # the bar counts a record when the next is asked for
