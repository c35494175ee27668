"""A lock for a folder in a bucket, where no operating system keeps one: an object that its holder writes on and on.

Whoever finds it watches it. If it changes meanwhile, its holder lives; if not, the holder is dead, and one of those who
wait takes its place. All writes are on the condition that nobody else has written since, which a bucket decides, so no
two clocks are compared. TensorStore, which writes the arrays of checkpoints, makes these writes.

Invariants: of several that take it at once one gets it; a holder that was taken for dead finds out with its next beat.
"""

import json
import logging
import threading
import time

import tensorstore as ts

from asyncpatch.places import Place

LOGGER = logging.getLogger(__name__)

BEAT = 15.0
"""Seconds between two writes of the holder."""

PATIENCE = 60.0
"""Seconds without a write after which a holder is taken for dead: several beats, as a network may stall."""


class Lease:
    """The lock that is the object `name` in `folder`. No two trainings say the same of themselves in `holder`."""

    def __init__(self, folder: Place, name: str, holder: dict[str, str | int]):
        self._store = ts.KvStore.open(f"{folder}/").result()
        self._name, self._content = name, json.dumps(holder).encode()
        self._lost, self._over = threading.Event(), threading.Event()
        self._beating = threading.Thread(target=self._beat, daemon=True)

    def take(self) -> bytes | None:
        """Take the lock, waiting for a silent holder to be `PATIENCE` seconds silent; or what a living one wrote."""
        found = self._store.read(self._name).result()
        until = time.monotonic() + PATIENCE
        while found.value and time.monotonic() < until:
            time.sleep(min(BEAT / 3, PATIENCE / 10))
            now = self._store.read(self._name).result()
            if now.stamp.generation != found.stamp.generation and now.value:
                return now.value
            if not now.value:
                found = now
        if found.value:
            LOGGER.warning("the lock of %s has not been renewed for %.0f s; its holder is dead", self._name, PATIENCE)
        self._generation = found.stamp.generation
        if not self._write(self._content):
            return self._store.read(self._name).result().value or b"another process"
        self._beating.start()
        return None

    @property
    def lost(self) -> bool:
        """Whether somebody else holds it by now."""
        return self._lost.is_set()

    def release(self) -> None:
        """Let the next one take it at once."""
        self._over.set()
        self._beating.join()
        if not self.lost:
            self._write(b"")

    def _beat(self) -> None:
        while not self._over.wait(BEAT):
            try:
                if not self._write(self._content):
                    self._lost.set()
                    return
            except Exception as error:  # A network fails in many ways; the next beat may do better.
                LOGGER.warning("could not renew the lock of the run's folder (%s)", error)

    def _write(self, content: bytes) -> bool:
        """Write if nobody has since the last look; whether that was so."""
        stamp = self._store.write(self._name, content, if_equal=self._generation).result()
        if stamp.generation:
            self._generation = stamp.generation
            return True
        # A write whose answer got lost was repeated, and found itself.
        found = self._store.read(self._name).result()
        self._generation = found.stamp.generation
        return found.value == content
