"""What plans are worth to an exact denoiser: a Gaussian, for which a generation of few steps is known in closed form.

Under rectified flow and DDIM without fresh noise each step is linear in the start, and how wrong the denoiser expects
to be depends on the times alone, so that the whole generation is one matrix. The squared Wasserstein distance of its
Gaussian from the true one has no noise of sampling.
"""

from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from asyncpatch.plans import AbstractPlan
from asyncpatch.process import Prediction
from experiments.parts.judges import Images
from experiments.parts.tables import Finding

LARGEST_SIDE = 16
"""Images are averaged over blocks down to this side, so that matrices stay small."""

RIDGE = 1e-4
"""Added to all variances: pixels of a border that is always black have none."""

Matrix = Float[np.ndarray, "size size"]


def exact_table(images: Images, plans: dict[str, Callable[[int, int, int], AbstractPlan]], calls: list[int]) -> Finding:
    """Squared distances for the Gaussian that has the mean and covariance of the images' first channel."""
    factor = max(1, images.shape[1] // LARGEST_SIDE)
    count, height, width = len(images), images.shape[1] // factor, images.shape[2] // factor
    blocks = images[..., 0].reshape(count, height, factor, width, factor).mean(axis=(2, 4))
    pixels = blocks.reshape(count, -1).astype(np.float64)
    covariance = np.cov(pixels, rowvar=False) + RIDGE * np.eye(pixels.shape[1])
    distances = {
        name: [squared_distance(make(count, height, width), covariance, height, width) for count in calls]
        for name, make in plans.items()
    }
    first = next(iter(distances.values()))
    lines = [
        (name, *(f"{one:.4g} ({one / base - 1:+.0%})" for one, base in zip(values, first, strict=True)))
        for name, values in distances.items()
    ]
    note = (
        f"Squared Wasserstein distance of what is generated from a Gaussian with the covariance of {count} images at "
        f"{height}x{width}, by its exact denoiser and its exact expected error."
    )
    return Finding("An exact model, by network calls", ("plan", *map(str, calls)), lines, note)


def squared_distance(plan: AbstractPlan, covariance: Matrix, height: int, width: int) -> float:
    """Between `N(0, covariance)` and what the plan generates of it."""
    follow = eqx.filter_jit(plan.next)
    nothing = jnp.zeros((height, width, 1))
    state, field = plan.init(height, width)
    made = np.eye(len(covariance))
    for _ in range(plan.steps):
        t = np.asarray(field, np.float64).reshape(-1)
        log_error, step = _look(covariance, t)
        stated = jnp.asarray(log_error.reshape(height, width), jnp.float32)
        state, field = follow(state, field, Prediction(nothing, nothing, stated))
        made = step(np.asarray(field, np.float64).reshape(-1)) @ made
    values, vectors = np.linalg.eigh(covariance)
    root = (vectors * np.sqrt(values)) @ vectors.T
    overlap = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ made @ made.T @ root), 0)).sum()
    return float(np.trace(covariance) + np.sum(made**2) - 2 * overlap)


def _look(covariance: Matrix, t: Float[np.ndarray, " size"]) -> tuple[Float[np.ndarray, " size"], Callable]:
    """The logarithm of the posterior variance of `v = (z - x) / t`, and the matrix of a step to other times."""
    alpha, sigma = 1 - t, np.maximum(t, 1e-6)
    cross = alpha[:, None] * covariance
    gain = np.linalg.solve(cross * alpha + np.diag(sigma**2), cross).T
    left = np.maximum(np.diag(covariance) - np.sum(gain * cross.T, axis=1), 1e-12)

    def step(s: Float[np.ndarray, " size"]) -> Matrix:
        kept = s / sigma
        moved = (1 - s - kept * alpha)[:, None] * gain + np.diag(kept)
        return np.where((s < t)[:, None], moved, np.eye(len(t)))

    return np.log(left / sigma**2), step
