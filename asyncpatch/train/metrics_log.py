"""metrics.jsonl and TensorBoard events: numbers to both, pictures to the latter.

Invariant: after a resume at step `n` the file holds no line beyond `n` and continues from there, so that apart from
timings it is the file of a run that was never interrupted. Lines that no run wrote are kept in a file of their own.

A line says when it was written (`time`, UTC) and after how many seconds of training (`seconds`), those of the
interrupted processes included; files of former releases do not, and are read and gone on with all the same.
"""

import errno
import json
import logging
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from asyncpatch.pictures import Pixels
from asyncpatch.places import Place, replace_bytes
from asyncpatch.train.events import Events
from asyncpatch.train.published import Published

LOGGER = logging.getLogger(__name__)

METRICS_FILE, EVENTS_FOLDER, FOREIGN_FILE = "metrics.jsonl", "tensorboard", "metrics.foreign"


class MetricsLog:
    """Appends lines to metrics.jsonl and scalars to TensorBoard, from `step` on."""

    def __init__(self, folder: Place, step: int):
        self._files = Published(folder)
        self._files.fetch(FOREIGN_FILE)
        self._path = self._files.fetch(METRICS_FILE)
        kept = _drop_lines_after(self._path, step)
        earlier = max((values["seconds"] for values in kept if _is_number(values.get("seconds"))), default=0.0)
        self._began = time.monotonic() - earlier
        self._events = Events(self.local / EVENTS_FOLDER, step + 1)

    @property
    def local(self) -> Path:
        """A folder of this machine for files that belong into the run's: they come with the next `publish`."""
        return self._files.local

    def clock(self) -> dict[str, str | float]:
        """What a line of this moment says of it."""
        now = datetime.now(UTC).isoformat("T", "seconds").replace("+00:00", "Z")
        return {"time": now, "seconds": round(time.monotonic() - self._began, 3)}

    def write(self, step: int, values: dict[str, float], clock: dict[str, str | float]) -> None:
        """One line, whole or not at all, and out of this process's buffers when this returns: a kill cannot take it
        back. Raises `OSError` if the disk is full."""
        line = (json.dumps({"step": step} | clock | values) + "\n").encode()
        with self._path.open("ab", buffering=0) as file:
            end = file.tell()
            try:
                if file.write(line) != len(line):
                    raise OSError(errno.ENOSPC, "no space left for a line of metrics", str(self._path))
            except OSError:
                file.truncate(end)
                raise
        self._events.add(step, values)

    def publish(self) -> None:
        """Bring everything to the run's folder, if it is in a bucket."""
        self._files.publish()

    def show(self, step: int, name: str, picture: Pixels) -> None:
        """A picture, enlarged."""
        self._events.show(step, name, picture)

    def close(self) -> None:
        """Write out the events and close both files."""
        try:
            self._events.close()
        finally:
            self._files.close()


def read_metrics(folder: Place) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl. Lines that are not ours are passed over, with a warning."""
    ours, foreign = _lines(folder / METRICS_FILE)
    if foreign:
        LOGGER.warning("passed over %d lines of %s that are no metrics", len(foreign), folder / METRICS_FILE)
    return [values for _, values in ours]


def _drop_lines_after(path: Path, step: int) -> list[dict[str, Any]]:
    """Keep the lines up to `step`, whose values are returned, and put foreign lines into a file of their own.

    A line cut short by a kill goes: it is later than any checkpoint.
    """
    if not path.exists():
        return []
    ours, foreign = _lines(path)
    kept = [(line, values) for line, values in ours if values["step"] <= step]
    if foreign:
        elsewhere = path.with_name(FOREIGN_FILE)
        with elsewhere.open("ab") as file:
            file.write(b"".join(line + b"\n" for line in foreign))
        LOGGER.warning("moved %d lines of %s that are no metrics to %s", len(foreign), path, elsewhere)
    replace_bytes(path, b"".join(line + b"\n" for line, _ in kept))
    return [values for _, values in kept]


def _lines(path: Place) -> tuple[list[tuple[bytes, dict[str, Any]]], list[bytes]]:
    """The lines that a run wrote, each with what it says, and the foreign ones; not one cut short at the end."""
    *lines, last = path.read_bytes().split(b"\n")
    ours, foreign = [], []
    for line in lines if _values(last) is None else [*lines, last]:
        if (values := _values(line)) is not None:
            ours.append((line, values))
        elif line.strip():
            foreign.append(line)
    return ours, foreign


def _values(line: bytes) -> dict[str, Any] | None:
    """What a line says; None if no run wrote it."""
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) and type(values.get("step")) is int else None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
