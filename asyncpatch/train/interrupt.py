"""SIGTERM as a request: the loop finishes its step, saves and leaves, with the status a shell expects."""

import signal
import threading
from types import FrameType

import jax
import numpy as np
from jax.experimental import multihost_utils

TERMINATED_STATUS = 128 + signal.SIGTERM
"""The exit status after a SIGTERM that was honoured: 143."""


class TerminationRequest:
    """Context in which SIGTERM only raises a flag; the former handler is put back at the end.

    Signal handlers belong to the main thread: elsewhere this installs nothing and the flag stays down.
    """

    def __init__(self):
        self._requested = False
        self._former = None

    def __enter__(self) -> "TerminationRequest":
        if threading.current_thread() is threading.main_thread():
            self._former = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._former is not None:
            signal.signal(signal.SIGTERM, self._former)

    def agreed(self, step: int, every: int) -> bool:
        """Whether to stop after `step`. Several processes ask each other at multiples of `every` and stop together."""
        if jax.process_count() == 1:
            return self._requested
        return step % every == 0 and bool(multihost_utils.process_allgather(np.array(self._requested)).any())

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._requested = True
