"""The consistency gap: how much a denoiser's bound of one image depends on the path.

The diffusion term of the bound is a line integral whose value, for the exact denoiser of any law of images, is the
same on every path (docs/theory.md). So the variance of an image's bound over random paths measures how far a network
is from being the exact denoiser of anything. Each path is read several times with independent noise, and

    gap^2 = (variance over paths of the mean over its readings) - (variance of that mean by noise)

is unbiased: it is 0 on average for an exact denoiser, and may come out negative.
"""

import dataclasses
from collections.abc import Callable

import jax.random as jr
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from asyncpatch.paths import AbstractPath, AbstractPathLaw
from experiments.parts.bounds import Effort, Model


class Certain(AbstractPathLaw):
    """One path, with certainty; the key is not used."""

    path: AbstractPath

    def sample(self, key: PRNGKeyArray, height: int, width: int) -> AbstractPath:
        return self.path


@dataclasses.dataclass(frozen=True)
class Gap:
    """The variance over paths of an image's bound, mean over images, in (bits per dimension) squared."""

    law: str
    variance: float
    error: float
    """Standard error over paths, by the jackknife, for these images."""
    shared: float
    """The part of it that is the same for all images: the variance over paths of the mean bound of the images."""
    shared_error: float

    @property
    def bits(self) -> float:
        """The gap itself, a standard deviation; 0 if the variance came out negative."""
        return max(self.variance, 0.0) ** 0.5


def consistency_gap(
    model: Model,
    name: str,
    law: AbstractPathLaw,
    paths: int,
    effort: Effort,
    progress: Callable[[], None] = lambda: None,
) -> Gap:
    """Read each of `paths` random paths `effort.draws` times on every image; `progress` is called after each path."""
    if paths < 3:
        raise ValueError(f"the error bar of a gap needs at least three paths, got {paths}; ask for more")
    height, width = model.images.shape[1:3]
    bits, noise = [], []
    for number, key in enumerate(jr.split(jr.fold_in(effort.key, paths), paths)):
        certain = Certain(law.sample(key, height, width))
        # A seed of its own for each path: what the paths share must not be noise.
        bound = model.bound(certain, dataclasses.replace(effort, seed=effort.seed + 1 + number))
        unit = bound.dimensions * np.log(2)
        bits.append(bound.nats / unit)
        noise.append((bound.draw_error / unit) ** 2)
        progress()
    bits_, noise_ = np.array(bits, float), np.array(noise, float)
    return Gap(
        name,
        *jackknife(variance_over_paths, bits_, noise_),
        *jackknife(shared_variance, bits_, noise_),
    )


def variance_over_paths(bits: Float[np.ndarray, "paths images"], noise: Float[np.ndarray, "paths images"]) -> float:
    """Mean over images of the variance over paths, without that of the noise."""
    return float(np.mean(np.var(bits, axis=0, ddof=1) - np.mean(noise, axis=0)))


def shared_variance(bits: Float[np.ndarray, "paths images"], noise: Float[np.ndarray, "paths images"]) -> float:
    """Variance over paths of the mean over images, without that of the noise."""
    images = bits.shape[1]
    return float(np.var(np.mean(bits, axis=1), ddof=1) - np.mean(noise) / images)


def jackknife(
    statistic: Callable[[np.ndarray, np.ndarray], float],
    bits: Float[np.ndarray, "paths images"],
    noise: Float[np.ndarray, "paths images"],
) -> tuple[float, float]:
    """The statistic, and its standard error as an estimate for the law of the paths."""
    paths = len(bits)
    without = [statistic(np.delete(bits, i, axis=0), np.delete(noise, i, axis=0)) for i in range(paths)]
    return statistic(bits, noise), float(np.sqrt((paths - 1) * np.var(without)))
