"""The kernel distance between two sets of features, with error bars (Binkowski et al. 2018, arXiv 1801.01401).

The squared maximum mean discrepancy with the kernel `k(x, y) = (x.y / size + 1)^3`, estimated without bias:

    mean of k over pairs of distinct generated images + the same over real images - 2 mean of k over mixed pairs

Its expectation is 0 for equal laws at any count, so a value may be negative. All images are used at once. Published
figures average over random subsets instead, whose mean estimates the same quantity, and whose scatter is no error:
subsets of one set are not independent sets.

*Strata.* That holds for independent images. Images drawn so many of each class, or class by class in turn, are not:
of their pairs fewer are of one class, and the mean over all pairs is too small by about the variance between classes
over the count, which is as much as the value itself scatters by when laws are equal. So a set drawn by class is given
with its classes, and its first mean becomes, with `w_c` the share of class `c`,

    sum_cd w_c w_d (mean of k over distinct pairs of an image of c and an image of d) ,

which estimates without bias for the mixture of the classes with these shares.

*The error* is the jackknife's, one image left out at a time, within its class. Its square is on average no smaller than
the variance (Efron & Stein 1981): right where laws differ, and up to sqrt 2 too wide where they are equal.

Memory: `ROWS` rows of a matrix of pairs at a time, and the time is that of all pairs.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float64, Int

from asyncpatch.metrics.base import Estimate
from asyncpatch.metrics.features import Features

KERNEL_DEGREE = 3

FEWEST = 3
"""Images of a class: two make a pair, and one is left out."""

ROWS = 256
"""Rows of the matrix of pairs in memory at a time: 100 MB against 50,000 images."""


def kernel_distance(
    generated: Features,
    reference: Features,
    generated_classes: Int[np.ndarray, " count"] | None = None,
    reference_classes: Int[np.ndarray, " others"] | None = None,
) -> Estimate:
    """The squared kernel distance. Give the classes of a set if it was decided how many images of each it has.

    Raises `NetworkMismatchError` for features of two networks, and `ValueError` for fewer than three images of a class
    or classes that are not one per image.
    """
    generated.network.check_same(reference.network, "the generated images", "the reference")
    ours = _Strata.of(generated, generated_classes, "generated images")
    theirs = _Strata.of(reference, reference_classes, "images of the reference")
    own, our_changes = ours.distinct_pairs()
    other, their_changes = theirs.distinct_pairs()
    our_means, their_means = _mixed_pairs(generated.values, reference.values)
    variance = ours.jackknife(our_changes - 2 * ours.changes_of_mean(our_means))
    variance += theirs.jackknife(their_changes - 2 * theirs.changes_of_mean(their_means))
    return Estimate(own + other - 2 * float(our_means.mean()), float(np.sqrt(variance)))


@dataclasses.dataclass(frozen=True)
class _Strata:
    """A set of features by class; independent images are all of one class."""

    values: Float64[np.ndarray, "count size"]
    index: Int[np.ndarray, " count"]
    """Of each image its class, numbered from 0."""
    counts: Int[np.ndarray, " classes"]

    @classmethod
    def of(cls, features: Features, classes: Int[np.ndarray, " count"] | None, what: str) -> "_Strata":
        given = np.zeros(len(features), np.int64) if classes is None else np.asarray(classes)
        if given.shape != (len(features),):
            raise ValueError(f"give one class per image, got {len(features)} {what} and classes of shape {given.shape}")
        _, index, counts = np.unique(given, return_inverse=True, return_counts=True)
        if not len(counts) or np.min(counts) < FEWEST:
            raise ValueError(
                f"an error bar of a kernel distance needs at least {FEWEST} images of a class, got {len(features)} "
                f"{what}, of the smallest class {min(counts, default=0)}; give more images"
            )
        return cls(features.values, index, counts)

    def distinct_pairs(self) -> tuple[float, Float64[np.ndarray, " count"]]:
        """The mean of k over distinct pairs, classes by their shares, and how it changes without each image."""
        member = np.eye(len(self.counts))[self.index]
        sums = np.concatenate([rows @ member for rows in _kernel_rows(self.values, self.values, itself=0.0)])
        partners = self.counts - member  # of an image in each class
        means = (member.T @ sums) / (member.T @ partners)
        shares = self.counts / len(self.values)
        # The image's place in the mean goes to the others: of its class if the partner is of another class, and of
        # its partners' too if not, which is one fewer.
        others = (self.counts[self.index] - 1)[:, None] - member
        changes = 2 * (means[self.index] - sums / partners) / others @ shares
        return float(shares @ means @ shares), shares[self.index] * changes

    def changes_of_mean(self, values: Float64[np.ndarray, " count"]) -> Float64[np.ndarray, " count"]:
        """How the mean of some values, one an image, changes without each image, its class's share being kept."""
        means = np.bincount(self.index, values) / self.counts
        counts = self.counts[self.index]
        return counts / len(values) * (means[self.index] - values) / (counts - 1)

    def jackknife(self, changes: Float64[np.ndarray, " count"]) -> float:
        """The variance of an estimate that changes so without each image."""
        counts = self.counts[self.index]
        return float(np.sum((counts - 1) / counts * changes**2))


def _mixed_pairs(
    x: Float64[np.ndarray, "count size"], y: Float64[np.ndarray, "others size"]
) -> tuple[Float64[np.ndarray, " count"], Float64[np.ndarray, " others"]]:
    """The mean of k over the pairs of each image with all of the other set."""
    ours, theirs = [], np.zeros(len(y))
    for rows in _kernel_rows(x, y):
        ours.append(rows.mean(axis=1))
        theirs += rows.sum(axis=0) / len(x)
    return np.concatenate(ours), theirs


def _kernel_rows(
    x: Float64[np.ndarray, "count size"], y: Float64[np.ndarray, "others size"], itself: float | None = None
) -> Iterator[Float64[np.ndarray, "_rows others"]]:
    """The matrix of k, some rows at a time; `itself` stands for k of an image of one set with itself, if given."""
    for first in range(0, len(x), ROWS):
        rows = (x[first : first + ROWS] @ y.T / x.shape[1] + 1) ** KERNEL_DEGREE
        if itself is not None:
            at = np.arange(len(rows))
            rows[at, first + at] = itself
        yield rows
