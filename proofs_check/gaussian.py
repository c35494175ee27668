"""Gaussian images, whose bound is known on every path: covariance, entropy, errors of denoisers, and line integrals.

For `x ~ N(0, S)` and a denoiser that is linear in `z`, `epshat = B(t) z`, the error of a token is known without draws:

    E |eps_i - epshat_i|^2 = [(I - B sigma)(I - B sigma)^T + (B alpha) S (B alpha)^T]_ii ,

for the exact denoiser `SNR(t_i) [(S^-1 + diag SNR(t))^-1]_ii`. What is left of the bound is one integral over `r`.
"""

import math
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from asyncpatch.elbo import Continuous, prior_nats
from asyncpatch.noise_schedule import AbstractNoiseSchedule
from asyncpatch.paths import AbstractPath, AbstractPathLaw, EnvironmentPath, StagedPath, WindowPath, derivative
from asyncpatch.process import AbstractDenoiser
from asyncpatch.shapes import NULL_LABEL, TimeField

LENGTH = 2.0
"""Pixels over which correlations fall by `e`."""
NODES, PANELS = 20, 4
"""Gauss-Legendre nodes of a panel, and panels of each smooth piece of a path: 1e-9 for log-SNRs from 22 to -22."""
STEP = 0.05
"""Of the trapezoidal rule in `log tau`, whose error is about `exp(-24)`."""
LEAST, MOST = 1e-13, 40.0
"""The largest clock at the first node and the smallest one at the last."""
TOGETHER = 320
"""Nodes of one call."""


def covariance(height: int, width: int) -> Float[np.ndarray, "tokens tokens"]:
    """Unit variances, correlations `exp(-distance / LENGTH)`."""
    places = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij"), axis=-1).reshape(-1, 2)
    return np.exp(-np.linalg.norm(places[:, None] - places[None, :], axis=-1) / LENGTH)


def entropy(spread: Float[np.ndarray, "tokens tokens"]) -> float:
    """`(1/2) log det(2 pi e S)`."""
    return 0.5 * float(np.linalg.slogdet(2 * math.pi * math.e * spread)[1])


def divergence(spread: Float[np.ndarray, "tokens tokens"], believed: Float[np.ndarray, "tokens tokens"]) -> float:
    """`KL(N(0, spread) || N(0, believed))`."""
    ratio = np.linalg.solve(believed, spread)
    return 0.5 * float(np.trace(ratio) - len(spread) - np.linalg.slogdet(ratio)[1])


def log_density(images: Float[np.ndarray, "images height width channel"], spread: np.ndarray) -> np.ndarray:
    """`log p(x)` of every image."""
    flat = images.reshape(len(images), -1).astype(np.float64)
    quadratic = np.sum(flat * np.linalg.solve(spread, flat.T).T, axis=1)
    return -0.5 * (quadratic + np.linalg.slogdet(2 * math.pi * spread)[1])


def ends(schedule: AbstractNoiseSchedule, spread: Float[np.ndarray, "tokens tokens"]) -> float:
    """The mean of prior and reconstruction; both are quadratic, so typical entries stand for all images."""
    typical = jnp.sqrt(jnp.diag(jnp.asarray(spread)))[:, None, None]
    decoder = Continuous().nats(schedule, typical, jnp.ones_like(typical))
    return float(prior_nats(schedule, typical) + decoder)


def error_rates(denoiser: AbstractDenoiser, spread: Float[Array, "tokens tokens"], t: TimeField) -> TimeField:
    """`-(1/2) log_snr'(t_i) E |eps_i - epshat_i|^2` of a denoiser that is linear in `z`, in closed form."""
    schedule, label = denoiser.schedule, jnp.int32(NULL_LABEL)
    units = jnp.eye(t.size, dtype=t.dtype).reshape(t.size, *t.shape, 1)
    response = jax.vmap(lambda z: denoiser(z, t, label).noise.ravel(), out_axes=1)(units)
    on_noise = jnp.eye(t.size, dtype=t.dtype) - response * schedule.sigma(t).ravel()[None, :]
    on_data = response * schedule.alpha(t).ravel()[None, :]
    squares = jnp.sum(on_noise**2, axis=1) + jnp.sum((on_data @ spread) * on_data, axis=1)
    slope = jax.jvp(schedule.log_snr, (t,), (jnp.ones_like(t),))[1]
    return -0.5 * slope * squares.reshape(t.shape)


