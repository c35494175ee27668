"""The likelihood bound holds on any path, and is an equality for the exact denoiser.

Gaussian images, exact denoiser. By quadrature in 64 bits the bound must equal the entropy on paths of every law, up to
what the two ends leave open, `1e-7` here; and the estimates of `asyncpatch.elbo.evaluate`, with every design, must
equal `-log p(x)` of the very images that they bound within their standard error. The wrong twin weighs all tokens
alike, whatever speed their times have; it is right on the diagonal only.
"""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from asyncpatch.elbo import AllTokens, Antithetic, Continuous, OneToken, WholePath, evaluate
from asyncpatch.noise_schedule import LogLinear
from asyncpatch.paths import AbstractPathLaw, AnyOrder, Environment, Staged, Synchronous, Window, derivative, raster
from asyncpatch.process import GaussianDenoiser
from asyncpatch.shapes import NULL_LABEL
from proofs_check.evidence import FALSE_ALARM
from proofs_check.gaussian import covariance, draw_path, ends, entropy, error_rates, line_integral, log_density
from proofs_check.ranks import REACH
from proofs_check.statement import Row, Size

CLAIM = "On every path on which no time falls, the line integral of the denoising error bounds -log p, with equality"
SOURCE = "docs/theory.md 10.2 and 10.4"

FAR = LogLinear(22.0, -22.0)
"""Ends at which 64 bits lose nothing."""
NEAR = LogLinear(13.0, -13.0)
"""Ends for 32 bits: what they leave open is far below the standard errors."""
SIDES = {Size.QUICK: (2,), Size.FULL: (2, 8)}
PATHS = {Size.QUICK: 1, Size.FULL: 3}
QUICK = ("synchronous", "window", "environment, c = 1", "any order")
ACCURACY = 1e-6
IMAGES, DRAWS = 32, 2048


def equal_weights(path, r):
    """Wrong twin of a path's slopes."""
    return jnp.ones_like(path(r))


RIGHT = derivative
WRONG = equal_weights


def laws(side: int, size: Size) -> dict[str, AbstractPathLaw]:
    """Laws of paths for an image of `side x side` pixels; of every kind one if there is little time."""
    every = {
        "synchronous": Synchronous(),
        "window": Window((1,)),
        "window of patches": Window((side // 2,)),
        "environment, c = 0.3": Environment((1,), (0.3, 0.3)),
        "environment, c = 1": Environment((1,)),
        "environment, c = 3": Environment((1,), (3.0, 3.0)),
        "raster": Staged(raster(side, side, 1)),
        "raster, half overlapping": Staged(raster(side, side, 1), 0.5),
        "any order": AnyOrder(1),
    }
    return every if size is Size.FULL else {name: every[name] for name in QUICK}


def check(size: Size, subject) -> list[Row]:
    rows = []
    for side in SIDES[size]:
        with jax.enable_x64(True):
            rows += quadrature_rows(side, size, subject)
        if subject is RIGHT and size is Size.FULL:
            rows += estimate_rows(side)
    return rows


def quadrature_rows(side: int, size: Size, slopes) -> list[Row]:
    spread = covariance(side, side)
    denoiser = GaussianDenoiser(jnp.zeros((side, side, 1)), jnp.asarray(spread), FAR)
    truth, rest = entropy(spread), ends(FAR, spread)
    rows = [posterior_row(side, denoiser, spread)]
    for number, (name, law) in enumerate(laws(side, size).items()):
        for draw in range(1 if isinstance(law, Synchronous | Staged) else PATHS[size]):
            path = draw_path(jr.fold_in(jr.key(number), draw), law, side)
            nats = rest + line_integral(denoiser, spread, path, slopes)
            what = f"bound, d = {side**2}, {name}, path {draw + 1}: the entropy"
            rows.append(Row(what, nats, truth, ACCURACY, "quadrature in 64 bits and ends"))
    return rows


def posterior_row(side: int, denoiser, spread: np.ndarray) -> Row:
    """The errors of the package's denoiser against the posterior variance written down."""
    t = jr.uniform(jr.key(side), (side, side))
    snr = np.exp(FAR.log_snr(t)).ravel()
    variance = jnp.asarray(np.diag(np.linalg.inv(np.linalg.inv(spread) + np.diag(snr))))
    slope = FAR.min_log_snr - FAR.max_log_snr
    expected = (-0.5 * slope * jnp.asarray(snr) * variance).reshape(t.shape)
    gap = jnp.max(jnp.abs(error_rates(denoiser, jnp.asarray(spread), t) - expected))
    return Row(f"errors of the denoiser, d = {side**2}: the posterior variance", float(gap), 0.0, 1e-9, "rounding")


def estimate_rows(side: int) -> list[Row]:
    """Every law with one design, and every design with one law."""
    known = laws(side, Size.FULL)
    walk = "environment, c = 1"
    rows = [estimate_row(side, n, name, law, AllTokens()) for n, (name, law) in enumerate(known.items())]
    for number, design in enumerate((OneToken(), WholePath(4), Antithetic())):
        rows.append(estimate_row(side, 100 + number, walk, known[walk], design))
    return rows


def estimate_row(side: int, number: int, name: str, law: AbstractPathLaw, design) -> Row:
    """The mean over images of the estimated bound minus `-log p(x)`, which is 0 for each of them."""
    spread = covariance(side, side)
    data_key, draw_key = jr.split(jr.fold_in(jr.key(side), number))
    root = jnp.asarray(np.linalg.cholesky(spread), jnp.float32)
    images = (jr.normal(data_key, (IMAGES, side**2)) @ root.T).reshape(-1, side, side, 1)
    denoiser = GaussianDenoiser(jnp.zeros((side, side, 1)), jnp.asarray(spread, jnp.float32), NEAR)
    labels = jnp.full(IMAGES, NULL_LABEL)
    found = evaluate(draw_key, denoiser, law, design, Continuous(), images, labels, DRAWS)
    gap = float(np.mean(found.nats + log_density(np.asarray(images), spread)))
    error = float(np.sqrt(np.sum(found.draw_error**2)) / IMAGES)
    left_open = 0.5 * float(np.trace(np.linalg.inv(spread))) * float(np.exp(-NEAR.max_log_snr))
    what = f"estimated bound + log p(x), d = {side**2}, {name}, {type(design).__name__}"
    basis = f"{IMAGES} x {DRAWS} draws, false alarm {FALSE_ALARM:g}; ends"
    return Row(what, gap, 0.0, REACH * error + left_open, basis)
