"""Progress on standard error: a bar on a terminal, now and then a plain line in a log file."""

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

PLAIN_SECONDS = 10.0
"""How often a line is printed where there is no terminal to draw a bar on."""


class BarProgress:
    """A bar with steps, loss, images per second and time left."""

    def __init__(self, console: Console, start: int, total: int):
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"), TimeRemainingColumn())
        self._progress = Progress(TextColumn("train"), *columns, console=console)
        self._task = self._progress.add_task("train", total=total, completed=start, note="")
        self._progress.start()

    def advance(self, step: int) -> None:
        """Move to `step`."""
        self._progress.update(self._task, completed=step)

    def say(self, line: str) -> None:
        """Print a line that stays, above the bar."""
        self._progress.console.print(line, highlight=False, soft_wrap=True)

    def away(self, seconds: float) -> None:
        """So many seconds were not spent on steps: begin to estimate the time left anew."""
        done = self._progress.tasks[self._task].completed
        self._progress.reset(self._task, completed=int(done))

    def note(self, text: str) -> None:
        """Show the latest numbers."""
        self._progress.update(self._task, note=text)

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._progress.stop()


class PlainProgress:
    """The same as text, one line every `PLAIN_SECONDS`."""

    def __init__(self, console: Console, start: int, total: int):
        self._console, self._start, self._total = console, start, total
        self._began = self._printed = time.monotonic()
        self._step, self._note, self._away = start, "", 0.0

    def advance(self, step: int) -> None:
        """Move to `step`, and print a line if the last is old enough."""
        self._step = step
        if time.monotonic() - self._printed >= PLAIN_SECONDS:
            self._print()

    def say(self, line: str) -> None:
        """Print a line."""
        self._console.print(line, highlight=False, soft_wrap=True)

    def away(self, seconds: float) -> None:
        """So many seconds were not spent on steps: they do not count for the time left."""
        self._away += seconds

    def note(self, text: str) -> None:
        """Keep the latest numbers for the next line."""
        self._note = text

    def close(self) -> None:
        """Print the last line."""
        self._print()

    def _print(self) -> None:
        self._printed = time.monotonic()
        timed = self._step - self._start - 1  # the first step compiles
        line = f"step {self._step}/{self._total}  {self._note}"
        if timed > 0:
            seconds_per_step = (self._printed - self._began - self._away) / timed
            line += f"  {(self._total - self._step) * seconds_per_step:.0f} s left"
        self._console.print(line, highlight=False, soft_wrap=True)


def make_progress(start: int, total: int) -> BarProgress | PlainProgress:
    """A bar where standard error is a terminal, lines elsewhere; nothing goes to standard output."""
    console = Console(file=sys.stderr)
    return BarProgress(console, start, total) if console.is_terminal else PlainProgress(console, start, total)
