"""The discrete bound along a walk, its limit, and the weights of the limit (paper Theorem 2, B.4).

    -log p(x) <= prior + reconstruction + sum_m (1/2) (SNR(u_i^(m-1)) - SNR(u_i^m)) E |x_i - xhat_i(z, u^m)|^2

On Gaussian data, whose posterior covariance at `t` is `(S^-1 + diag(SNR(t)))^-1`, the mean over images must stay above
the entropy, come down to it like `1/n`, and have the line integral along the limiting curve, and the integral with the
weights `w_i = rho p_i`, as its limit. Both are differences of mutual information between the two ends.
"""

import functools
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from asyncpatch.elbo import Continuous, grid_diffusion_nats, prior_nats, random_walk, token_log_weights
from asyncpatch.noise_schedule import LogLinear
from asyncpatch.paths import time_of_clock
from asyncpatch.process import GaussianDenoiser
from asyncpatch.shapes import NULL_LABEL
from proofs_check.evidence import mean_row, slope
from proofs_check.quadrature import integrate
from proofs_check.statement import Row, Size

CLAIM = (
    "The discrete bound along a walk stays above the entropy and falls to it like 1/n; its limit has weights rho p_i"
)
SOURCE = "paper Theorem 2 and B.4"

TOKENS = 4
SCHEDULE = LogLinear(13.0, -13.0)
"""Ends that leave 1e-4 nats beside the diffusion term."""

SLOPE_TOLERANCE = 0.05
"""A twentieth of the exponent 1. The next order is a third of the fall of the log-SNR in a step: 5% at 160 levels."""

Fields = Float[np.ndarray, "steps tokens"]
Reading = Callable[[Fields, Fields], Fields]
"""At which fields the error is read, from the cleaner and the noisier end of every step."""


def noisier_end(cleaner: Fields, noisier: Fields) -> Fields:
    """As the bound says: a step is undone from what is left at its noisier end."""
    return noisier


def cleaner_end(cleaner: Fields, noisier: Fields) -> Fields:
    """Wrong twin: the other end of every step."""
    return cleaner


RIGHT: Reading = noisier_end
WRONG: Reading = cleaner_end


def check(size: Size, subject: Reading) -> list[Row]:
    levels, walks, draws = {
        Size.QUICK: ([160, 640], 3, 500),
        Size.FULL: ([160, 640, 2_560, 10_240], 12, 20_000),
    }[size]
    covariance = example_covariance(TOKENS)
    excess = np.array([[_excess(subject, covariance, n, seed) for n in levels] for seed in range(walks)])
    span = f"levels {levels[0]} to {levels[-1]}, {walks} walks"
    fitted = [slope(levels, list(row)) for row in excess]
    worst = max(fitted, key=lambda value: abs(value + 1)) if np.isfinite(fitted).all() else np.nan
    rows = [
        Row("bounds below the entropy", float((excess <= 0).sum()), 0.0, 0.0, f"exact, {span}"),
        Row("exponent of bound minus entropy, furthest from -1", float(worst), -1.0, SLOPE_TOLERANCE, span),
        _curve_row(covariance, walks),
    ]
    with jax.enable_x64(True):
        rows += [_weights_row(ends, step) for ends, step in _weight_cases(size)]
        return [*rows, _drawn_row(subject, draws)]


def example_covariance(tokens: int) -> np.ndarray:
    """With variances between 0.2 and 3 and correlations of either sign."""
    root = np.random.default_rng(11).standard_normal((tokens, tokens))
    return root @ root.T / tokens + 0.2 * np.eye(tokens)


@functools.cache
def _walk_fields(levels: int, seed: int) -> np.ndarray:
    """The fields of one walk in one environment."""
    log_rates = jnp.asarray(np.log(np.random.default_rng(seed).exponential(size=TOKENS)))
    walk = np.asarray(random_walk(jr.key(seed), log_rates, levels))
    climbed = np.cumsum(walk[:, None] == np.arange(TOKENS), axis=0)
    return np.concatenate([np.zeros((1, TOKENS)), climbed]) / levels


def _snr(t: np.ndarray) -> np.ndarray:
    return np.exp(SCHEDULE.max_log_snr + (SCHEDULE.min_log_snr - SCHEDULE.max_log_snr) * t)


def _errors(covariance: np.ndarray, t: np.ndarray) -> np.ndarray:
    """`E |x_i - E[x_i | z]|^2` of every token, at fields `t`."""
    precision = np.linalg.inv(covariance) + _snr(t)[..., None] * np.eye(len(covariance))
    return np.diagonal(np.linalg.inv(precision), axis1=-2, axis2=-1)


def _bound(reading: Reading, covariance: np.ndarray, fields: np.ndarray) -> float:
    """The mean over images of the whole bound along one grid of fields."""
    cleaner, noisier = fields[:-1], fields[1:]
    gaps = _snr(cleaner) - _snr(noisier)
    diffusion = 0.5 * np.sum(gaps * _errors(covariance, reading(cleaner, noisier)))
    # log p(x | z_0) reads every entry from its own noisy copy; the prior term is the divergence from N(0, I).
    reconstruction = 0.5 * len(covariance) * (np.log(2 * np.pi) + 1 - SCHEDULE.max_log_snr)
    signal, noise = (1 / (1 + np.exp(sign * SCHEDULE.min_log_snr)) for sign in (-1, 1))
    prior = 0.5 * np.sum(signal * np.diag(covariance) + noise - 1 - np.log(noise))
    return float(diffusion + reconstruction + prior)


