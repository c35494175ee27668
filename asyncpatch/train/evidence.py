"""Damage, or something else: what a failed attempt to read a checkpoint proves.

A checkpoint is proven damaged if every one of its files can be read as bytes and there is still no state to be had from
them. An operating system that refuses a file, a machine without memory and a device that fails prove nothing: the
checkpoint may be whole, and stays where it is.
"""

import errno
import re

import jax

from asyncpatch.files import open_regular
from asyncpatch.places import Place, files_below
from asyncpatch.train.record import GONE, DamageError

GONE_CODES = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR}
"""The numbers of `GONE`."""

CHUNK = 2**24
"""Bytes read at a time."""


def judge(path: Place, error: Exception) -> Exception:
    """The error to report after reading `path` failed with `error`: a `DamageError` if that proves damage."""
    if isinstance(error, DamageError | MemoryError | jax.errors.JaxRuntimeError):
        return error
    if isinstance(error, OSError) and not isinstance(error, GONE):
        return error
    if (refused := refused_by_system(error)) is not None:
        return OSError(refused, f"cannot read the checkpoint {path}: {brief(error)}")
    try:
        _read_all(path)
    except OSError as unreadable:
        return unreadable
    return DamageError(brief(error))


def brief(error: BaseException) -> str:
    """The first line of an error that may run to pages."""
    said = str(error).splitlines()[0][:200] if str(error) else "no message"
    return said if isinstance(error, DamageError) else f"{type(error).__name__}: {said}"


def refused_by_system(error: BaseException | None) -> int | None:
    """The system's error number in what TensorStore reports, unless it is that of a missing file."""
    while error is not None:
        found = re.search(r"os_error_code='(\d+)'", str(error))
        if found is not None and int(found[1]) not in GONE_CODES:
            return int(found[1])
        if "RESOURCE_EXHAUSTED" in str(error):
            return errno.ENOMEM
        error = error.__cause__ or error.__context__
    return None


def _read_all(path: Place) -> None:
    """Read every file below `path`. Raises `OSError` for one that is there and cannot be read."""
    for file in files_below(path):
        try:
            with open_regular(file) as content:
                while content.read(CHUNK):
                    pass
        except (*GONE, ValueError):
            continue  # a link to nothing, or a pipe: no file of a checkpoint
