"""A run's folder: writable, with nothing in the way of what training writes there, and held by one training at a time.

Invariant: of all trainings that begin in a folder one goes on, however many there are and however they end. The lock is
the operating system's and dies with its process, or in a bucket a `lease`, which runs out a minute after; the file
tells whoever is refused who holds it.
"""

import errno
import fcntl
import json
import logging
import os
import secrets
import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from asyncpatch.places import UNFINISHED, Place, writable_folder
from asyncpatch.train.lease import Lease

LOGGER = logging.getLogger(__name__)

LOCK_FILE = "training.lock"
"""Locked while a training runs; holds its process, host and start."""

FILES = ("config.json", "metrics.jsonl", "metrics.foreign", LOCK_FILE)
FOLDERS = ("checkpoints", "cooled", "damaged", "profile", "samples", "tensorboard")
"""What a run's folder has, as files and as folders."""

NO_LOCKS = {errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK, errno.EINVAL}
"""What file systems say that cannot lock."""


class FolderInUseError(RuntimeError):
    """Another training runs in the folder."""


def prepare(folder: str | Place) -> Place:
    """Make the output folder, and prove that all of a run can be written there, before anything is computed.

    Raises `OSError` if not.
    """
    folder = writable_folder(folder)
    unfinished = tuple(name + UNFINISHED for name in FILES)
    wanted = dict.fromkeys((*FILES, *unfinished), "file") | dict.fromkeys(FOLDERS, "folder")
    for name, kind in wanted.items():
        path = folder / name
        there = path.exists() or (isinstance(path, Path) and path.is_symlink())
        if there and not (path.is_file() if kind == "file" else path.is_dir()):
            raise OSError(f"{path} is no {kind}, and training needs a {kind} of that name; move it away")
    return folder


@contextmanager
def held(folder: Place) -> Generator[Callable[[], None]]:
    """Hold the folder for this training. Raises `FolderInUseError`, which names the holder, if another does.

    Of several processes the first takes the lock for all. What is yielded raises `FolderInUseError` if the folder has
    been given to another meanwhile, as happens in a bucket that could not be reached for a minute.
    """
    lock, holder = None, None
    if jax.process_index() == 0:
        file = folder / LOCK_FILE
        lock = FileLock(file, _myself()) if isinstance(file, Path) else Lease(folder, LOCK_FILE, _myself())
        found = lock.take()
        holder = None if found is None else _name(found)

    def check() -> None:
        if lock is not None and lock.lost:
            raise FolderInUseError(f"{folder} is in use: another training took it, as this one could not reach it")

    try:
        if jax.process_count() > 1 and multihost_utils.broadcast_one_to_all(np.array(holder is not None)):
            holder = holder or "another process, which the first process names"
        if holder is not None:
            raise FolderInUseError(
                f"{folder} is in use: {holder} trains in it; wait for it, stop it, or train into another folder"
            )
        yield check
    finally:
        if lock is not None and holder is None:
            lock.release()


class FileLock:
    """The operating system's lock of a file, which holds what its holder says of itself."""

    lost = False
    """Nobody else gets it while this process lives."""

    def __init__(self, path: Path, holder: dict[str, str | int]):
        self._path, self._content = path, json.dumps(holder).encode()
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)

    def take(self) -> bytes | None:
        """Take the lock, or return what its holder wrote."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            found = os.pread(self._file, 1000, 0)
            os.close(self._file)
            return found
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            LOGGER.warning("the file system of %s has no locks (%s); let nothing else train there", self._path, error)
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, self._content, 0)
        return None

    def release(self) -> None:
        """Let the next one take it."""
        os.ftruncate(self._file, 0)
        os.close(self._file)


def _myself() -> dict[str, str | int]:
    since = datetime.now(UTC).isoformat(" ", "seconds")
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": since, "token": secrets.token_hex(8)}


def _name(written: bytes) -> str:
    try:
        return "process {pid} on {host}, since {since},".format(**json.loads(written))
    except (ValueError, TypeError, LookupError):  # it holds the lock and has not yet written its name
        return "another process"
