"""IDX files, the format of MNIST and Fashion-MNIST: grey images in one file, labels in another, gzipped or not.

A file is four bytes (0, 0, element type, number of axes), the length of each axis as a big-endian uint32, and
then the elements. Type 8 is uint8, so images begin with 0x00000803 and labels with 0x00000801.

Invariant: a file that is opened holds exactly as many bytes as its header promises; a gzipped file expands to no more
than these, and to no more than `asyncpatch.files.MAX_EXPANDED`.
"""

import dataclasses
import gzip
import io
import math
import os
import struct
import zlib
from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8

from asyncpatch.data.base import AbstractSource, InMemoryRecords
from asyncpatch.files import check_expanded, open_regular
from asyncpatch.places import Place, place

IMAGES_MAGIC = 0x00000803
LABELS_MAGIC = 0x00000801
GZIP_MAGIC = b"\x1f\x8b"
DEFLATE_RATIO = 1032
"""How many bytes one byte of a gzip file stands for at most."""


@dataclasses.dataclass(frozen=True)
class IdxFiles(AbstractSource):
    """Grey images and their labels in a pair of IDX files, such as `train-images-idx3-ubyte.gz` and its labels."""

    images: str
    labels: str

    def open(self) -> InMemoryRecords:
        images = read_idx(place(self.images), IMAGES_MAGIC)
        labels = read_idx(place(self.labels), LABELS_MAGIC)
        if len(images) != len(labels):
            raise ValueError(
                f"{self.images} holds {len(images)} images but {self.labels} holds {len(labels)} labels; "
                "give two files of the same part of the data set"
            )
        return InMemoryRecords(
            shape=(images.shape[1], images.shape[2], 1),
            class_names=tuple(str(label) for label in range(int(labels.max()) + 1)),
            images=images[..., None],
            labels=labels.astype(np.int32),
        )


def read_idx(path: Place, magic: int) -> UInt8[np.ndarray, "..."]:
    """The uint8 array in an IDX file that must begin with `magic`. Raises `ValueError` on a damaged or wrong file."""
    if not path.exists():
        raise FileNotFoundError(f"no IDX file at {path}; check the path")
    with open_regular(path) as file:
        stored = file.seek(0, os.SEEK_END)
        file.seek(0)
        zipped = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
        file.seek(0)
        if not zipped:
            return _read(path, file, magic, lambda expanded: min(expanded, stored))
        try:
            with gzip.GzipFile(fileobj=file) as content:
                return _read(path, content, magic, lambda expanded: _allowed(path, expanded, stored))
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{path} is a damaged or cut gzip file ({error}); fetch it again") from error


def _allowed(path: Place, expanded: int, stored: int) -> int:
    if expanded > DEFLATE_RATIO * stored:
        raise ValueError(
            f"{path} is a damaged or cut gzip file (its header promises {expanded:,} bytes, which no gzip file of "
            f"{stored:,} bytes can hold); fetch it again"
        )
    check_expanded(path, expanded, stored)
    return expanded


def _read(path: Place, file: io.BufferedIOBase, magic: int, allowed: Callable[[int], int]) -> UInt8[np.ndarray, "..."]:
    """`allowed` says how many of the bytes that the header promises may be asked for, or raises."""
    axes = magic & 0xFF
    header = struct.Struct(f">I{axes}I")
    start = file.read(header.size)
    if len(start) < header.size:
        raise ValueError(f"{path} is cut: an IDX header takes {header.size} bytes, got {len(start)}; fetch it again")
    found, *shape = header.unpack(start)
    if found != magic:
        raise ValueError(
            f"{path} begins with 0x{found:08x}, expected 0x{magic:08x}; images begin with 0x{IMAGES_MAGIC:08x} and "
            f"labels with 0x{LABELS_MAGIC:08x}: check that the file is IDX and that the two are not swapped"
        )
    promised = math.prod(shape)
    values = np.empty(allowed(promised), np.uint8)
    count = 0
    while count < len(values) and (more := file.readinto(values.data[count:])):
        count += more
    count += len(file.read(1))  # so that what follows the array is seen, and a checksum is compared
    if count != promised:
        raise ValueError(
            f"{path} should hold {promised} bytes for its shape {tuple(shape)}, "
            f"got {count}{' or more' if count > promised else ''}; fetch it again"
        )
    if 0 in shape:
        raise ValueError(f"{path} holds no data: its shape is {tuple(shape)}; give a file with at least one element")
    return values.reshape(shape)
