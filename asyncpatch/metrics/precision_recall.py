"""Improved precision and recall (Kynkaanniemi et al. 2019, arXiv 1904.06991).

A set of images is stood for by the union of balls around its features, each as wide as the distance to the
`neighbours`-th nearest other image of the set. Precision is the share of generated images inside the real union:
do samples look real? Recall is the share of real images inside the generated union: is every kind of image drawn?

Both depend on the counts; use equal ones. Squared distances are built block by block: memory grows with one
count, not with their product.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float64

from asyncpatch.metrics.features import Features

NEIGHBOURS = 3
"""The paper's choice."""

ROWS = 256
"""Rows of the matrix of distances in memory at a time: 100 MB against 50,000 images."""


@dataclasses.dataclass(frozen=True)
class PrecisionRecall:
    """Shares in [0, 1]: of generated images that look real, and of real images that look generated."""

    precision: float
    recall: float


def precision_and_recall(generated: Features, reference: Features, neighbours: int = NEIGHBOURS) -> PrecisionRecall:
    """Precision and recall of generated images.

    Raises `NetworkMismatchError` for features of two networks, and `ValueError` for too few images.
    """
    generated.network.check_same(reference.network, "the generated images", "the reference")
    if neighbours < 1 or min(len(generated), len(reference)) <= neighbours:
        raise ValueError(
            f"{neighbours} neighbours of each image need at least 1 neighbour and more images than neighbours: got "
            f"{len(generated)} generated images and {len(reference)} of the reference; give more images"
        )
    # Squared distances come from inner products, which lose digits to a mean that is large against the spread.
    centre = reference.values.mean(axis=0)
    samples, real = generated.values - centre, reference.values - centre
    return PrecisionRecall(
        precision=float(_inside(samples, real, _squared_radii(real, neighbours)).mean()),
        recall=float(_inside(real, samples, _squared_radii(samples, neighbours)).mean()),
    )


def _squared_radii(points: Float64[np.ndarray, "count size"], neighbours: int) -> Float64[np.ndarray, " count"]:
    """The squared distance from each point to its `neighbours`-th nearest other point."""
    radii = []
    for first, squared in _squared_distances(points, points):
        rows = np.arange(len(squared))
        squared[rows, first + rows] = np.inf
        radii.append(np.partition(squared, neighbours - 1, axis=1)[:, neighbours - 1])
    return np.concatenate(radii)


def _inside(
    points: Float64[np.ndarray, "count size"],
    centres: Float64[np.ndarray, "balls size"],
    squared_radii: Float64[np.ndarray, " balls"],
) -> Bool[np.ndarray, " count"]:
    """Whether each point lies in one of the balls."""
    blocks = _squared_distances(points, centres)
    return np.concatenate([(squared <= squared_radii).any(axis=1) for _, squared in blocks])


def _squared_distances(
    points: Float64[np.ndarray, "count size"], others: Float64[np.ndarray, "others size"]
) -> Iterator[tuple[int, Float64[np.ndarray, "_rows others"]]]:
    """Blocks of rows of the matrix of squared distances, each with the index of its first row."""
    norms = (others**2).sum(axis=1)
    for first in range(0, len(points), ROWS):
        rows = points[first : first + ROWS]
        yield first, (rows**2).sum(axis=1)[:, None] + norms - 2 * (rows @ others.T)
