"""How a folder of latents is laid out, down to the byte.

A folder holds `dataset.json` and shards, as one of images does (`record_format`). A record is a little-endian header
(`b"APL1"`, label as int32, height, width and channel as uint16) and the values, float16 or float32 as `dataset.json`
says, row by row, as the encoder gave them. Beside count, shape and class names, `dataset.json` says by which
autoencoder they were made (a digest of its weights), of which images (a digest of all pixels and labels, in order),
and the mean and the spread of each channel over all of them. Nothing is pickled.

Invariant: decoding gives the values that were encoded, rounded to the type that is stored, to the bit.
"""

import dataclasses
import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from asyncpatch.data.base import Record
from asyncpatch.data.record_format import SIDECAR, check_fields, read_json

FORM = "asyncpatch-latents", 1
"""Format and version."""

RECORD_TAG = b"APL1"
RECORD_HEADER = struct.Struct("<4siHHH")
STORED_TYPES = {"float16": np.dtype("<f2"), "float32": np.dtype("<f4")}
DIGEST_DIGITS = 64


def encode_latent(latent: Float32[np.ndarray, "height width channel"], label: int, stored: str) -> bytes:
    """The bytes that stand for the latents of one image. Raises `ValueError` if they are not finite in that type."""
    with np.errstate(over="ignore"):
        values = latent.astype(STORED_TYPES[stored])
    if not np.isfinite(values).all():
        raise ValueError(f"the latents are not finite as {stored}; check the autoencoder, or store float32")
    return RECORD_HEADER.pack(RECORD_TAG, label, *latent.shape) + values.tobytes()


def decode_latent(content: bytes, stored: str) -> Record:
    """The inverse of `encode_latent`, as float32. Raises `ValueError` on bytes that it did not write."""
    if len(content) < RECORD_HEADER.size or not content.startswith(RECORD_TAG):
        raise ValueError(f"a record begins with {RECORD_TAG!r}, got {content[: len(RECORD_TAG)]!r}")
    _, label, *shape = RECORD_HEADER.unpack_from(content)
    wanted, found = math.prod(shape) * STORED_TYPES[stored].itemsize, len(content) - RECORD_HEADER.size
    if found != wanted:
        raise ValueError(f"a record of shape {tuple(shape)} takes {wanted} bytes as {stored}, got {found}")
    values = np.frombuffer(content, STORED_TYPES[stored], offset=RECORD_HEADER.size)
    return {"image": values.astype(np.float32).reshape(shape), "label": np.asarray(label, np.int32)}


@dataclasses.dataclass(frozen=True)
class LatentSidecar:
    """What `dataset.json` says of the latents beside it."""

    count: int
    shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    shards: int
    stored: str
    autoencoder: str
    """SHA-256 of the autoencoder's weights, in hexadecimal digits."""
    images: str
    """SHA-256 of the pixels and labels that were encoded."""
    mean: tuple[float, ...]
    """Of each channel."""
    spread: tuple[float, ...]
    """Standard deviation of each channel; 1 of a channel that is constant."""

    def __post_init__(self):
        _check_fields(**{field.name: getattr(self, field.name) for field in dataclasses.fields(self)})

    def write(self, folder: Path) -> None:
        """Write it into `folder`."""
        content = {"format": FORM[0], "version": FORM[1], **dataclasses.asdict(self)}
        (folder / SIDECAR).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "LatentSidecar":
        """Read it from `folder`. Raises on a folder that holds no latents."""
        given = read_json(folder, FORM, tuple(field.name for field in dataclasses.fields(cls)))
        fields: Any = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
        try:
            _check_fields(**fields)
            return cls(**fields)
        except ValueError as error:
            raise ValueError(f"{folder / SIDECAR} is damaged: {error}; encode the images again") from error


def _check_fields(
    stored: object, autoencoder: object, images: object, mean: object, spread: object, **others: Any
) -> None:
    """Raise `ValueError` for what no sidecar says, whatever its type: the fields come from a file."""
    check_fields(**others)
    if stored not in tuple(STORED_TYPES):
        raise ValueError(f"stored must be one of {', '.join(STORED_TYPES)}, got {stored!r:.80}")
    check_digest("autoencoder", autoencoder)
    check_digest("images", images)
    check_moments(mean, spread, others["shape"][2])


def check_digest(name: str, value: object) -> None:
    """Raise `ValueError` unless a value is a SHA-256 in hexadecimal digits."""
    if not isinstance(value, str) or len(value) != DIGEST_DIGITS or set(value) - set("0123456789abcdef"):
        raise ValueError(f"{name} must be a SHA-256 of {DIGEST_DIGITS} digits, 0 to 9 and a to f, got {value!r:.80}")


def check_moments(mean: object, spread: object, channels: int | None = None) -> None:
    """Raise `ValueError` unless both hold a finite number for each channel, and those of `spread` are above 0."""
    for name, values in (("mean", mean), ("spread", spread)):
        numbers = values if isinstance(values, tuple) else ()
        if not numbers or not all(isinstance(number, float) and math.isfinite(number) for number in numbers):
            raise ValueError(f"{name} must hold a finite number for each channel, got {values!r:.80}")
        channels = channels or len(numbers)
        if len(numbers) != channels:
            raise ValueError(f"{name} must hold {channels} numbers, one for each channel, got {len(numbers)}")
        if name == "spread" and min(numbers) <= 0:
            raise ValueError(f"spread must be above 0 in every channel, got {numbers}; give standard deviations")
