"""Places: folders and files of this machine, or of a bucket (`gs://bucket/name`).

A path of this machine is a `pathlib.Path`; an address with a scheme is an `epath.Path`, the library that Orbax goes
through, with the same methods. What a bucket lacks is written here once: objects are written whole and neither
appended to nor renamed, and folders are there when something lies in them.

Invariant: `replace_bytes` leaves the old content or the new one, whatever happens meanwhile.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from etils import epath

Place = Path | epath.Path

UNFINISHED = ".unfinished"
"""The end of the name of a file that is being written."""

CHUNK = 2**24
"""Bytes copied at a time."""


def place(where: str | Path | epath.Path) -> Place:
    """The absolute path of a place.

    Raises `ValueError` for an address that has been through `pathlib.Path`, which takes a slash from it.
    """
    if isinstance(where, epath.Path) or "://" in str(where):
        return epath.Path(where)
    if str(where).split("/")[0] in ("gs:", "s3:"):
        raise ValueError(f"{where} is an address that has lost a slash in a pathlib.Path; give it as a string")
    return Path(where).resolve()


def in_bucket(where: Place) -> bool:
    """Whether it lies in a bucket and not in a file system of this machine."""
    return not isinstance(where, Path)


def writable_folder(folder: str | Place) -> Place:
    """Make a folder for output and prove that it can be written to. Raises `OSError` if it cannot."""
    folder = place(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if isinstance(folder, Path):
            with tempfile.TemporaryFile(dir=folder):
                pass
        else:
            probe = folder / f"probe-{os.getpid()}{UNFINISHED}"
            probe.write_bytes(b"")
            probe.unlink()
    except ImportError as error:
        raise OSError(f"{folder} is in a bucket: pip install 'asyncpatch[bucket]' ({error})") from error
    except Exception as error:  # A bucket's library has errors of its own.
        raise OSError(
            f"cannot write to the output folder {folder} ({error}); give a folder that you can write to"
        ) from error
    return folder


def replace_bytes(path: Place, content: bytes) -> None:
    """Write a file whole or not at all."""
    if not isinstance(path, Path):
        path.write_bytes(content)  # an object appears when all of it is there
        return
    unfinished = path.with_name(path.name + UNFINISHED)
    try:
        unfinished.write_bytes(content)
        os.replace(unfinished, path)
    except OSError:
        unfinished.unlink(missing_ok=True)  # on a full disk it takes the room of what is to come
        raise


def files_below(folder: Place) -> Iterator[Place]:
    """All files in a folder, at any depth."""
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            yield from files_below(path)
        else:
            yield path


def copy_file(source: Place, target: Place) -> None:
    """Copy a file between any two places."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as reading, target.open("wb") as writing:
        shutil.copyfileobj(reading, writing, CHUNK)


def move_folder(source: Place, target: Place) -> None:
    """Give a folder another name. In a bucket that is a copy, and the old name goes when all of it is made."""
    if isinstance(source, Path):
        source.rename(target)
        return
    if not source.is_dir():
        copy_file(source, target)
        source.unlink()
        return
    for path in files_below(source):
        copy_file(path, target / path.relative_to(source))
    source.rmtree()
