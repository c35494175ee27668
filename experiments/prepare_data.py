"""Prepare ImageNet or LSUN bedrooms for training, from the files as their publishers give them.

    python -m experiments.prepare_data imagenet --root /data/imagenet --size 64 --output /data/imagenet64
    python -m experiments.prepare_data lsun --root /data/lsun --size 256 --output /data/lsun256
    python -m experiments.prepare_data check --output /data/imagenet64

Then train on `ArrayRecords("/data/imagenet64/train")`, and validate on `.../val`. After an interruption give the same
command again: it goes on where it stopped. The docstrings of `asyncpatch/data/prepare/imagenet.py` and `lsun.py` say
which files must be there.
"""

import logging
import os
import time
from pathlib import Path

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from asyncpatch.data import prepare as preparation
from asyncpatch.data.prepare import Collection
from experiments.parts.command import run_command

LINE_SECONDS = 10.0
"""How often a line is printed where there is no terminal to draw a bar on."""


class RateColumn(ProgressColumn):
    """Images per second, of late."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0:.0f} images/s")


class Reporter:
    """Progress and rate on standard error: a bar on a terminal, now and then a line elsewhere."""

    def __init__(self, console: Console):
        columns = (BarColumn(), MofNCompleteColumn(), RateColumn(), TimeRemainingColumn())
        self._bar = Progress(TextColumn("images"), *columns, console=console, disable=not console.is_terminal)
        self._task = self._bar.add_task("images", total=None)
        self._console, self._printed = console, time.monotonic()

    def __enter__(self) -> "Reporter":
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def __call__(self, done: int, total: int) -> None:
        """Tell that `done` of `total` images are done. Shards of an earlier run count as done when they are checked."""
        self._bar.update(self._task, completed=done, total=total)
        if not self._console.is_terminal and time.monotonic() - self._printed >= LINE_SECONDS:
            self._printed = time.monotonic()
            rate = self._bar.tasks[0].speed or 0
            self._console.print(f"{done}/{total} images, {rate:.0f} images/s", highlight=False, soft_wrap=True)


def imagenet(
    root: Path,
    size: int,
    output: Path,
    train: int = preparation.IMAGENET_TRAIN,
    val: int = preparation.IMAGENET_VAL,
    workers: int = os.cpu_count() or 1,
    max_corrupt_share: float = 0.0,
) -> None:
    """Prepare ImageNet (ILSVRC2012).

    Args:
        root: the folder that holds the archives, or the folders `train` and `val`.
        size: side of the prepared images in pixels.
        output: a new folder, or one that an earlier run began.
        train: training images that must be there.
        val: validation images that must be there.
        workers: processes that decode.
        max_corrupt_share: share of damaged images to leave out; more is an error.
    """
    console = Console(stderr=True)
    console.print("Listing the images; archives take minutes.")
    _prepare(preparation.imagenet(root, train, val), size, output, workers, max_corrupt_share, console)


def lsun(
    root: Path,
    size: int,
    output: Path,
    train: int = preparation.LSUN_BEDROOM_TRAIN,
    val: int = preparation.LSUN_BEDROOM_VAL,
    workers: int = os.cpu_count() or 1,
    max_corrupt_share: float = 0.0,
) -> None:
    """Prepare LSUN bedrooms.

    Args:
        root: the folder that holds `bedroom_train_lmdb` and `bedroom_val_lmdb`.
        size: side of the prepared images in pixels.
        output: a new folder, or one that an earlier run began.
        train: training images that must be there.
        val: validation images that must be there.
        workers: processes that decode.
        max_corrupt_share: share of damaged images to leave out; more is an error.
    """
    console = Console(stderr=True)
    console.print("Listing the images.")
    _prepare(preparation.lsun_bedroom(root, train, val), size, output, workers, max_corrupt_share, console)


def check(output: Path) -> None:
    """Verify a prepared folder by its checksums.

    Args:
        output: the folder.
    """
    index = preparation.check_prepared(output)
    shards = sum(len(split["shards"]) for split in index["splits"].values())
    print(f"{shards} shards are as they were prepared; checksum of all: {index['sha256']}")


def _prepare(
    collection: Collection, size: int, output: Path, workers: int, max_corrupt_share: float, console: Console
) -> None:
    logging.basicConfig(format="%(message)s", handlers=[RichHandler(console=console, show_path=False)])
    began = time.monotonic()
    with Reporter(console) as reporter:
        index = preparation.prepare(
            collection, size, output, workers=workers, max_corrupt_share=max_corrupt_share, progress=reporter
        )
    for split, content in index["splits"].items():
        print(f"{split}: {content['records']} images, {len(content['damaged'])} damaged, in {output / split}")
    print(f"{time.monotonic() - began:.0f} s; checksum of all: {index['sha256']}")


if __name__ == "__main__":
    run_command({"imagenet": imagenet, "lsun": lsun, "check": check})