def _excess(reading: Reading, covariance: np.ndarray, levels: int, seed: int) -> float:
    """Bound minus entropy."""
    entropy = 0.5 * np.linalg.slogdet(2 * np.pi * np.e * covariance)[1]
    return _bound(reading, covariance, _walk_fields(levels, seed)) - float(entropy)


def _information(covariance: np.ndarray, least: float, most: float) -> float:
    """What the image says of itself at one log-SNR and not yet at another, in nats."""
    identity = np.eye(len(covariance))
    tell = [np.linalg.slogdet(identity + np.exp(log_snr) * covariance)[1] for log_snr in (most, least)]
    return 0.5 * float(tell[0] - tell[1])


def _curve_row(covariance: np.ndarray, curves: int) -> Row:
    """The line integral along limiting curves, by the trapezoidal rule in `log tau`."""
    exact = _information(covariance, SCHEDULE.min_log_snr, SCHEDULE.max_log_snr)
    gaps = []
    for seed in range(curves):
        omega = np.random.default_rng(seed).exponential(size=TOKENS)
        log_tau, step = np.linspace(-40, 4 - np.log(omega.min()), 6_000, retstep=True)
        ell = omega[None] * np.exp(log_tau)[:, None]
        t = -np.expm1(-ell)
        fall = SCHEDULE.max_log_snr - SCHEDULE.min_log_snr
        rates = 0.5 * fall * _snr(t) * _errors(covariance, t)
        gaps.append(step * np.sum(rates * ell * np.exp(-ell)) - exact)
    worst = float(np.abs(gaps).max())
    return Row("line integral along curves minus its exact value, largest", worst, 0.0, 1e-8, f"{curves} quadratures")


def _weight_cases(size: Size) -> list[tuple[float, float]]:
    """The log-SNR at the ends, and the step: the rule's error is `exp(-16.8 pi / (ends step))` or less."""
    return {Size.QUICK: [(3.0, 0.25)], Size.FULL: [(3.0, 0.2), (8.0, 0.1), (13.0, 0.07)]}[size]


@functools.cache
def _weights_row(ends: float, step: float) -> Row:
    """`int sum_i w_i D_i dt` for two tokens."""
    covariance = example_covariance(2)
    inverse = jnp.asarray(np.linalg.inv(covariance))

    def log_integrand(ell):
        log_snr = ends - 2 * ends * time_of_clock(ell)
        precision = jnp.diag(inverse) + jnp.exp(log_snr)
        # The diagonal of the inverse of a 2x2 matrix.
        errors = precision[::-1] / (precision[0] * precision[1] - inverse[0, 1] ** 2)
        return jax.nn.logsumexp(token_log_weights(ell) + jnp.log(ends * errors) + log_snr)

    measured = float(jax.jit(lambda: integrate(log_integrand, 2, step))())
    what = f"integral with the weights, 2 tokens, log-SNR {ends:g} to {-ends:g}"
    return Row(what, measured, _information(covariance, -ends, ends), 1e-7, f"quadrature, step {step:g}")


def _drawn_row(reading: Reading, draws: int) -> Row:
    """The package's bound, term by term from drawn images and noise, has the mean that the formula gives."""
    expected = _bound(reading, example_covariance(TOKENS), _walk_fields(5, 0))
    return mean_row("bound on 5 levels, drawn", _drawn_bounds(draws), expected)


@functools.cache
def _drawn_bounds(draws: int) -> np.ndarray:
    covariance, fields = example_covariance(TOKENS), _walk_fields(5, 0)
    shape = (2, TOKENS // 2, 1)
    denoiser = GaussianDenoiser(jnp.zeros(shape), jnp.asarray(covariance), SCHEDULE)
    grid = jnp.asarray(fields).reshape(-1, *shape[:2])

    def nats(key, image, noise):
        diffusion = grid_diffusion_nats(key, denoiser, grid, image, jnp.int32(NULL_LABEL))
        return diffusion + Continuous().nats(SCHEDULE, image, noise) + prior_nats(SCHEDULE, image)

    draw = np.random.default_rng(12)
    images = draw.standard_normal((draws, TOKENS)) @ np.linalg.cholesky(covariance).T
    arrays = (jnp.asarray(values.reshape(draws, *shape)) for values in (images, draw.standard_normal(images.shape)))
    # The check for reused keys takes keys for used that vmap moves to another axis, as it does for a scan over keys.
    with jax.debug_key_reuse(False):
        return np.asarray(jax.jit(jax.vmap(nats))(jr.split(jr.key(13), draws), *arrays))


def picture(path: Path) -> None:
    """How the bound comes down to the entropy, and `n` times its distance."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    fall, scaled = figure.subplots(1, 2)
    levels = [10, 40, 160, 640, 2_560, 10_240]
    covariance = example_covariance(TOKENS)
    for seed in range(6):
        excess = np.array([_excess(RIGHT, covariance, n, seed) for n in levels])
        below = np.array([_excess(WRONG, covariance, n, seed) for n in levels])
        fall.loglog(levels, excess, "o-", markersize=4, linewidth=1)
        scaled.semilogx(levels, excess * levels, "o-", markersize=4, linewidth=1, color="tab:blue")
        scaled.semilogx(levels, below * levels, "x-", markersize=4, linewidth=1, color="tab:red")
    fall.loglog(levels, excess[-1] * levels[-1] / np.array(levels), "k--", label="exponent -1")
    scaled.axhline(0, color="k", linewidth=0.8)
    fall.set(xlabel="levels n", ylabel="bound minus entropy, nats", title="Six walks of four tokens, one upon another")
    scaled.set(xlabel="levels n", ylabel="n (bound minus entropy)", title="Blue: the bound; red: its wrong twin")
    fall.legend()
    figure.savefig(path, dpi=120)
