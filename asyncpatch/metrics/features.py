"""From batches of images to features, one batch in memory at a time.

Images are checked before any network sees them: a sample that strays outside [-1, 1] or holds a NaN would give
features all the same, and a wrong number later. Samples must be rounded to what a file can hold
(`to_float(to_uint8(image))`), as the images they are compared with were.

Invariants: features do not depend on how images are dealt to batches; one shape is compiled, because a batch
shorter than the first is filled up.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64

from asyncpatch.metrics.base import AbstractFeatureNetwork, NetworkIdentity

Images = Float[Array | np.ndarray, "_batch _height _width _channel"]
"""One batch; the number of images may change from one batch to the next, hence the underscores."""


@dataclasses.dataclass(frozen=True, eq=False)
class Features:
    """The features of some images, and the network that they come from."""

    network: NetworkIdentity
    values: Float64[np.ndarray, "count features"] = dataclasses.field(repr=False)

    def __post_init__(self):
        if self.values.shape[1] != self.network.size:
            raise ValueError(
                f"{self.network.name} has {self.network.size} features, got {self.values.shape[1]} for each image; "
                "give features of this network, or mend the size that it states"
            )
        bad = ~np.isfinite(self.values).all(axis=1)
        if bad.any():
            raise ValueError(
                f"the features of {bad.sum()} of {len(self)} images are NaN or infinite, the first at "
                f"{np.argmax(bad)}; check the weights of the network and its preprocessing"
            )

    def __len__(self) -> int:
        return len(self.values)


def stream_features(network: AbstractFeatureNetwork, batches: Iterable[Images]) -> Iterator[Features]:
    """The features of one batch after the other, in float64 on the host."""
    identity = NetworkIdentity.of(network)
    for values in map_batches(network, batches):
        yield Features(identity, values.astype(np.float64))


def collect_features(network: AbstractFeatureNetwork, batches: Iterable[Images]) -> Features:
    """The features of all images in one array; kernel distance and precision and recall need them at once."""
    values = [features.values for features in stream_features(network, batches)]
    if not values:
        raise ValueError("no images: the batches are empty; an iterator that was walked once must be made again")
    return Features(NetworkIdentity.of(network), np.concatenate(values))


def map_batches(
    function: Callable[[Float[Array, "batch height width channel"]], Float[Array, "batch values"]],
    batches: Iterable[Images],
) -> Iterator[Float[np.ndarray, "_batch _values"]]:
    """`function` of one batch after the other; it is compiled for the first batch's shape."""
    length = 0
    for images in batches:
        check_images(images)
        length = max(length, len(images))
        missing = length - len(images)
        filled = jnp.asarray(images)
        if missing:
            filled = jnp.concatenate([filled, jnp.repeat(filled[-1:], missing, axis=0)])
        yield np.asarray(_apply(function, filled))[: len(images)]


def check_images(images: Images) -> None:
    """Raise `ValueError` unless there is an image and every value lies in [-1, 1]."""
    values = np.asarray(images)
    if not len(values):
        raise ValueError("a batch without images; give at least one")
    # Written so that NaN fails too.
    inside = (values >= -1) & (values <= 1)
    if not inside.all():
        first = tuple(int(axis[0]) for axis in np.nonzero(~inside))
        raise ValueError(
            f"images must lie in [-1, 1], got {values[first]} at (image, row, column, channel) = {first} and "
            f"{(~inside).sum()} such values in all; pass samples through to_float(to_uint8(image)), which also "
            "rounds them as stored images are"
        )


@eqx.filter_jit
def _apply(function, images):
    return function(images)
