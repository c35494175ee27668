"""For ever finer levels the walk becomes a deterministic curve (paper B.1-B.2, eqs. 15-29).

    sup_s | X_floor(ns) / n - gamma(s) |  ->  0    as n^(-1/2)

Each walker has its own environment. The rate comes from the alarms: `n` of them per token are a binomial sample, whose
share that has rung strays by `n^(-1/2)`.
"""

import functools
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float
from matplotlib.figure import Figure

from asyncpatch.elbo import positions, random_walk, trajectory
from proofs_check.evidence import slope
from proofs_check.statement import Row, Size

CLAIM = "The walk on n levels follows the fluid limit, with a largest error that falls like the square root of 1/n"
SOURCE = "paper B.1-B.2, eqs. 15-29"

TOKENS = 5

SLOPE_TOLERANCE = 0.05
"""A tenth of the exponent 1/2. The next order, a step's own size, is `n^(-1/2)` of the error."""

EXPERIMENTS = {
    Size.QUICK: ([16, 256], 96),
    Size.FULL: ([10, 30, 100, 300, 1_000, 3_000, 10_000], 200),
}
"""Levels, and walkers for each."""

LOOKED_AT = 5_000
"""Steps of a long walk at which it is compared. Between two it strays by `(d / 5000)^(1/2)`, 3%, of the error."""

Curve = Callable[[Float[Array, " tokens"], Float[Array, ""]], Float[Array, " tokens"]]


def one_clock_for_all(log_rates: Float[Array, " tokens"], s: Float[Array, ""]) -> Float[Array, " tokens"]:
    """Wrong twin: the auxiliary clock as if all rates were 1, `tau = -log(1 - s/d)`."""
    return -jnp.expm1(jnp.exp(log_rates) * jnp.log1p(-s / log_rates.size))


RIGHT: Curve = trajectory
WRONG: Curve = one_clock_for_all


def check(size: Size, subject: Curve) -> list[Row]:
    levels, walkers = EXPERIMENTS[size]
    errors = [_mean_error(subject, n, walkers) for n in levels]
    basis = f"a tenth; {walkers} walkers"
    span = f"{levels[0]} to {levels[-1]}"
    return [Row(f"exponent of the error, levels {span}", slope(levels, errors), -0.5, SLOPE_TOLERANCE, basis)]


@functools.cache
def _mean_error(curve: Curve, levels: int, walkers: int) -> float:
    """The mean over walkers of the largest distance in any token after any step."""
    last = levels * TOKENS - 1
    steps = np.linspace(1, last, min(last, LOOKED_AT)).round().astype(int)
    times = jnp.asarray(steps / levels, jnp.float32)

    log_rates, walks = _walks(levels, walkers)

    @jax.jit
    def limits(log_rates):
        return jax.lax.map(lambda rates: jax.vmap(curve, (None, 0))(rates, times), log_rates)

    errors = []
    for walk, limit in zip(walks, np.asarray(limits(log_rates)), strict=True):
        climbed = np.cumsum(walk[:, None] == np.arange(TOKENS), axis=0)[steps - 1]
        errors.append(np.abs(climbed / levels - limit).max())
    return float(np.mean(errors))


@functools.cache
def _walks(levels: int, walkers: int) -> tuple[np.ndarray, np.ndarray]:
    """The logarithms of every walker's rates, and which token it lifts at every step."""
    log_rates = np.log(np.random.default_rng(levels).exponential(size=(walkers, TOKENS))).astype(np.float32)
    keys = jr.split(jr.fold_in(jr.key(6), levels), walkers)
    draw = jax.jit(lambda both: jax.lax.map(lambda one: random_walk(*one, levels), both, batch_size=16))
    return log_rates, np.asarray(draw((keys, jnp.asarray(log_rates))))


def picture(path: Path) -> None:
    """Walks over their curve, and the fit of the rate."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    walks, rate = figure.subplots(1, 2)
    log_rates = jnp.log(jnp.array([0.3, 1.0, 2.5]))
    for colour, n in zip(["0.75", "tab:orange", "tab:blue"], [10, 100, 1000], strict=True):
        climbed = positions(random_walk(jr.key(n), log_rates, n), 3) / n
        steps = np.arange(len(climbed)) / n
        lines = walks.step(steps, np.asarray(climbed), where="post", color=colour, linewidth=1)
        lines[0].set_label(f"walk, n = {n}")
    s = jnp.linspace(1e-3, 3 - 1e-3, 300)
    lines = walks.plot(s, jax.vmap(trajectory, in_axes=(None, 0))(log_rates, s), "k--", linewidth=1.2)
    lines[0].set_label("limit")
    walks.set(xlabel="physical clock s", ylabel="time of a token", title="Walks of three tokens over their limit")
    walks.legend()

    levels, walkers = EXPERIMENTS[Size.FULL]
    for curve, marker, name in ((RIGHT, "o", "limit"), (WRONG, "x", "wrong twin")):
        errors = [_mean_error(curve, n, walkers) for n in levels]
        rate.loglog(levels, errors, marker, label=f"{name}: exponent {slope(levels, errors):.3f}")
    first = _mean_error(RIGHT, levels[0], walkers)
    rate.loglog(levels, first * (np.array(levels) / levels[0]) ** -0.5, "k--", linewidth=1, label="exponent -1/2")
    rate.set(xlabel="levels n", ylabel="mean of the largest error", title=f"{walkers} walkers of {TOKENS} tokens")
    rate.legend()
    figure.savefig(path, dpi=120)
