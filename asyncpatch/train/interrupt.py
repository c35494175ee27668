"""SIGTERM as a request: the loop finishes its step, saves and leaves, with the status a shell expects.

Before the first step is done there is nothing to save, and what runs then (the compiler, for half a minute) cannot be
asked to stop: the process ends at once. It also ends at once at a second SIGTERM or Ctrl-C. Python runs its own signal
handlers between two of its instructions, which a compiler keeps it from; so a thread is told of signals by a pipe that
the interpreter writes to when they come.

Invariant: ending at once leaves what a kill leaves, a folder that can be resumed.
"""

import multiprocessing
import os
import signal
import sys
import threading
import time
from types import FrameType

import jax
import numpy as np
from jax.experimental import multihost_utils

TERMINATED_STATUS = 128 + signal.SIGTERM
"""The exit status after a SIGTERM that was honoured: 143."""

LOOK_SECONDS = 1.0
"""How often several processes ask each other whether to stop."""

SHOW_CURSOR = "\x1b[?25h\n"
"""Undoes what a progress bar does to a terminal."""


class TerminationRequest:
    """Context in which SIGTERM raises a flag once steps are being made, and ends the process before.

    The former handler is put back at the end. Signal handlers belong to the main thread: elsewhere this installs
    nothing and the flag stays down. Ctrl-C ends at once where SIGTERM does, and is Python's own otherwise; in a session
    that somebody types into it is always Python's.
    """

    def __init__(self):
        self._requested = False
        self._steps_are_made = False
        self._installed = False
        self._next_look, self._looked = 0, (0, time.monotonic())

    def __enter__(self) -> "TerminationRequest":
        if threading.current_thread() is threading.main_thread():
            self._installed = True
            self._former = signal.signal(signal.SIGTERM, self._note)
            self._reading, self._writing = os.pipe()
            os.set_blocking(self._writing, False)
            self._former_pipe = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
            self._watcher = threading.Thread(target=self._watch, daemon=True)
            self._watcher.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._installed:
            signal.set_wakeup_fd(self._former_pipe)
            os.close(self._writing)
            self._watcher.join()
            os.close(self._reading)
            signal.signal(signal.SIGTERM, self._former)

    def steps_are_made(self) -> None:
        """From now on there is something to save, and somebody who looks at the flag."""
        self._steps_are_made = True

    def agreed(self, step: int) -> bool:
        """Whether to stop after `step`. Several processes ask each other about once a second, and stop together."""
        if jax.process_count() == 1:
            return self._requested
        if step < self._next_look:
            return False
        now = time.monotonic()
        pace = (step - self._looked[0]) / max(now - self._looked[1], 1e-3)
        asked, paces = multihost_utils.process_allgather(np.array([self._requested, pace], np.float32)).T
        # The slowest pace decides, so that all look again after the same step.
        self._next_look = step + max(1, int(paces.min() * LOOK_SECONDS))
        self._looked = (step, now)
        return bool(asked.any())

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._requested = True

    def _watch(self) -> None:
        """Read the numbers of signals until the pipe is closed, and end the process if there is no use in waiting."""
        earlier = False
        while number := os.read(self._reading, 1):
            if not _is_for_us(number[0]):
                continue
            if not self._steps_are_made:
                _end_at_once(number[0], "before the first step was done; the same command starts again")
            if earlier:
                _end_at_once(number[0], "at once; the same command goes on from the last checkpoint")
            earlier = True


def _is_for_us(number: int) -> bool:
    typed_into = hasattr(sys, "ps1")
    pythons_own = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    return number == signal.SIGTERM or (number == signal.SIGINT and pythons_own and not typed_into)


def _end_at_once(number: int, when: str) -> None:
    """End the process and those that it started, without waiting for anything."""
    for child in multiprocessing.active_children():
        child.kill()
    line = f"ended by {signal.Signals(number).name} {when}\n"
    os.write(2, (SHOW_CURSOR * os.isatty(2) + line).encode())
    os._exit(128 + number)
