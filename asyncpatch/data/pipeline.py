"""An endless stream of batches that depends on the seed and the step alone.

The stream of images is: shuffle anew in every epoch, epochs one after the other, transform with random numbers
drawn for the position in the stream. Global batch `k` is images `k * batch_size` onwards of that stream, dealt to the
processes in contiguous blocks, so that the blocks joined in the order of the processes are the global batch.

Invariants: global batches are the same, image for image and in order, for any number of workers and processes;
`iterate(k)` begins with `batch(k)`. So a run that saved its step can go on with another number of either.
"""

import contextlib
import dataclasses
import re
from collections.abc import Generator
from typing import TypedDict, cast

import grain
import numpy as np
from absl import flags
from jaxtyping import Float32, Int32

from asyncpatch.data.base import AbstractRecords, Record
from asyncpatch.data.transforms import AbstractTransform, to_network

MAX_SEED = 2**32 - 1  # Grain's limit
THREAD_READING = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)  # batches made beside the train step
WORKER_READING = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)  # for each worker process
KILLED = re.compile("terminated unexpectedly with exit code (-?[0-9]+)")  # Grain, of a worker that ended without a word


class WorkerError(RuntimeError):
    """A process that prepares batches was killed."""


class Batch(TypedDict):
    """One process's block of a global batch."""

    image: Float32[np.ndarray, "batch height width channel"]
    label: Int32[np.ndarray, " batch"]


@dataclasses.dataclass(frozen=True, eq=False)
class Batches:
    """Random access to the batches of one process, and iteration with prefetching. Made by `batches`."""

    shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    workers: int
    dataset: grain.MapDataset = dataclasses.field(repr=False)

    def batch(self, step: int) -> Batch:
        """The batch at `step`, made on the spot."""
        return cast(Batch, self.dataset[_checked_step(step)])  # Grain allows None, for filtered elements

    def iterate(self, start_step: int = 0) -> Generator[Batch, None, None]:
        """The batches from `start_step` on, without end, prefetched. `close()` it, or drop it, to free its workers."""
        rest = self.dataset[_checked_step(start_step) :]
        return _prefetched(rest, self.workers)


def batches(
    records: AbstractRecords,
    batch_size: int,
    seed: int,
    transforms: tuple[AbstractTransform, ...] = (),
    process_index: int = 0,
    process_count: int = 1,
    workers: int = 0,
) -> Batches:
    """The batches of process `process_index` out of `process_count`; `batch_size` counts the images of all.

    `workers` processes prepare batches beside this one; with 0, threads do. A program that uses workers needs the
    usual `if __name__ == "__main__":`, as they are started afresh. Batches may be larger than the data set.
    """
    _check_arguments(batch_size, seed, process_index, process_count, workers)
    shape = changed_shape(records, transforms)
    chain = _Chain(transforms)
    stream = grain.MapDataset.source(records).seed(seed).shuffle().repeat().random_map(chain)
    blocks = stream.batch(batch_size // process_count, drop_remainder=True)[process_index::process_count]
    return Batches(shape, records.class_names, workers, blocks.map(_finish))


def changed_shape(records: AbstractRecords, transforms: tuple[AbstractTransform, ...]) -> tuple[int, int, int]:
    """Height, width and channels of the records' images after the transforms.

    Raises `ValueError` for images that a transform cannot take, latents above all: transforms change pixels.
    """
    if transforms and records[0]["image"].dtype != np.uint8:
        names = ", ".join(type(transform).__name__ for transform in transforms)
        raise ValueError(
            f"{names} changes pixels, and these records are latents: those of a flipped or padded image are others. "
            "Train on latents without transforms, or change the images before they are encoded"
        )
    height, width, channels = _Chain(transforms)(records[0], np.random.default_rng(0))["image"].shape
    return height, width, channels


@dataclasses.dataclass(frozen=True)
class _Chain:
    """All transforms of a record, in order, on one stream of random numbers."""

    transforms: tuple[AbstractTransform, ...]

    def __call__(self, record: Record, rng: np.random.Generator) -> Record:
        image = record["image"]
        for transform in self.transforms:
            image = transform(image, rng)
        return {"image": image, "label": record["label"]}


def _finish(batch: dict[str, np.ndarray]) -> Batch:
    return {"image": to_network(batch["image"]), "label": batch["label"]}


def _prefetched(dataset: grain.MapDataset, workers: int) -> Generator[Batch, None, None]:
    if workers == 0:
        stream = iter(dataset.to_iter_dataset(THREAD_READING))
    else:
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # Grain hands absl's flags to its workers, and absl wants them parsed
        options = grain.MultiprocessingOptions(num_workers=workers)
        stream = iter(dataset.to_iter_dataset(WORKER_READING).mp_prefetch(options))
    with contextlib.closing(stream), _named(workers):
        yield from stream


@contextlib.contextmanager
def _named(workers: int) -> Generator[None, None, None]:
    """Says what the failure of a worker leaves others to guess: what failed, at what, and what to do."""
    try:
        yield
    except Exception as error:
        if not workers:
            raise
        if (killed := KILLED.search(str(error))) is not None:
            raise WorkerError(
                f"one of the {workers} processes that prepare batches was killed (exit code {killed[1]}"
                f"{', as the system does when memory runs out' if killed[1] == '-9' else ''}); start the same command "
                "again, with fewer workers if it happens again"
            ) from error
        said = str(error).strip().splitlines()[0] if str(error).strip() else "no message"
        kind = ValueError if isinstance(error, ValueError) else OSError if isinstance(error, OSError) else RuntimeError
        raise kind(f"preparing a batch failed in a worker process: {type(error).__name__}: {said}") from error


def _checked_step(step: int) -> int:
    if step < 0:
        raise ValueError(f"steps count from 0, got {step}; give the number of batches seen so far")
    return step


def _check_arguments(batch_size: int, seed: int, process_index: int, process_count: int, workers: int) -> None:
    if not 0 <= process_index < process_count:
        raise ValueError(
            f"process_index must lie in [0, {process_count}), got {process_index}; "
            "give jax.process_index() and jax.process_count()"
        )
    if batch_size < 1 or batch_size % process_count:
        raise ValueError(
            f"a batch of {batch_size} images cannot be dealt to {process_count} processes alike; "
            f"give a positive multiple of {process_count}"
        )
    if not 0 <= seed <= MAX_SEED:
        raise ValueError(f"seed must lie in [0, {MAX_SEED}], got {seed}; give a smaller non-negative number")
    if workers < 0:
        raise ValueError(f"workers must be 0 (threads) or more, got {workers}; give the number of processes")
