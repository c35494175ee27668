"""metrics.jsonl and TensorBoard events: numbers to both, pictures to the latter.

Invariant: after a resume at step `n` the file holds no line beyond `n` and continues from there, so that apart from
timings it is the file of a run that was never interrupted. Lines that no run wrote are kept in a file of their own.
"""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
from tensorboardX import SummaryWriter

from asyncpatch.pictures import Pixels, enlarge
from asyncpatch.train.folder import replace_bytes

LOGGER = logging.getLogger(__name__)

METRICS_FILE, EVENTS_FOLDER, FOREIGN_FILE = "metrics.jsonl", "tensorboard", "metrics.foreign"


class MetricsLog:
    """Appends lines to metrics.jsonl and scalars to TensorBoard, from `step` on."""

    def __init__(self, folder: Path, step: int):
        path = folder / METRICS_FILE
        _drop_lines_after(path, step)
        self._file = path.open("a", encoding="utf-8")
        self._events = SummaryWriter(str(folder / EVENTS_FOLDER), purge_step=step + 1)

    def write(self, step: int, values: dict[str, float]) -> None:
        """One line, out of this process's buffers when this returns: a kill cannot take it back."""
        self._file.write(json.dumps({"step": step} | values) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._events.add_scalar(name, value, step)

    def show(self, step: int, name: str, picture: Pixels) -> None:
        """A picture, enlarged."""
        self._events.add_image(name, np.asarray(enlarge(picture)), step, dataformats="HWC")

    def close(self) -> None:
        """Write out the events and close both files."""
        self._file.close()
        self._events.close()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl. Lines that are not ours are passed over, with a warning."""
    ours, foreign = _lines(folder / METRICS_FILE)
    if foreign:
        LOGGER.warning("passed over %d lines of %s that are no metrics", len(foreign), folder / METRICS_FILE)
    return [values for _, values in ours]


def _drop_lines_after(path: Path, step: int) -> None:
    """Keep the lines up to `step`, and put foreign lines into a file of their own.

    A line cut short by a kill goes: it is later than any checkpoint.
    """
    if not path.exists():
        return
    ours, foreign = _lines(path)
    kept = [line for line, values in ours if values["step"] <= step]
    if foreign:
        elsewhere = path.with_name(FOREIGN_FILE)
        with elsewhere.open("ab") as file:
            file.write(b"".join(line + b"\n" for line in foreign))
        LOGGER.warning("moved %d lines of %s that are no metrics to %s", len(foreign), path, elsewhere)
    replace_bytes(path, b"".join(line + b"\n" for line in kept))


def _lines(path: Path) -> tuple[list[tuple[bytes, dict[str, Any]]], list[bytes]]:
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
