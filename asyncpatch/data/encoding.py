"""A data set encoded once: any source of images to a folder of latents.

Images are encoded many at a time, in one compiled program; the last batch is filled up. Mean and spread of each channel
are taken on the way, in float64, of the values as they are stored.

Invariant: records keep the order of their source, and a folder under its final name is complete.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64

from asyncpatch.data.base import AbstractRecords, AbstractSource
from asyncpatch.data.convert import check_shards, new_folder, write_shards
from asyncpatch.data.latent_format import STORED_TYPES, LatentSidecar, check_digest, encode_latent
from asyncpatch.data.record_format import shard_names
from asyncpatch.data.transforms import to_float
from asyncpatch.shapes import Image

CONSTANT = 1e-6
"""A channel whose standard deviation is less, as a share of the largest value of its mean or of any deviation, is
constant up to rounding: what is left of it is not blown up."""

AT_ONCE = 32
"""Images that are encoded together."""


@dataclasses.dataclass(frozen=True, eq=False)
class Encoder:
    """What makes latents of whole images: a function of one image in [-1, 1], and a SHA-256 of its weights
    (`asyncpatch.nn.fingerprint_of` gives one)."""

    encode: Callable[[Image], Float[Array, "rows cols features"]]
    autoencoder: str

    def __post_init__(self):
        check_digest("autoencoder", self.autoencoder)


def write_latents(
    source: AbstractSource,
    encoder: Encoder,
    folder: str | Path,
    stored: Literal["float16", "float32"] = "float16",
    shards: int = 1,
) -> None:
    """Encode all images of `source`, in order, to the new folder `folder`, in `shards` files of equal length.

    The folder gets its name when it is complete: a run that fails leaves nothing under that name. Raises `ValueError`
    for a source that holds latents, and for latents that are not finite in the type that is stored.
    """
    with new_folder(folder) as partial:
        records = source.open()
        if records[0]["image"].dtype != np.uint8:
            raise ValueError(f"{type(source).__name__} holds latents already; give the images they were made of")
        check_shards(shards, len(records))
        seen = _Seen()
        write_shards(
            _encoded(records, encoder, stored, seen),
            len(records),
            [str(partial / name) for name in shard_names(shards)],
        )
        sidecar = LatentSidecar(
            count=len(records),
            shape=seen.shape,
            class_names=records.class_names,
            shards=shards,
            stored=stored,
            autoencoder=encoder.autoencoder,
            images=seen.images.hexdigest(),
            mean=tuple(seen.mean.tolist()),
            spread=tuple(seen.spread().tolist()),
        )
        sidecar.write(partial)


class _Seen:
    """What is kept of all that went by: a digest of the images, and the channels' moments, merged batch by batch."""

    def __init__(self):
        self.images = hashlib.sha256()
        self.shape = (0, 0, 0)
        self.count = 0
        self.mean: Float64[np.ndarray, " channel"] = np.zeros(0)
        self.squares: Float64[np.ndarray, " channel"] = np.zeros(0)

    def spread(self) -> Float64[np.ndarray, " channel"]:
        """Standard deviations; 1 for a channel that is constant."""
        deviation = np.sqrt(self.squares / self.count)
        return np.where(deviation > CONSTANT * np.maximum(np.abs(self.mean), deviation.max()), deviation, 1.0)

    def add(self, latents: Float64[np.ndarray, "batch height width channel"]) -> None:
        """Source of the merge: Chan, Golub and LeVeque, 1983."""
        values = latents.reshape(-1, latents.shape[-1])
        count, mean = len(values), values.mean(0)
        squares = ((values - mean) ** 2).sum(0)
        if not self.count:
            self.shape = latents.shape[1:]
            self.mean, self.squares = np.zeros_like(mean), np.zeros_like(mean)
        total, apart = self.count + count, mean - self.mean
        self.squares = self.squares + squares + apart**2 * (self.count * count / total)
        self.mean = self.mean + apart * (count / total)
        self.count = total


def _encoded(records: AbstractRecords, encoder: Encoder, stored: str, seen: _Seen) -> Iterator[bytes]:
    encode = jax.jit(partial(jax.lax.map, encoder.encode, batch_size=AT_ONCE))
    for start in range(0, len(records), AT_ONCE):
        batch = [records[i] for i in range(start, min(start + AT_ONCE, len(records)))]
        pixels = np.stack([record["image"] for record in batch])
        labels = [int(record["label"]) for record in batch]
        seen.images.update(pixels.tobytes() + np.asarray(labels, "<i4").tobytes())
        filled = np.concatenate([pixels, np.repeat(pixels[-1:], AT_ONCE - len(pixels), axis=0)])
        latents = np.asarray(encode(jnp.asarray(to_float(filled))), np.float32)[: len(pixels)]
        contents = [encode_latent(latent, label, stored) for latent, label in zip(latents, labels, strict=True)]
        seen.add(latents.astype(STORED_TYPES[stored]).astype(np.float64))
        yield from contents
