"""Latents as data: images that an autoencoder has encoded once, as a source of unit variance.

A network sees `(latent - mean) / spread`, channel by channel, of mean 0 and variance 1 over the images that it is
trained on, as noise has. Mean and spread are part of the source, and so of a run's config: its samples can be decoded
without the data, and latents that are held out are scaled as those trained on are.

Invariant: a source names the autoencoder by a digest of its weights, and opens no latents of another one.
"""

import dataclasses
from pathlib import Path

import grain
import numpy as np
from jaxtyping import Array, Float

from asyncpatch.data.array_records import open_shards
from asyncpatch.data.base import AbstractRecords, AbstractSource, Record
from asyncpatch.data.folds import Folds
from asyncpatch.data.latent_format import LatentSidecar, check_digest, check_moments, decode_latent
from asyncpatch.data.record_format import shard_names
from asyncpatch.data.staged import staged

DIGITS_SHOWN = 12
"""Of a digest, in an error."""


@dataclasses.dataclass(frozen=True)
class LatentScale:
    """Between latents as an autoencoder knows them and those of unit variance, a number for each channel."""

    mean: tuple[float, ...]
    spread: tuple[float, ...]

    def __post_init__(self):
        check_moments(self.mean, self.spread)

    def to_unit(self, latents: Float[np.ndarray | Array, "*shape"]) -> Float[np.ndarray | Array, "*shape"]:
        """An encoder's latents, channels last, as a network sees them."""
        return (latents - _along(self.mean, latents)) / _along(self.spread, latents)

    def from_unit(self, latents: Float[np.ndarray | Array, "*shape"]) -> Float[np.ndarray | Array, "*shape"]:
        """The inverse, up to rounding."""
        return latents * _along(self.spread, latents) + _along(self.mean, latents)


def _along(values: tuple[float, ...], latents: np.ndarray | Array) -> np.ndarray:
    """A number for each channel, of the type of `latents`, with as many axes."""
    return np.asarray(values, latents.dtype).reshape((1,) * (latents.ndim - 1) + (-1,))


@dataclasses.dataclass(frozen=True)
class Latents(AbstractSource):
    """A folder that `write_latents` wrote, of the autoencoder whose weights have this SHA-256; one in a bucket is
    copied first (`staged`)."""

    folder: str
    autoencoder: str
    scale: LatentScale

    def __post_init__(self):
        check_digest("autoencoder", self.autoencoder)

    def open(self) -> "LatentRecords":
        folder = staged(self.folder)
        sidecar = _read_sidecar(folder, self.folder, self.autoencoder)
        if len(self.scale.mean) != sidecar.shape[2]:
            raise ValueError(
                f"the scale has {len(self.scale.mean)} channels, the latents in {self.folder} have {sidecar.shape[2]}; "
                "give the scale of latents of this autoencoder, as latents_in reads it"
            )
        shards = open_shards([str(folder / name) for name in shard_names(sidecar.shards)])
        if len(shards) != sidecar.count:
            raise ValueError(
                f"the shards in {self.folder} hold {len(shards)} records, but its dataset.json says {sidecar.count}; "
                "they do not belong together: encode the images again"
            )
        return LatentRecords(sidecar.shape, sidecar.class_names, self.folder, sidecar.stored, self.scale, shards)


def latents_in(folder: str | Path, autoencoder: str) -> Latents:
    """The latents to train on: those in `folder`, scaled to unit variance. Raises `ValueError` if another autoencoder
    made them."""
    sidecar = _read_sidecar(staged(str(folder)), str(folder), autoencoder)
    return Latents(str(folder), autoencoder, LatentScale(sidecar.mean, sidecar.spread))


def latents_of(source: AbstractSource) -> Latents | None:
    """The latents that a source, or the one that it holds folds of, consists of; None for one of pixels."""
    if isinstance(source, Folds):
        return latents_of(source.source)
    return source if isinstance(source, Latents) else None


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


def _read_sidecar(there: Path, folder: str, autoencoder: str) -> LatentSidecar:
    sidecar = LatentSidecar.read(there)
    if sidecar.autoencoder != autoencoder:
        raise ValueError(
            f"the latents in {folder} were made by the autoencoder {sidecar.autoencoder[:DIGITS_SHOWN]}..., and those "
            f"of {autoencoder[:DIGITS_SHOWN]}... are wanted; encode the images with it, or give the latents it made"
        )
    return sidecar
