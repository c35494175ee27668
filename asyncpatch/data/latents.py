"""Latents as data: images that an autoencoder has encoded once, as a source of unit variance.

A network sees `(latent - mean) / spread`, channel by channel, of mean 0 and variance 1 over the images that it is
trained on, as noise has. Mean and spread are part of the source, and so of a run's config: its samples can be decoded
without the data, and latents that are held out are scaled as those trained on are.

Invariant: a source names the autoencoder by the digest of its file, and opens no latents of another one.
"""

import dataclasses
from pathlib import Path

import grain
import numpy as np
from jaxtyping import Array, Float

from asyncpatch.data.array_records import open_shards
from asyncpatch.data.base import AbstractRecords, AbstractSource, Record
from asyncpatch.data.latent_format import LatentSidecar, check_digest, check_per_channel, decode_latent
from asyncpatch.data.record_format import shard_names

DIGITS_SHOWN = 12
"""Of a digest, in an error."""


@dataclasses.dataclass(frozen=True)
class LatentScale:
    """Between latents as an autoencoder knows them and those of unit variance, a number for each channel."""

    mean: tuple[float, ...]
    spread: tuple[float, ...]

    def __post_init__(self):
        check_per_channel("mean", self.mean)
        check_per_channel("spread", self.spread, len(self.mean))
        if min(self.spread) <= 0:
            raise ValueError(f"spread must be above 0 in every channel, got {self.spread}; give standard deviations")

    def to_unit(self, latents: Float[np.ndarray | Array, "*shape"]) -> Float[np.ndarray | Array, "*shape"]:
        """An encoder's latents, channels last, as a network sees them."""
        return (latents - np.asarray(self.mean, latents.dtype)) / np.asarray(self.spread, latents.dtype)

    def from_unit(self, latents: Float[np.ndarray | Array, "*shape"]) -> Float[np.ndarray | Array, "*shape"]:
        """The inverse, up to rounding."""
        return latents * np.asarray(self.spread, latents.dtype) + np.asarray(self.mean, latents.dtype)


@dataclasses.dataclass(frozen=True)
class Latents(AbstractSource):
    """A folder that `write_latents` wrote with the autoencoder whose file has this SHA-256."""

    folder: str
    autoencoder: str
    scale: LatentScale

    def __post_init__(self):
        check_digest("autoencoder", self.autoencoder)

    def open(self) -> "LatentRecords":
        sidecar = _read_sidecar(self.folder, self.autoencoder)
        check_per_channel("the mean of the scale", self.scale.mean, sidecar.shape[2])
        shards = open_shards([str(Path(self.folder) / name) for name in shard_names(sidecar.shards)])
        if len(shards) != sidecar.count:
            raise ValueError(
                f"the shards in {self.folder} hold {len(shards)} records, but its dataset.json says {sidecar.count}; "
                "they do not belong together: encode the images again"
            )
        return LatentRecords(sidecar.shape, sidecar.class_names, self.folder, sidecar.stored, self.scale, shards)


def latents_in(folder: str | Path, autoencoder: str) -> Latents:
    """The latents to train on: those in `folder`, scaled to unit variance. Raises `ValueError` if another autoencoder
    made them."""
    sidecar = _read_sidecar(str(folder), autoencoder)
    return Latents(str(folder), autoencoder, LatentScale(sidecar.mean, sidecar.spread))


@dataclasses.dataclass(frozen=True, eq=False)
class LatentRecords(AbstractRecords):
    """Latents in the shards of a folder, scaled."""

    folder: str
    stored: str
    scale: LatentScale
    shards: grain.sources.ArrayRecordDataSource = dataclasses.field(repr=False)

    def __len__(self) -> int:
        return len(self.shards)

    def __getitem__(self, index: int) -> Record:
        try:
            record = decode_latent(self.shards[index], self.stored)
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"record {index} in {self.folder} is damaged ({error}); encode it again") from error
        shape, label = record["image"].shape, int(record["label"])
        if shape != self.shape or not 0 <= label < len(self.class_names):
            raise ValueError(
                f"record {index} in {self.folder} has shape {shape} and label {label}, but its dataset.json says "
                f"{self.shape} and {len(self.class_names)} classes; encode the images again"
            )
        return {"image": np.asarray(self.scale.to_unit(record["image"])), "label": record["label"]}


def _read_sidecar(folder: str, autoencoder: str) -> LatentSidecar:
    sidecar = LatentSidecar.read(Path(folder))
    if sidecar.autoencoder != autoencoder:
        raise ValueError(
            f"the latents in {folder} were made by the autoencoder {sidecar.autoencoder[:DIGITS_SHOWN]}..., and those "
            f"of {autoencoder[:DIGITS_SHOWN]}... are wanted; encode the images with it, or give the latents it made"
        )
    return sidecar
