"""What one call of the denoiser is worth: random points of random walks against uniform times weighed by `w_i`.

Both estimate the paper's bound without bias. But `w_i` has no finite second moment under uniform times, for any number
of tokens above 1: with `t_1` fixed, `w_1^2` grows like `exp(2 ell_2)` as `t_2 -> 1` and the mass there falls like
`exp(-ell_2)`; near `t = 0` its second moment diverges too. So the deviation of the draws grows with their number, their
mean is far too low until it jumps, and almost every draw is wasted. On the walk the weights of a call are slopes, whose
sum is the number of tokens at every point: no draw counts for more than another.

Gaussian images as in the other statements, one image, log-SNR from 9 to -9.
"""

import csv
import dataclasses
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import jax.random as jr
import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import PRNGKeyArray

from asyncpatch.elbo import (
    AbstractDesign,
    AllTokens,
    Antithetic,
    OneToken,
    Points,
    WholePath,
    error_rate,
    token_log_weights,
)
from asyncpatch.noise_schedule import LogLinear
from asyncpatch.paths import AbstractPathLaw, Environment, clock
from asyncpatch.process import GaussianDenoiser
from asyncpatch.shapes import NULL_LABEL
from proofs_check.evidence import mean_row
from proofs_check.gaussian import covariance, information
from proofs_check.statement import Row, Size

CLAIM = "Random points of random walks estimate the bound with finite variance and waste no draw; uniform times do not"
SOURCE = "docs/theory.md 11"

SCHEDULE = LogLinear(9.0, -9.0)
WALK = Environment((1,))
GRIDS = {2: (1, 2), 4: (2, 2), 8: (2, 4), 16: (4, 4)}
DRAWS = {Size.QUICK: 20_000, Size.FULL: 200_000}
GROUPS = 20
"""Groups of draws whose deviations are compared for the error of the deviation."""
TOGETHER = 2_000


class UniformTimes(AbstractDesign):
    """Wrong twin: independent uniform times, weighed by `w_i`."""

    @property
    def calls(self) -> int:
        return 1

    def draw(self, key: PRNGKeyArray, law: AbstractPathLaw, height: int, width: int, channels: int) -> Points:
        time_key, noise_key = jr.split(key)
        times = jr.uniform(time_key, (1, height, width), minval=jnp.finfo(jnp.float32).tiny)
        weights = jnp.exp(token_log_weights(clock(times).ravel())).reshape(times.shape)
        return Points(times, weights, jr.normal(noise_key, (1, height, width, channels)))


RIGHT = AllTokens()
WRONG = UniformTimes()
DESIGNS = (UniformTimes(), OneToken(), AllTokens(), Antithetic(), WholePath(8))


@dataclasses.dataclass(frozen=True)
class Worth:
    """A line of the table: deviations are of one call's estimate, in nats."""

    tokens: int
    design: str
    mean: float
    exact: float
    deviation: float
    deviation_error: float
    wasted: float


def check(size: Size, subject: AbstractDesign) -> list[Row]:
    rows = []
    for tokens in (4,) if size is Size.QUICK else GRIDS:
        nats, weights, exact = draw(subject, tokens, DRAWS[size])
        rows.append(mean_row(f"mean estimate, d = {tokens}: the exact diffusion term", nats, exact))
        rows.append(Row(f"share of draws wasted, d = {tokens}", wasted(weights), 0.0, 1e-6, "rounding in 32 bits"))
    return rows


def table(size: Size = Size.FULL) -> list[Worth]:
    """What a call is worth, for every design and number of tokens."""
    lines = []
    for tokens in GRIDS:
        for design in DESIGNS:
            nats, weights, exact = draw(design, tokens, DRAWS[size] // design.calls // GROUPS * GROUPS)
            deviations = np.std(nats.reshape(GROUPS, -1), axis=1, ddof=1) * np.sqrt(design.calls)
            deviation = float(np.std(nats, ddof=1) * np.sqrt(design.calls))
            error = float(np.std(deviations, ddof=1) / np.sqrt(GROUPS))
            name = type(design).__name__
            lines.append(Worth(tokens, name, float(nats.mean()), exact, deviation, error, wasted(weights)))
    return lines


def draw(design: AbstractDesign, tokens: int, draws: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Estimates of the diffusion term of one image, the sum of the weights of each, and the exact value."""
    grid = GRIDS[tokens]
    spread = covariance(*grid)
    data_key, draw_key = jr.split(jr.key(tokens))
    root = jnp.asarray(np.linalg.cholesky(spread), jnp.float32)
    image = (root @ jr.normal(data_key, (tokens,))).reshape(*grid, 1)
    denoiser = GaussianDenoiser(jnp.zeros((*grid, 1)), jnp.asarray(spread, jnp.float32), SCHEDULE)
    nats, weights = _draw(jr.split(draw_key, draws), denoiser, image, design)
    values = np.asarray(image, np.float64).ravel()
    exact = information(values, spread, SCHEDULE, 0.0) - information(values, spread, SCHEDULE, 1.0)
    return np.asarray(nats, np.float64), np.asarray(weights, np.float64), exact


@partial(jax.jit, static_argnames="design")
def _draw(keys, denoiser, image, design):
    def one(key):
        points = design.draw(key, WALK, *image.shape)
        read = partial(error_rate, denoiser, image)
        rates = jax.vmap(lambda t, noise: read(t, noise, jnp.int32(NULL_LABEL)))(points.times, points.noise)
        return jnp.sum(points.weights * rates), jnp.sum(points.weights)

    return jax.lax.map(one, keys, batch_size=TOGETHER)


def wasted(weights: np.ndarray) -> float:
    """One minus the effective share of draws, `(sum w)^2 / (n sum w^2)`."""
    return 1 - float(np.sum(weights) ** 2 / (len(weights) * np.sum(weights**2)))


def picture(path: str) -> None:
    """The table, as a figure and as a file of comma-separated values beside it."""
    lines = table()
    with Path(path).with_suffix(".csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in dataclasses.fields(Worth)])
        writer.writeheader()
        writer.writerows(dataclasses.asdict(line) for line in lines)
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
    for name in dict.fromkeys(line.design for line in lines):
        own = [line for line in lines if line.design == name]
        tokens = [line.tokens for line in own]
        errors = [line.deviation_error for line in own]
        left.errorbar(tokens, [line.deviation for line in own], errors, marker="o", capsize=3, label=name)
        right.plot(tokens, [100 * line.wasted for line in own], marker="o", label=name)
    left.set(xscale="log", yscale="log", xlabel="tokens", ylabel="deviation of one call (nats)")
    right.set(xscale="log", xlabel="tokens", ylabel="draws wasted (%)", ylim=(-3, 103))
    for axis in (left, right):
        axis.set_xticks(list(GRIDS), [str(tokens) for tokens in GRIDS])
        axis.minorticks_off()
    left.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)
