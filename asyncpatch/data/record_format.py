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
from typing import Any

import numpy as np

from asyncpatch.data.base import Record
from asyncpatch.files import open_regular

FORMAT = "asyncpatch-records"
VERSION = 1
WRITERS = {FORMAT: "write_array_records", "asyncpatch-latents": "write_latents"}
"""What writes a folder of a format."""

SIDECAR = "dataset.json"
RECORD_TAG = b"APR1"
RECORD_HEADER = struct.Struct("<4siHHH")
MAX_SIDE = 2**16 - 1
"""What the header of a record has room for."""
MAX_SHARDS = 99_999
"""What the five digits in the name of a shard can say."""
MAX_SIDECAR = 2**26
"""Bytes of a sidecar: a million classes with long names."""


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

    def __post_init__(self):
        check_fields(self.count, self.shape, self.class_names, self.shards)

    def write(self, folder: Path) -> None:
        """Write it into `folder`."""
        content = {"format": FORMAT, "version": VERSION, **dataclasses.asdict(self)}
        (folder / SIDECAR).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "Sidecar":
        """Read it from `folder`. Raises on a folder that is not ours."""
        given = read_json(folder, (FORMAT, VERSION), tuple(field.name for field in dataclasses.fields(cls)))
        try:
            fields: Any = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
            check_fields(**fields)
            return cls(**fields)
        except ValueError as error:
            raise ValueError(f"{folder / SIDECAR} is damaged: {error}; convert the images again") from error


def read_json(folder: Path, form: tuple[str, int], names: tuple[str, ...]) -> dict[str, Any]:
    """These fields of the `dataset.json` in `folder`, which must be of this format and version."""
    path = folder / SIDECAR
    if not path.is_file():
        raise FileNotFoundError(f"no {SIDECAR} in {folder}; give a folder that {WRITERS[form[0]]} wrote")
    with open_regular(path) as file:
        text = file.read(MAX_SIDECAR + 1)
    if len(text) > MAX_SIDECAR:
        raise ValueError(f"{path} is larger than {MAX_SIDECAR:,} bytes; it is damaged: convert the images again")
    try:
        content = json.loads(text)
        found = content["format"], content["version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} was not written by {WRITERS[form[0]]} ({error!r}); write it again") from error
    if found != form:
        raise ValueError(
            f"{path} has format and version {found}, this release reads {form} here; latents are opened by Latents, "
            "images by ArrayRecords, and what another release wrote is converted again"
        )
    try:
        return {name: content[name] for name in names}
    except KeyError as error:
        raise ValueError(f"{path} was not written by {WRITERS[form[0]]} ({error!r}); write it again") from error


def check_fields(count: object, shape: object, class_names: object, shards: object) -> None:
    """Raise `ValueError` for what no sidecar says, whatever its type: the fields come from a file."""
    _check_whole("count", count, 1, None)
    _check_whole("shards", shards, 1, MAX_SHARDS)
    if not isinstance(shape, tuple) or len(shape) != 3:
        raise ValueError(f"shape must be three numbers (height, width, channel), got {shape!r:.80}")
    for side in shape:
        _check_whole("shape", side, 1, MAX_SIDE)
    names = class_names if isinstance(class_names, tuple) else ()
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"class_names must be a list of one string or more, got {class_names!r:.80}")


def _check_whole(name: str, value: object, least: int, most: int | None) -> None:
    """Raise `ValueError` unless a number of the sidecar is whole and in its range. A boolean is no number."""
    if type(value) is not int or value < least or (most is not None and value > most):
        upto = "or more" if most is None else f"to {most:,}"
        raise ValueError(f"{name} must hold whole numbers, {least} {upto}, got {value!r:.80}")
