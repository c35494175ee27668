"""A feature network that needs no weights from elsewhere, and real images for it."""

import hashlib
from collections.abc import Iterator

import jax
import numpy as np
from jaxtyping import Array, Float

from asyncpatch.data import Digits, to_float
from asyncpatch.metrics import AbstractFeatureNetwork, Features, NetworkIdentity

RECORDS = Digits().open()
DIGITS = to_float(RECORDS.images)
LABELS = RECORDS.labels


class Projection(AbstractFeatureNetwork):
    """The positive part of a fixed random projection of the pixels, with names that a test may choose."""

    weights: Float[Array | np.ndarray, "pixels features"]
    name: str
    preprocessing: str = "none"

    @classmethod
    def draw(cls, size: int, pixels: int = 64, name: str = "Projection") -> "Projection":
        weights = np.random.default_rng(0).normal(size=(pixels, size)) / np.sqrt(pixels)
        return cls(weights.astype(np.float32), name)

    @property
    def hash(self) -> str:
        return hashlib.sha256(np.asarray(self.weights).tobytes()).hexdigest()

    @property
    def size(self) -> int:
        return self.weights.shape[1]

    def __call__(self, images: Float[Array, "batch height width channel"]) -> Float[Array, "batch features"]:
        return jax.nn.relu(images.reshape(len(images), -1) @ self.weights)


def in_batches(images: np.ndarray, length: int) -> Iterator[np.ndarray]:
    """The images in order, `length` at a time, the rest last."""
    return (images[first : first + length] for first in range(0, len(images), length))


def features_of(values: np.ndarray) -> Features:
    """Any numbers as the features of a network of their size."""
    return Features(NetworkIdentity("any", "0" * 64, "none", values.shape[1]), np.asarray(values, np.float64))
