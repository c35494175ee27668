"""TensorBoard events, written where they are made.

tensorboardX's own `SummaryWriter` hands them to a thread, which a full disk ends, and then waits for it for ever. Here
whoever writes is told. Invariant: of a file that could not be written to, TensorBoard still reads what came before.
"""

import time
from contextlib import suppress
from pathlib import Path

import numpy as np
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog  # type: ignore  (it makes them when it is imported)
from tensorboardX.summary import image, scalar

from asyncpatch.pictures import Pixels, enlarge


class Events:
    """A new file of events in `folder`. TensorBoard forgets what older files say of `step` and of those after it."""

    def __init__(self, folder: Path, step: int):
        folder.mkdir(parents=True, exist_ok=True)
        self._writer = EventsWriter(str(folder / "events"), f".{time.time_ns()}")
        self._writer.write_event(Event(step=step, file_version="brain.Event:2"))
        self._writer.write_event(Event(step=step, session_log=SessionLog(status=SessionLog.START)))

    def add(self, step: int, values: dict[str, float]) -> None:
        """Numbers of a step, by name."""
        for name, value in values.items():
            self._writer.write_event(Event(step=step, wall_time=time.time(), summary=scalar(name, value)))
        self._writer.flush()

    def show(self, step: int, name: str, picture: Pixels) -> None:
        """A picture, enlarged."""
        summary = image(name, np.asarray(enlarge(picture)), dataformats="HWC")
        self._writer.write_event(Event(step=step, wall_time=time.time(), summary=summary))
        self._writer.flush()

    def close(self) -> None:
        """Raises `OSError` if the end cannot be written; the file is closed all the same."""
        try:
            self._writer.close()
        except OSError:
            with suppress(OSError):
                self._writer._py_recordio_writer.close()  # it leaves that open if it could not be flushed
            raise
