"""IDX files, the format of MNIST and Fashion-MNIST: grey images in one file, labels in another, gzipped or not.

A file is four bytes (0, 0, element type, number of axes), the length of each axis as a big-endian uint32, and
then the elements. Type 8 is uint8, so images begin with 0x00000803 and labels with 0x00000801.

Invariant: a file that is opened holds exactly as many bytes as its header promises.
"""

import dataclasses
import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from asyncpatch.data.base import AbstractSource, InMemoryRecords

IMAGES_MAGIC = 0x00000803
LABELS_MAGIC = 0x00000801
GZIP_MAGIC = b"\x1f\x8b"


@dataclasses.dataclass(frozen=True)
class IdxFiles(AbstractSource):
    """Grey images and their labels in a pair of IDX files, such as `train-images-idx3-ubyte.gz` and its labels."""

    images: str
    labels: str

    def open(self) -> InMemoryRecords:
        images = read_idx(Path(self.images), IMAGES_MAGIC)
        labels = read_idx(Path(self.labels), LABELS_MAGIC)
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


def read_idx(path: Path, magic: int) -> UInt8[np.ndarray, "..."]:
    """The uint8 array in an IDX file that must begin with `magic`. Raises `ValueError` on a damaged or wrong file."""
    content = _read_bytes(path)
    axes = magic & 0xFF
    header = struct.Struct(f">I{axes}I")
    if len(content) < header.size:
        raise ValueError(f"{path} is cut: an IDX header takes {header.size} bytes, got {len(content)}; fetch it again")
    found, *shape = header.unpack_from(content)
    if found != magic:
        raise ValueError(
            f"{path} begins with 0x{found:08x}, expected 0x{magic:08x}; images begin with 0x{IMAGES_MAGIC:08x} and "
            f"labels with 0x{LABELS_MAGIC:08x}: check that the file is IDX and that the two are not swapped"
        )
    if len(content) - header.size != math.prod(shape):
        raise ValueError(
            f"{path} should hold {math.prod(shape)} bytes for its shape {tuple(shape)}, "
            f"got {len(content) - header.size}; fetch it again"
        )
    if 0 in shape:
        raise ValueError(f"{path} holds no data: its shape is {tuple(shape)}; give a file with at least one element")
    return np.frombuffer(content, np.uint8, offset=header.size).reshape(shape)


def _read_bytes(path: Path) -> bytes:
    if not path.is_file():
        raise FileNotFoundError(f"no IDX file at {path}; check the path")
    content = path.read_bytes()
    if not content.startswith(GZIP_MAGIC):
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is a damaged or cut gzip file ({error}); fetch it again") from error
