"""The Frechet distance between two Gaussians fitted to features (Heusel et al. 2017, arXiv 1706.08500).

    d^2 = |mean_1 - mean_2|^2 + tr C_1 + tr C_2 - 2 tr (C_1^(1/2) C_2 C_1^(1/2))^(1/2)

With factors `C_k = R_k R_k^T` the last trace is the sum of the singular values of `R_1^T R_2`. The factors come
from symmetric eigendecompositions, without the directions that hold nothing but rounding errors (all but
`count - 1` of them, when images are fewer than features). So no square root of a product that is not symmetric is
ever taken: the result is real, finite and not negative for any two sets of at least two images.

Following common use the squared distance is what is reported. It is biased upwards for few images (of identical
laws it is positive, and falls like 1/count): compare numbers of equal counts only.
"""

import numpy as np
from jaxtyping import Float64

from asyncpatch.metrics.statistics import FeatureStatistics


def frechet_distance(generated: FeatureStatistics, reference: FeatureStatistics) -> float:
    """The squared Frechet distance; `frechet_name` says what to call it.

    Raises `NetworkMismatchError` for statistics of two networks, and `ValueError` for fewer than two images.
    """
    generated.network.check_same(reference.network, "the generated images", "the reference")
    gap = generated.mean - reference.mean
    traces = np.trace(generated.covariance) + np.trace(reference.covariance)
    overlap = np.linalg.svd(_factor(generated).T @ _factor(reference), compute_uv=False).sum()
    # Never negative in exact arithmetic; equal statistics leave a rounding error of either sign.
    return max(float(gap @ gap + traces - 2 * overlap), 0.0)


def _factor(statistics: FeatureStatistics) -> Float64[np.ndarray, "features rank"]:
    """`R` with `R R^T` the covariance, and as many columns as directions that the images spread in."""
    variances, directions = np.linalg.eigh(statistics.covariance)
    rounding = variances[-1] * len(variances) * np.finfo(np.float64).eps
    # Rising order: the last `count - 1` are all that the images can span.
    first = max(len(variances) - (statistics.count - 1), int(np.searchsorted(variances, rounding, side="right")))
    return directions[:, first:] * np.sqrt(variances[first:])
