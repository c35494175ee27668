"""The kernel distance between two sets of features, with error bars (Binkowski et al. 2018, arXiv 1801.01401).

The squared maximum mean discrepancy with the kernel `k(x, y) = (x.y / size + 1)^3`, estimated without bias:

    mean of k over pairs of distinct generated images + the same over real images - 2 mean of k over mixed pairs

Its expectation is 0 for equal laws at any count, so a value may be negative. It is averaged over *disjoint* blocks
of both sets. Blocks are then independent and the standard error means what it says; published figures often draw
overlapping subsets and quote the deviation between them, whose mean estimates the same quantity.
"""

import numpy as np
from jaxtyping import Float64

from asyncpatch.metrics.base import Estimate
from asyncpatch.metrics.features import Features

KERNEL_DEGREE = 3

BLOCK_SIZE = 1000
"""Images of each kind in one block: the subset size of published kernel distances."""


def kernel_distance(generated: Features, reference: Features, seed: int, block_size: int = BLOCK_SIZE) -> Estimate:
    """The squared kernel distance; `seed` deals the images to blocks.

    Raises `NetworkMismatchError` for features of two networks, and `ValueError` for fewer than two blocks.
    """
    generated.network.check_same(reference.network, "the generated images", "the reference")
    fewest = min(len(generated), len(reference))
    if block_size < 2 or fewest < 2 * block_size:
        raise ValueError(
            f"an error bar needs at least two blocks of at least 2 images: got {len(generated)} generated images, "
            f"{len(reference)} of the reference and block_size={block_size}; give more images or smaller blocks"
        )
    rng = np.random.default_rng(seed)
    blocks = fewest // block_size
    ours = rng.permutation(len(generated))[: blocks * block_size].reshape(blocks, block_size)
    theirs = rng.permutation(len(reference))[: blocks * block_size].reshape(blocks, block_size)
    squared = [
        unbiased_squared_mmd(generated.values[our], reference.values[their])
        for our, their in zip(ours, theirs, strict=True)
    ]
    return Estimate.mean_of(np.array(squared))


def unbiased_squared_mmd(x: Float64[np.ndarray, "count size"], y: Float64[np.ndarray, "others size"]) -> float:
    """The estimate from one block of each kind, of at least two images each."""
    return float(_mean_of_distinct_pairs(x) + _mean_of_distinct_pairs(y) - 2 * _kernel(x, y).mean())


def _mean_of_distinct_pairs(x: Float64[np.ndarray, "count size"]) -> float:
    values = _kernel(x, x)
    return (values.sum() - np.trace(values)) / (len(x) * (len(x) - 1))


def _kernel(
    x: Float64[np.ndarray, "rows size"], y: Float64[np.ndarray, "cols size"]
) -> Float64[np.ndarray, "rows cols"]:
    return (x @ y.T / x.shape[1] + 1) ** KERNEL_DEGREE
