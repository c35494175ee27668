"""Feature networks, their identity, and what a distance on their features may be called.

Every distance and score of this folder compares features, and a number means something only beside numbers on the
same features. So features and statistics carry the identity of their network wherever they go, two that differ are
never compared, and the name of a Frechet distance is computed from the network, never typed by hand.

Invariant: two networks with equal identity give equal features for equal images.
"""

import abc
import dataclasses
import math

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float

INCEPTION_FID = "InceptionV3-FID"
"""The name reserved for the Inception network of the FID, with its published weights and its own resize."""


class AbstractFeatureNetwork(eqx.Module):
    """Turns a batch of images into one feature vector each.

    To write one more: give the four fields (or properties) and `__call__`, all static but the weights, and enrol
    the class in the tests. `name` says architecture and form and must not be `INCEPTION_FID` for any other weights
    or preprocessing, random weights included; `hash` is the sha256 of the weights in hexadecimal; `preprocessing`
    states in one line how images of [-1, 1] are resized and scaled; `size` is the number of features.
    Images of one channel are the network's affair: it repeats them or refuses them.
    """

    name: eqx.AbstractVar[str]
    hash: eqx.AbstractVar[str]
    preprocessing: eqx.AbstractVar[str]
    size: eqx.AbstractVar[int]

    @abc.abstractmethod
    def __call__(self, images: Float[Array, "batch height width channel"]) -> Float[Array, "batch features"]:
        """The features of images with values in [-1, 1]; no image's features depend on another image."""


class NetworkMismatchError(ValueError):
    """Features or statistics of one network were given where those of another belong."""


@dataclasses.dataclass(frozen=True)
class NetworkIdentity:
    """What must agree before features may be compared."""

    name: str
    hash: str
    preprocessing: str
    size: int

    @classmethod
    def of(cls, network: AbstractFeatureNetwork) -> "NetworkIdentity":
        return cls(network.name, network.hash, network.preprocessing, network.size)

    def check_same(self, other: "NetworkIdentity", mine: str, others: str) -> None:
        """Raise `NetworkMismatchError` naming what differs; `mine` and `others` say what the two belong to."""
        pairs = [
            (field.name, getattr(self, field.name), getattr(other, field.name)) for field in dataclasses.fields(self)
        ]
        differing = [
            f"{name} {here!r} of {mine} against {there!r} of {others}" for name, here, there in pairs if here != there
        ]
        if differing:
            raise NetworkMismatchError(
                f"features of two different networks cannot be compared: {'; '.join(differing)}; "
                "compute both with one network, its weights and its preprocessing"
            )


def frechet_name(network: AbstractFeatureNetwork | NetworkIdentity) -> str:
    """What a Frechet distance on this network's features is called: `FID` for Inception alone, else `FD-<name>`."""
    return "FID" if network.name == INCEPTION_FID else f"FD-{network.name}"


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A number and the standard deviation that it would show over repetitions with fresh samples, if that is known."""

    value: float
    standard_error: float | None = None

    def __str__(self) -> str:
        error = "" if self.standard_error is None else f" ± {self.standard_error:.2g}"
        return f"{self.value:.4g}{error}"

    @classmethod
    def mean_of(cls, independent: Float[np.ndarray, " count"]) -> "Estimate":
        """From independent values of equal law; of a single one no error is known."""
        count = len(independent)
        error = float(independent.std(ddof=1) / math.sqrt(count)) if count > 1 else None
        return cls(float(independent.mean()), error)
