"""Preparing a listed data set, its progress on standard error and what was made on standard output."""

import logging
import time
from pathlib import Path

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from asyncpatch.data import prepare as preparation
from asyncpatch.data.prepare import Collection

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


def prepare_beside_a_bar(
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
