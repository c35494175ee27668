"""Mean and covariance of features, streamed and merged exactly.

The state is the count, the mean and the *scatter* `sum_i (f_i - mean)(f_i - mean)^T`. Two states of `n` and `m`
images with `gap = mean_b - mean_a` merge to (Chan, Golub & LeVeque 1979)

    mean = mean_a + gap m/(n+m),      scatter = scatter_a + scatter_b + gap gap^T n m/(n+m)

Nothing large is subtracted, unlike in `E[f f^T] - mean mean^T`, so no digits are lost to a mean that is large
against the spread.

Invariants: merging the states of any shards equals one pass over their union, up to rounding in float64; the
state's memory is `size^2 + size` numbers, whatever the count.
"""

import dataclasses
from collections.abc import Iterable

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Float64

from asyncpatch.metrics.base import AbstractFeatureNetwork, NetworkIdentity
from asyncpatch.metrics.features import Features, Images, stream_features


@dataclasses.dataclass(frozen=True, eq=False)
class FeatureStatistics:
    """Count, mean and scatter of the features of one network. Begin with `empty`, go on with `update` and `merge`."""

    network: NetworkIdentity
    count: int
    mean: Float64[np.ndarray, " features"] = dataclasses.field(repr=False)
    scatter: Float64[np.ndarray, "features features"] = dataclasses.field(repr=False)

    @classmethod
    def empty(cls, network: NetworkIdentity) -> "FeatureStatistics":
        return cls(network, 0, np.zeros(network.size), np.zeros((network.size, network.size)))

    @classmethod
    def of(cls, features: Features) -> "FeatureStatistics":
        if not len(features):
            return cls.empty(features.network)
        mean = features.values.mean(axis=0)
        centred = features.values - mean
        return cls(features.network, len(features), mean, centred.T @ centred)

    def update(self, features: Features) -> "FeatureStatistics":
        """The statistics after these features too."""
        return self.merge(FeatureStatistics.of(features))

    def merge(self, other: "FeatureStatistics") -> "FeatureStatistics":
        """The statistics of both sets of images together."""
        self.network.check_same(other.network, "one part", "the other part")
        count = self.count + other.count
        if not count:
            return self
        gap = other.mean - self.mean
        between = np.outer(gap, gap) * (self.count * other.count / count)
        mean = self.mean + gap * (other.count / count)
        return FeatureStatistics(self.network, count, mean, self.scatter + other.scatter + between)

    @property
    def covariance(self) -> Float64[np.ndarray, "features features"]:
        """The unbiased covariance. Raises `ValueError` for fewer than two images."""
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 images, got {self.count}; give more images")
        return self.scatter / (self.count - 1)


def collect_statistics(network: AbstractFeatureNetwork, batches: Iterable[Images]) -> FeatureStatistics:
    """The statistics of all images of this process; memory does not grow with their number."""
    statistics = FeatureStatistics.empty(NetworkIdentity.of(network))
    for features in stream_features(network, batches):
        statistics = statistics.update(features)
    return statistics


def merge_across_processes(statistics: FeatureStatistics) -> FeatureStatistics:
    """The statistics of all processes' images, equal to the bit on each process; every process must call it.

    One process after the other tells its state, so that memory does not grow with the number of processes.
    """
    merged = FeatureStatistics.empty(statistics.network)
    for process in range(jax.process_count()):
        merged = merged.merge(_told_by(process, statistics))
    return merged


def _told_by(process: int, statistics: FeatureStatistics) -> FeatureStatistics:
    state = np.concatenate([[np.float64(statistics.count)], statistics.mean, statistics.scatter.ravel()])
    # As integers: JAX would round float64 to float32 on the way. Adding the others' zeros leaves the bits alone.
    bits = multihost_utils.broadcast_one_to_all(state.view(np.uint32), is_source=jax.process_index() == process)
    told = np.asarray(bits, np.uint32).view(np.float64)
    size = statistics.network.size
    return FeatureStatistics(statistics.network, int(told[0]), told[1 : size + 1], told[size + 1 :].reshape(size, size))
