"""How a folder of ArrayRecord files is laid out, down to the byte.

A folder holds `dataset.json` (format, version, count, shape, class names, number of shards) and the shards. A
record is a little-endian header (`b"APR1"`, label as int32, height, width and channel as uint16) and the pixels
as uint8, row by row. Nothing is pickled, so a folder from a stranger is safe to open.

Invariant: `decode_record(encode_record(r))` is `r` to the bit, and a record has only one encoding.
"""

import dataclasses
import json
import math
import struct
from pathlib import Path

import numpy as np

from asyncpatch.data.base import Record

FORMAT = "asyncpatch-records"
VERSION = 1
SIDECAR = "dataset.json"
RECORD_TAG = b"APR1"
RECORD_HEADER = struct.Struct("<4siHHH")


def encode_record(record: Record) -> bytes:
    """The bytes that stand for a record."""
    header = RECORD_HEADER.pack(RECORD_TAG, int(record["label"]), *record["image"].shape)
    return header + record["image"].tobytes()


def decode_record(content: bytes) -> Record:
    """The inverse of `encode_record`. Raises `ValueError` on bytes that it did not write."""
    if len(content) < RECORD_HEADER.size or not content.startswith(RECORD_TAG):
        raise ValueError(f"a record begins with {RECORD_TAG!r}, got {content[: len(RECORD_TAG)]!r}")
    _, label, *shape = RECORD_HEADER.unpack_from(content)
    pixels = np.frombuffer(content, np.uint8, offset=RECORD_HEADER.size)
    if len(pixels) != math.prod(shape):
        raise ValueError(f"a record of shape {tuple(shape)} takes {math.prod(shape)} pixels, got {len(pixels)}")
    return {"image": pixels.reshape(shape), "label": np.asarray(label, np.int32)}


def shard_names(shards: int) -> list[str]:
    """File names of the shards, in the order of their records."""
    return [f"records-{shard:05d}-of-{shards:05d}.array_record" for shard in range(shards)]


@dataclasses.dataclass(frozen=True)
class Sidecar:
    """What `dataset.json` says of the records beside it."""

    count: int
    shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    shards: int

    def write(self, folder: Path) -> None:
        """Write it into `folder`."""
        content = {"format": FORMAT, "version": VERSION, **dataclasses.asdict(self)}
        (folder / SIDECAR).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "Sidecar":
        """Read it from `folder`. Raises on a folder that is not ours."""
        path = folder / SIDECAR
        if not path.is_file():
            raise FileNotFoundError(f"no {SIDECAR} in {folder}; give a folder that write_array_records wrote")
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            found = content["format"], content["version"]
            height, width, channel = map(int, content["shape"])
            names = tuple(map(str, content["class_names"]))
            sidecar = cls(int(content["count"]), (height, width, channel), names, int(content["shards"]))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} was not written by write_array_records ({error!r}); write it again") from error
        if found != (FORMAT, VERSION):
            raise ValueError(
                f"{path} has format and version {found}, this release reads {(FORMAT, VERSION)}; "
                "convert the images again with this release"
            )
        return sidecar
