"""The consistency gap: how much a denoiser's bound of one image depends on the path.

The diffusion term of the bound is a line integral whose value, for the exact denoiser of any law of images, is the
same on every path (docs/theory.md). So the variance of an image's bound over random paths measures how far a network
is from being the exact denoiser of anything. Each path is read several times with independent noise, and

    gap^2 = covariance over paths of one reading with another, mean over pairs of readings

Two readings share nothing but their path, so this is unbiased whatever the noise, and none has to be subtracted: it
is 0 on average for an exact denoiser, and may come out negative.

The interval. Its error `e` is that of the jackknife over paths, or that of a variance of as many normal values if that
is larger: a sample whose variance came out small by chance has a small jackknife error too. With `t` Student's quantile
and `v` the variance over paths of a single reading, noise included, the interval reaches

    from gap^2 + v (exp(-t e / v) - 1)      to gap^2 + v (exp(t e / v) - 1) ,

symmetric where noise is nearly all of `v`, and on a log scale where the gap is: a variance errs in proportion. It
covers 95% if the paths scatter about normally; paths so rare that none of those drawn is one of them are in no
interval.
"""

import dataclasses
from collections.abc import Callable

import jax.random as jr
import numpy as np
from jaxtyping import Float, PRNGKeyArray
from scipy import stats

from asyncpatch.paths import AbstractPath, AbstractPathLaw
from experiments.parts.bounds import Effort, Model

READINGS = 2
"""Readings of a path: as many as a covariance needs, for new paths say more than new readings."""

CONFIDENCE = 0.95
"""How often an interval is to hold the truth."""


class Certain(AbstractPathLaw):
    """One path, with certainty; the key is not used."""

    path: AbstractPath

    def sample(self, key: PRNGKeyArray, height: int, width: int) -> AbstractPath:
        return self.path


@dataclasses.dataclass(frozen=True)
class Spread:
    """A variance over paths, in (bits per dimension) squared, and the ends of its interval, which may be negative."""

    value: float
    low: float
    high: float

    @property
    def words(self) -> str:
        """The standard deviation, or what is known of it if the interval holds 0: never a 0 that was not measured."""
        if self.low > 0:
            return f"{self.value**0.5:.2g} ({self.low**0.5:.2g} to {self.high**0.5:.2g})"
        return f"not above noise, below {self.high**0.5:.2g}" if self.high > 0 else "not above noise"


@dataclasses.dataclass(frozen=True)
class Gap:
    """The variance over paths of the bound, an estimate for the law of the paths and for these very images."""

    law: str
    image: Spread
    """Of an image's bound, mean over images."""
    shared: Spread
    """The part of it that is the same for all images: of the mean bound of the images."""


def consistency_gap(
    model: Model,
    name: str,
    law: AbstractPathLaw,
    paths: int,
    effort: Effort,
    progress: Callable[[], None] = lambda: None,
) -> Gap:
    """Read each of `paths` random paths `READINGS` times on every image, each time with the whole of `effort`;
    `progress` is called after each path."""
    if paths < 3:
        raise ValueError(f"the error bar of a gap needs at least three paths, got {paths}; ask for more")
    height, width = model.images.shape[1:3]
    bits = []
    for number, key in enumerate(jr.split(jr.fold_in(effort.key, paths), paths)):
        certain = Certain(law.sample(key, height, width))
        # A seed of its own for each reading: what readings share, but for the path, must not be noise.
        seeds = [effort.seed + 1 + number * READINGS + reading for reading in range(READINGS)]
        bounds = [model.bound(certain, dataclasses.replace(effort, seed=seed)) for seed in seeds]
        bits.append([bound.nats / (bound.dimensions * np.log(2)) for bound in bounds])
        progress()
    return gap_of(name, np.array(bits, float))


def gap_of(name: str, bits: Float[np.ndarray, "paths readings images"]) -> Gap:
    """The gap of bounds that were read already."""
    return Gap(name, spread_over_paths(bits), spread_over_paths(np.mean(bits, axis=2, keepdims=True)))


def spread_over_paths(bits: Float[np.ndarray, "paths readings images"]) -> Spread:
    """The variance over paths, mean over images, with its interval."""
    paths = len(bits)
    value, scale = covariance_of_readings(bits), float(np.mean(np.var(bits, axis=0, ddof=1)))
    if scale == 0:
        return Spread(0.0, 0.0, 0.0)
    without = [covariance_of_readings(np.delete(bits, i, axis=0)) for i in range(paths)]
    error = max(np.sqrt((paths - 1) * np.var(without)), value * np.sqrt(2 / (paths - 1)))
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, paths - 1) * error / scale)
    return Spread(value, value + scale * float(np.expm1(-reach)), value + scale * float(np.expm1(reach)))


def covariance_of_readings(bits: Float[np.ndarray, "paths readings images"]) -> float:
    """The covariance over paths of two readings of an image, mean over pairs of readings and over images."""
    paths, readings, images = bits.shape
    centred = bits - np.mean(bits, axis=0)
    # All products of readings, without those of a reading with itself.
    products = np.sum(centred, axis=1) ** 2 - np.sum(centred**2, axis=1)
    return float(np.sum(products) / (images * readings * (readings - 1) * (paths - 1)))