@eqx.filter_jit
def draw_path(key: PRNGKeyArray, law: AbstractPathLaw, side: int) -> AbstractPath:
    """A random path for an image of `side x side` pixels."""
    return law.sample(key, side, side)


def line_integral(denoiser, spread, path: AbstractPath, slopes=derivative) -> float:
    """`int_0^1 sum_i slopes_i(r) D_i(path(r)) dr`, which is the bound without its ends if slopes are the path's."""
    points, weights = nodes(path)
    # Filled up with nodes of weight 0, so that all paths share few shapes.
    filler = -len(points) % TOGETHER
    points, weights = jnp.pad(points, (0, filler), constant_values=0.5), jnp.pad(weights, (0, filler))
    total = 0.0
    for start in range(0, len(points), TOGETHER):
        part = slice(start, start + TOGETHER)
        times, speeds = _read(path, points[part], slopes)
        total += float(_sum(denoiser, jnp.asarray(spread), times, weights[part][:, None, None] * speeds))
    return total


@partial(jax.jit, static_argnames="slopes")
def _read(path, points, slopes):
    return jax.vmap(path)(points), jax.vmap(lambda r: slopes(path, r))(points)


@jax.jit
def _sum(denoiser, spread, times, weights):
    return jnp.sum(weights * jax.vmap(lambda t: error_rates(denoiser, spread, t))(times))


def nodes(path: AbstractPath) -> tuple[Float[Array, " nodes"], Float[Array, " nodes"]]:
    """Points in (0, 1) and weights of a quadrature rule that suits the path."""
    match path:
        case EnvironmentPath():
            return _even_in_log_tau(np.asarray(path.log_rates))
        case WindowPath():
            return _pieces(np.array([0.0, 0.5, 1.0]))
        case StagedPath():
            starts = 1 + np.arange(int(path.groups.max()) + 1) * (1 - float(path.overlap))
            kinks = np.concatenate([starts, starts - 1]) / starts[-1]
            return _pieces(1 - np.unique(np.clip(kinks, 0.0, 1.0).round(12))[::-1])
        case _:
            return _pieces(np.array([0.0, 1.0]))


def _pieces(edges: np.ndarray) -> tuple[Float[Array, " nodes"], Float[Array, " nodes"]]:
    """Gauss-Legendre on `PANELS` equal parts of every piece between `edges`."""
    fine = np.interp(np.arange(PANELS * (len(edges) - 1) + 1) / PANELS, np.arange(len(edges)), edges)
    places, weights = np.polynomial.legendre.leggauss(NODES)
    half = np.diff(fine)[:, None] / 2
    return jnp.asarray((fine[:-1, None] + half * (places + 1)).ravel()), jnp.asarray((half * weights).ravel())


def _even_in_log_tau(log_rates: np.ndarray) -> tuple[Float[Array, " nodes"], Float[Array, " nodes"]]:
    """The trapezoidal rule in the logarithm of the time that all clocks share, in which the path is analytic."""
    log_tau = np.arange(math.log(LEAST) - log_rates.max(), math.log(MOST) - log_rates.min(), STEP)
    clocks = np.exp(log_rates.reshape(-1, 1) + log_tau[None, :])
    points, slopes = np.mean(-np.expm1(-clocks), axis=0), np.mean(clocks * np.exp(-clocks), axis=0)
    return jnp.asarray(points), jnp.asarray(STEP * slopes)


def information(image: np.ndarray, spread: np.ndarray, schedule: AbstractNoiseSchedule, time: float) -> float:
    """`E[log q(z|x) - log q(z)]` of one image at one time for all tokens, whose mean over images is `I(x; z)`.

    Between two times it falls by the exact diffusion term of that image's bound.
    """
    alpha, sigma = (float(scale(jnp.float32(time))) for scale in (schedule.alpha, schedule.sigma))
    noisy = alpha**2 * spread + sigma**2 * np.eye(len(spread))
    inverse = np.linalg.inv(noisy)
    quadratic = sigma**2 * np.trace(inverse) + alpha**2 * image @ inverse @ image
    return 0.5 * float(np.linalg.slogdet(noisy / sigma**2)[1] + quadratic - len(spread))
