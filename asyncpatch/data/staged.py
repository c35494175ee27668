"""Data in a bucket, on this machine's disk: folders that are read at random are copied once, when they are opened.

Training reads single images in random order, some thousands a second; a bucket answers one such request in tens of
milliseconds and charges for each. The copy lies in `ASYNCPATCH_DATA` (or the user's cache), under a name made of the
address and of the names and sizes of all objects: a bucket that changed is copied anew.

Invariant: a copy that is found under its name is whole.
"""

import hashlib
import json
import logging
import os
import shutil
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from asyncpatch.places import Place, copy_file, files_below, place

LOGGER = logging.getLogger(__name__)

SWITCH = "ASYNCPATCH_DATA"
"""The environment variable that names the folder for copies."""

COPIES_AT_ONCE = 16


def staged(folder: str) -> Path:
    """The folder itself or, if it is in a bucket, its copy. Raises `FileNotFoundError` if there is nothing at all."""
    where = place(folder)
    if isinstance(where, Path):
        return where
    if not where.is_dir():
        raise FileNotFoundError(f"there is nothing at {folder}; check the address")
    files = list(files_below(where))
    listing = [(str(path.relative_to(where)), _size(path)) for path in files]
    digest = hashlib.sha256(json.dumps([str(where), listing]).encode()).hexdigest()[:16]
    target = _copies() / f"{where.name}-{digest}"
    if target.is_dir():
        return target
    total = sum(size for _, size in listing)
    LOGGER.warning("copying %s (%d files, %.3g GB) to %s", folder, len(files), total / 1e9, target)
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        with ThreadPoolExecutor(COPIES_AT_ONCE) as pool:
            list(pool.map(lambda path: copy_file(path, partial / path.relative_to(where)), files))
        if not target.is_dir():  # another process may have been quicker
            partial.rename(target)
    except OSError as error:
        if not target.is_dir():
            raise OSError(
                f"cannot copy {folder} ({total:,} bytes) to {target} ({error}); name a folder with room in {SWITCH}"
            ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _copies() -> Path:
    chosen = os.environ.get(SWITCH, "")
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "asyncpatch" / "data"


def _size(path: Place) -> int:
    status = path.stat()
    return status.st_size if isinstance(status, os.stat_result) else status.length
