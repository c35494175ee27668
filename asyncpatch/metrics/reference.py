"""Reference statistics: what the real images' features look like, measured once and kept in a file.

A file says of which images (the hash of their pixels, and their count), by which network (its name and the hash
of its weights) and after which preprocessing. Whoever loads one says what they expect, and anything else is an
error: a Frechet distance to the wrong reference is a number like any other.
"""

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from asyncpatch.data import to_uint8
from asyncpatch.metrics.archive import DamagedFileError, read_archive, write_archive
from asyncpatch.metrics.base import AbstractFeatureNetwork, NetworkIdentity
from asyncpatch.metrics.features import Images, check_images
from asyncpatch.metrics.statistics import FeatureStatistics, collect_statistics

KIND = "reference statistics of asyncpatch, version 1"


class DataMismatchError(ValueError):
    """Reference statistics are of other images than expected."""


@dataclasses.dataclass(frozen=True, eq=False)
class Reference:
    """The statistics of real images, and the sha256 of the images."""

    data_hash: str
    statistics: FeatureStatistics


def measure_reference(network: AbstractFeatureNetwork, batches: Iterable[Images]) -> Reference:
    """Hash and measure real images in one pass; with several processes, one does it for all.

    Raises `ValueError` for fewer than two images.
    """
    pixels = _PixelHash()
    statistics = collect_statistics(network, pixels.watch(batches))
    if statistics.count < 2:
        raise ValueError(f"a reference needs at least 2 images, got {statistics.count}; give more images")
    return Reference(pixels.hexdigest(), statistics)


def hash_images(batches: Iterable[Images]) -> str:
    """The sha256 of the images' shape and their 8-bit pixels in order, however they are dealt to batches."""
    pixels = _PixelHash()
    for _ in pixels.watch(batches):
        pass
    return pixels.hexdigest()


def save_reference(path: Path, reference: Reference) -> None:
    """Write the file, or replace it whole."""
    statistics = reference.statistics
    description = {
        "data_hash": reference.data_hash,
        "count": statistics.count,
        "network": dataclasses.asdict(statistics.network),
    }
    write_archive(path, KIND, description, {"mean": statistics.mean, "scatter": statistics.scatter})


def load_reference(path: Path, network: AbstractFeatureNetwork | NetworkIdentity, data_hash: str) -> Reference:
    """The statistics of the images with this hash (`hash_images`, or as published) by this network.

    Raises `NetworkMismatchError`, `DataMismatchError` or `DamagedFileError`.
    """
    reference = _read(path)
    expected = network if isinstance(network, NetworkIdentity) else NetworkIdentity.of(network)
    expected.check_same(reference.statistics.network, "the network in use", f"the reference {path}")
    if reference.data_hash != data_hash:
        raise DataMismatchError(
            f"{path} holds statistics of {reference.statistics.count} images with hash {reference.data_hash}, expected "
            f"the images with hash {data_hash}; give the reference of these images, or measure it again"
        )
    return reference


def _read(path: Path) -> Reference:
    description, arrays = read_archive(path, KIND)
    try:
        network = NetworkIdentity(**description["network"])
        data_hash, count = description["data_hash"], description["count"]
        mean, scatter = arrays["mean"], arrays["scatter"]
    except (KeyError, TypeError) as error:
        raise DamagedFileError(f"{path} lacks a part ({error!r}); measure the reference again") from error
    promised = {"mean": (network.size,), "scatter": (network.size, network.size)}
    for name, array in (("mean", mean), ("scatter", scatter)):
        if array.dtype != np.float64 or array.shape != promised[name] or not np.isfinite(array).all():
            raise DamagedFileError(
                f"{path} must hold a finite {name} in float64 of shape {promised[name]}, got {array.dtype} of shape "
                f"{array.shape} with {(~np.isfinite(array)).sum()} values that are not finite; measure it again"
            )
    return Reference(data_hash, FeatureStatistics(network, count, mean, scatter))


class _PixelHash:
    """Hashes images on their way past."""

    def __init__(self):
        self._sha256 = hashlib.sha256()
        self._shape: tuple[int, ...] | None = None

    def watch(self, batches: Iterable[Images]) -> Iterator[Images]:
        for images in batches:
            check_images(images)
            shape = tuple(images.shape[1:])
            if self._shape is None:
                self._sha256.update(np.asarray(shape, "<i8").tobytes())
                self._shape = shape
            if shape != self._shape:
                raise ValueError(f"images of one data set must have one shape, got {self._shape} and then {shape}")
            self._sha256.update(to_uint8(np.asarray(images, np.float32)).tobytes())
            yield images

    def hexdigest(self) -> str:
        return self._sha256.hexdigest()
