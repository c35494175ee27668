"""The joint score is the posterior mean of the conditional score, at every time field (paper Lemma A.1, Theorem 1).

    grad_{z_i} log q_t(z) = E[grad_{z_i} log q(z_i | x_i) | z] = (alpha_i E[x_i | z] - z_i) / sigma_i^2

The truth is the log density of `z`, written down as a mixture (finite data) or as one Gaussian, and differentiated by
a complex step, exact to rounding. Because of the first equation the joint score minimises the multi-time Fisher
divergence: any other field costs exactly its mean square distance from it.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from asyncpatch.noise_schedule import RectifiedFlow, safe_divide
from asyncpatch.process import AbstractDenoiser, FiniteDenoiser, GaussianDenoiser
from asyncpatch.shapes import NULL_LABEL, Image, TimeField
from proofs_check.evidence import mean_row
from proofs_check.statement import Row, Size

CLAIM = "The score of the noisy image at any time field is the posterior mean of the conditional score, token by token"
SOURCE = "paper Lemma A.1 and Theorem 1"

SHAPE = (2, 3, 1)
SCHEDULE = RectifiedFlow()

ROUNDING = 1e-9
"""Of scores up to 1e2, from factorisations and exponentials in float64."""

COMPLEX_STEP = 1e-30

Score = Callable[[AbstractDenoiser, Image, TimeField], Image]


def joint_score(denoiser: AbstractDenoiser, z: Image, t: TimeField) -> Image:
    """The identity, with the posterior mean of an exact denoiser."""
    schedule, data = denoiser.schedule, denoiser(z, t, jnp.int32(NULL_LABEL)).data
    variance = jnp.broadcast_to(schedule.sigma(t)[..., None] ** 2, z.shape)
    return safe_divide(schedule.alpha(t)[..., None] * data - z, variance)


def score_at_mean_time(denoiser: AbstractDenoiser, z: Image, t: TimeField) -> Image:
    """Wrong twin: an ordinary denoiser, which is told one time for the whole image."""
    return joint_score(denoiser, z, jnp.full_like(t, jnp.mean(t)))


RIGHT: Score = joint_score
WRONG: Score = score_at_mean_time


def finite_data(draw: np.random.Generator) -> np.ndarray:
    """Points that share values with one another, so that a few clean tokens do not give the point away."""
    return draw.choice([-0.6, 0.1, 0.8], (16, *SHAPE))


def gaussian_data(draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A mean and a covariance with correlations of either sign."""
    size = int(np.prod(SHAPE))
    root = draw.standard_normal((size, size))
    return 0.3 * draw.standard_normal(SHAPE), root @ root.T / size + 0.1 * np.eye(size)


def complex_gradient(log_density: Callable[[np.ndarray], np.ndarray], z: np.ndarray) -> np.ndarray:
    """The gradient of an analytic function of the last axis, at every row of `z`."""
    entries = range(z.shape[-1])
    steps = COMPLEX_STEP * 1j * np.eye(z.shape[-1])
    return np.stack([log_density(z + steps[i]).imag / COMPLEX_STEP for i in entries], axis=-1)


def log_finite_density(points: np.ndarray, t: np.ndarray, z: np.ndarray) -> np.ndarray:
    """`log q_t(z)` of rows `z` at times `t` up to a constant in `z`; clean entries choose among the points."""
    off = (z[:, None] - (1 - t)[:, None] * points) / np.where(t == 0, 1.0, t)[:, None]
    agrees = np.all((t[:, None] > 0) | (np.abs(off) < 1e-12), axis=-1)
    exponent = np.where(agrees, -0.5 * np.sum(off**2 * (t > 0)[:, None], axis=-1), -np.inf)
    most = exponent.real.max(axis=-1, keepdims=True)
    return most[:, 0] + np.log(np.exp(exponent - most).sum(axis=-1))


def log_gaussian_density(mean: np.ndarray, covariance: np.ndarray, t: np.ndarray, z: np.ndarray) -> np.ndarray:
    """The same for Gaussian data; one mean and one covariance for all rows, or one for each."""
    spread = (1 - t)[:, :, None] * covariance * (1 - t)[:, None, :] + t[:, :, None] ** 2 * np.eye(t.shape[1])
    off = z - (1 - t) * mean
    return -0.5 * np.sum(off * np.linalg.solve(spread, off[..., None])[..., 0], axis=-1)


def largest_error(score: np.ndarray, truth: np.ndarray, counted: np.ndarray) -> float:
    """Over the entries that count, relative to scores above 1."""
    return float((np.abs(score - truth) / np.maximum(1.0, np.abs(truth)))[counted].max())


def check(size: Size, subject: Score) -> list[Row]:
    fields = {Size.QUICK: 2_000, Size.FULL: 40_000}[size]
    draw = np.random.default_rng(0)
    points, (mean, covariance) = finite_data(draw), gaussian_data(draw)
    entries = mean.size
    t = draw.uniform(0.05, 1.0, (fields, entries))
    some_clean = np.where(draw.random(t.shape) < 0.4, 0.0, t)
    noise = draw.standard_normal(t.shape)
    flat_points, chosen = points.reshape(-1, entries), draw.integers(len(points), size=fields)
    gaussian = mean.ravel() + draw.standard_normal(t.shape) @ np.linalg.cholesky(covariance).T

    with jax.enable_x64(True):
        exact = {
            "finite": FiniteDenoiser(jnp.asarray(points), SCHEDULE),
            "Gaussian": GaussianDenoiser(jnp.asarray(mean), jnp.asarray(covariance), SCHEDULE),
        }
        score_of = {name: _over_rows(subject, denoiser) for name, denoiser in exact.items()}
        rows, basis = [], f"rounding, {fields} fields"
        for data, name, times in (("finite", "finite data", t), ("finite", "finite data, clean tokens", some_clean)):
            z = (1 - times) * flat_points[chosen] + times * noise
            truth = complex_gradient(lambda z, times=times: log_finite_density(flat_points, times, z), z)
            error = largest_error(score_of[data](z, times), truth, times > 0)
            rows.append(Row(f"largest error, {name}", error, 0.0, ROUNDING, basis))
        z = (1 - t) * gaussian + t * noise
        truth = complex_gradient(lambda z: log_gaussian_density(mean.ravel(), covariance, t, z), z)
        error = largest_error(score_of["Gaussian"](z, t), truth, t > 0)
        rows.append(Row("largest error, Gaussian data", error, 0.0, ROUNDING, basis))
        z = (1 - t) * flat_points[chosen] + t * noise
        return [*rows, _divergence_row(score_of["finite"](z, t), z, t, noise)]


def _over_rows(subject: Score, denoiser: AbstractDenoiser) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    one = jax.jit(jax.vmap(lambda z, t: subject(denoiser, z.reshape(SHAPE), t.reshape(SHAPE[:2])).ravel()))
    return lambda z, t: np.asarray(one(jnp.asarray(z), jnp.asarray(t)))


def _divergence_row(score: np.ndarray, z: np.ndarray, t: np.ndarray, noise: np.ndarray) -> Row:
    """`F(s + b) - F(s) - E |b|^2 = 0` for the divergence `F(s) = E |s - grad log q(z | x)|^2` and another field `b`."""
    # Weighted by the variance, as conditional scores are infinite at time 0.
    other = t**2 * (np.tanh(z) + np.roll(z, 1, axis=-1) * t)
    excess = np.sum(2 * other * (score + noise / t), axis=-1)
    return mean_row("Fisher divergence of another field, beyond its distance", excess, 0.0)
