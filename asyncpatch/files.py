"""Opening files that others made: regular files alone, and no more memory than the file has a claim to.

A path may lead to a pipe, which blocks whoever opens it, or to a device without end. A compressed file of a few
kilobytes may stand for terabytes. Invariant: what is read from a compressed file is at most `MAX_EXPANDED` bytes, or
the size of the file itself if that is larger, and this is checked before anything is expanded or allocated.
"""

import io
import math
import os
import stat
import zipfile
from pathlib import Path

import numpy as np

from asyncpatch.places import Place, in_bucket

MAX_EXPANDED = 2**30
"""Bytes that a compressed file may stand for: EMNIST's largest part has half of it."""


def open_regular(path: str | Place) -> io.BufferedReader:
    """Open a file to be read. Raises `ValueError` for a pipe, a folder or a device, without waiting for it."""
    if not isinstance(path, str) and in_bucket(path):
        return io.BufferedReader(path.open("rb"))  # type: ignore  (it reads raw; there is nothing but files)
    # Without O_NONBLOCK, opening a pipe would wait for somebody to write into it.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ValueError(f"{path} is a folder, pipe or device; give a regular file")
    return os.fdopen(descriptor, "rb")


def check_expanded(name: str | Place, expanded: int, stored: int) -> None:
    """Raise `ValueError` if a compressed file of `stored` bytes stands for too many."""
    limit = max(MAX_EXPANDED, stored)
    if expanded > limit:
        raise ValueError(
            f"{name} would expand from {stored:,} to {expanded:,} bytes, more than the {limit:,} that a compressed "
            "file may; if that is meant, store it uncompressed"
        )


def check_zip(name: str | Path, archive: zipfile.ZipFile, stored: int) -> None:
    """The same for all members of an archive together. Reading a member stops at the size that is checked here."""
    check_expanded(name, sum(member.file_size for member in archive.infolist()), stored)


def read_npz(name: str | Path, file: io.BufferedIOBase) -> dict[str, np.ndarray]:
    """All arrays of an npz, no pickles. Raises `ValueError` or `zipfile.BadZipFile` for a file that is none."""
    stored = file.seek(0, os.SEEK_END)
    with zipfile.ZipFile(file) as archive:
        check_zip(name, archive, stored)
        return {member.filename.removesuffix(".npy"): _read_npy(archive, member) for member in archive.infolist()}


def _read_npy(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"{member.filename} is an array in format {version}; save it anew with numpy.savez")
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = header(file)
        # NumPy allocates what the header announces before it reads the numbers.
        announced = file.tell() + math.prod(shape) * dtype.itemsize
        if dtype.hasobject or min(shape, default=0) < 0 or announced != member.file_size:
            raise ValueError(
                f"{member.filename} announces {dtype} of shape {shape}, {announced:,} bytes, and has "
                f"{member.file_size:,}; it is damaged"
            )
    with archive.open(member) as file:
        return np.lib.format.read_array(file, allow_pickle=False)
