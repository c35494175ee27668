"""Inpainting is conditional sampling (paper eq. 5): with clean tokens `K`, the joint score is the score given `x_K`.

    t_K = 0:      grad_{z_i} log q_t(z) = grad_{z_i} log q(z_rest | x_K),      i outside K

The truth conditions the data on `x_K` first, by choosing among points (finite data) or by a Schur complement (Gaussian
data), noises the rest alone and differentiates its log density. Nothing jumps at `t_K = 0`: the score beside tokens at
a small time is off by an amount that falls in proportion to that time.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from asyncpatch.process import AbstractDenoiser, FiniteDenoiser, GaussianDenoiser, corrupt
from asyncpatch.shapes import Image, TimeField
from proofs_check.evidence import slope
from proofs_check.score_identity import (
    ROUNDING,
    SCHEDULE,
    SHAPE,
    complex_gradient,
    finite_data,
    gaussian_data,
    joint_score,
    largest_error,
    log_finite_density,
    log_gaussian_density,
)
from proofs_check.statement import Row, Size

CLAIM = "With some tokens clean, the joint score of the others is their score given the clean ones"
SOURCE = "paper eq. 5"

KNOWN = 3
"""Tokens of the first row: known. The second row is to be made."""

SLOPE_TOLERANCE = 0.02
"""Of the fitted exponent: the next order is 1e-3 of the error at the largest time of the fit."""

NEAR_CLEAN = [1e-3, 1e-4, 1e-5]

Score = Callable[[AbstractDenoiser, Image, TimeField, Image], Image]
"""Of the whole image, from an exact denoiser, the image, a time field whose first row is clean or nearly, and noise."""


def score_beside_known(denoiser: AbstractDenoiser, image: Image, t: TimeField, noise: Image) -> Image:
    """The joint score."""
    return joint_score(denoiser, corrupt(denoiser.schedule, image, t, noise), t)


def score_beside_noised(denoiser: AbstractDenoiser, image: Image, t: TimeField, noise: Image) -> Image:
    """Wrong twin: known tokens are noised along with the rest, as methods with one time for all must do."""
    return score_beside_known(denoiser, image, jnp.stack([t[1], t[1]]), noise)


RIGHT: Score = score_beside_known
WRONG: Score = score_beside_noised


def check(size: Size, subject: Score) -> list[Row]:
    images = {Size.QUICK: 2_000, Size.FULL: 40_000}[size]
    draw = np.random.default_rng(2)
    points, (mean, covariance) = finite_data(draw), gaussian_data(draw)
    t = draw.uniform(0.1, 1.0, (images, mean.size))
    noise = draw.standard_normal(t.shape)
    finite = points.reshape(len(points), -1)[draw.integers(len(points), size=images)]
    gaussian = mean.ravel() + draw.standard_normal(t.shape) @ np.linalg.cholesky(covariance).T

    with jax.enable_x64(True):
        finite_denoiser = FiniteDenoiser(jnp.asarray(points), SCHEDULE)
        gaussian_denoiser = GaussianDenoiser(jnp.asarray(mean), jnp.asarray(covariance), SCHEDULE)
        truth = _finite_truth(points.reshape(len(points), -1), finite, t, noise)
        finite_error = _error(subject, finite_denoiser, truth, [0.0], finite, t, noise)[0]
        truth = _gaussian_truth(mean.ravel(), covariance, gaussian, t, noise)
        errors = _error(subject, gaussian_denoiser, truth, [0.0, *NEAR_CLEAN], gaussian, t, noise)
    basis = f"rounding, {images} images"
    return [
        Row("largest error, finite data", finite_error, 0.0, ROUNDING, basis),
        Row("largest error, Gaussian data", errors[0], 0.0, ROUNDING, basis),
        Row(
            "exponent of the error in the time of known tokens",
            slope(NEAR_CLEAN, errors[1:]),
            1.0,
            SLOPE_TOLERANCE,
            "times 1e-5 to 1e-3; the next order is 1e-3 of it",
        ),
    ]


def _error(
    subject: Score,
    denoiser: AbstractDenoiser,
    truth: np.ndarray,
    known_times: list[float],
    images: np.ndarray,
    t: np.ndarray,
    noise: np.ndarray,
) -> list[float]:
    """The largest error of the second row's score, for each time of the first row."""

    def one(image, t, noise):
        return subject(denoiser, image.reshape(SHAPE), t.reshape(SHAPE[:2]), noise.reshape(SHAPE)).ravel()

    scores = jax.jit(jax.vmap(one))
    errors = []
    for known in known_times:
        field = np.where(np.arange(t.shape[1]) < KNOWN, known, t)
        found = np.asarray(scores(*map(jnp.asarray, (images, field, noise))))[:, KNOWN:]
        errors.append(largest_error(found, truth, np.ones_like(truth, bool)))
    return errors


def _finite_truth(points: np.ndarray, images: np.ndarray, t: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """The score of the noised second row, among those points that share the first row with the image."""
    truth = np.empty((len(images), points.shape[1] - KNOWN))
    for first in np.unique(images[:, :KNOWN], axis=0):
        here = np.all(images[:, :KNOWN] == first, axis=1)
        rest, time = points[np.all(points[:, :KNOWN] == first, axis=1), KNOWN:], t[here, KNOWN:]
        z = (1 - time) * images[here, KNOWN:] + time * noise[here, KNOWN:]
        truth[here] = complex_gradient(lambda z, rest=rest, time=time: log_finite_density(rest, time, z), z)
    return truth


def _gaussian_truth(
    mean: np.ndarray, covariance: np.ndarray, images: np.ndarray, t: np.ndarray, noise: np.ndarray
) -> np.ndarray:
    """The score of the noised second row of the Gaussian given its first row."""
    known, cross, rest = covariance[:KNOWN, :KNOWN], covariance[KNOWN:, :KNOWN], covariance[KNOWN:, KNOWN:]
    gain = cross @ np.linalg.inv(known)
    centre = mean[KNOWN:] + (images[:, :KNOWN] - mean[:KNOWN]) @ gain.T
    left, time = rest - gain @ cross.T, t[:, KNOWN:]
    z = (1 - time) * images[:, KNOWN:] + time * noise[:, KNOWN:]
    return complex_gradient(lambda z: log_gaussian_density(centre, left, time, z), z)
