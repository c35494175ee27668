"""Files of named arrays with a JSON description: one npz, no pickle, so that a stranger's file is safe to open.

Invariant: a file under its final name is complete. It is written beside it and renamed.
"""

import json
import os
import uuid
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from asyncpatch.files import open_regular, read_npz

DESCRIPTION = "description"
"""Holds the JSON as bytes, beside the arrays."""


class DamagedFileError(ValueError):
    """A file is cut, is of another kind, or does not hold what it promises."""


def write_archive(path: Path, kind: str, description: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write or replace the file at `path`. With several processes, one writes for all."""
    text = json.dumps({"kind": kind, **description}, indent=1)
    replacement = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    try:
        with replacement.open("xb") as file:
            np.savez(file, allow_pickle=False, **{DESCRIPTION: np.frombuffer(text.encode(), np.uint8)}, **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(replacement, path)
    finally:
        replacement.unlink(missing_ok=True)


def read_archive(path: Path, kind: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The description and the arrays of a file. Raises `DamagedFileError` unless it is whole and of this kind."""
    if not path.is_file():
        raise FileNotFoundError(f"no {kind} at {path}; check the path, or make the file first")
    try:
        with open_regular(path) as file:
            arrays = read_npz(path, file)
        description = json.loads(arrays.pop(DESCRIPTION).tobytes())
        found = description.pop("kind")
    except (AttributeError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise DamagedFileError(
            f"{path} is no {kind}, or is damaged or cut ({error!r}); fetch or make it again"
        ) from error
    if found != kind:
        raise DamagedFileError(f"{path} holds {found!r}, expected {kind!r}; check the path")
    return description, arrays
