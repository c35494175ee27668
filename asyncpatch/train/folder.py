"""A run's folder: writable, with nothing in the way of what training writes there, and held by one training at a time.

Invariant: of all trainings that begin in a folder one goes on, however many there are and however they end. The lock is
the operating system's and dies with its process; the file tells whoever is refused who holds it.
"""

import errno
import fcntl
import json
import logging
import os
import socket
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from asyncpatch.files import writable_folder

LOGGER = logging.getLogger(__name__)

LOCK_FILE = "training.lock"
"""Locked while a training runs; holds its process, host and start."""

UNFINISHED = ".unfinished"
"""The end of the name of a file that is being written."""

FILES = ("config.json", "metrics.jsonl", "metrics.foreign", LOCK_FILE)
FOLDERS = ("checkpoints", "damaged", "samples", "tensorboard")
"""What a run's folder has, as files and as folders."""

NO_LOCKS = {errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK, errno.EINVAL}
"""What file systems say that cannot lock."""


class FolderInUseError(RuntimeError):
    """Another training runs in the folder."""


def prepare(folder: str | Path) -> Path:
    """Make the output folder, and prove that all of a run can be written there, before anything is computed.

    Raises `OSError` if not.
    """
    folder = writable_folder(folder)
    unfinished = tuple(name + UNFINISHED for name in FILES)
    for name, fits, kind in [(name, Path.is_file, "file") for name in (*FILES, *unfinished)] + [
        (name, Path.is_dir, "folder") for name in FOLDERS
    ]:
        path = folder / name
        if os.path.lexists(path) and not fits(path):
            raise OSError(f"{path} is no {kind}, and training needs a {kind} of that name; move it away")
    return folder


@contextmanager
def held(folder: Path) -> Generator[None]:
    """Hold the folder for this training. Raises `FolderInUseError`, which names the holder, if another does.

    Of several processes the first takes the lock for all.
    """
    lock, holder = None, None
    if jax.process_index() == 0:
        lock = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o666)
        holder = _take(lock, folder)
    try:
        if jax.process_count() > 1 and multihost_utils.broadcast_one_to_all(np.array(holder is not None)):
            holder = holder or "another process, which the first process names"
        if holder is not None:
            raise FolderInUseError(
                f"{folder} is in use: {holder} trains in it; wait for it, stop it, or train into another folder"
            )
        yield
        if lock is not None:
            os.ftruncate(lock, 0)
    finally:
        if lock is not None:
            os.close(lock)


def replace_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    unfinished = path.with_name(path.name + UNFINISHED)
    unfinished.write_bytes(content)
    os.replace(unfinished, path)


def _take(lock: int, folder: Path) -> str | None:
    """Lock an open file and write the holder's name into it, or say who holds it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return _name(os.pread(lock, 1000, 0))
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        LOGGER.warning("the file system of %s has no locks (%s); let nothing else train there", folder, error)
    os.ftruncate(lock, 0)
    since = datetime.now(UTC).isoformat(" ", "seconds")
    os.pwrite(lock, json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}).encode(), 0)
    return None


def _name(written: bytes) -> str:
    try:
        return "process {pid} on {host}, since {since},".format(**json.loads(written))
    except (ValueError, TypeError, LookupError):  # it holds the lock and has not yet written its name
        return "another process"
