"""Where walks spend their time: the pushforward density and its total mass (paper B.3, eqs. 30-31).

    E_omega int_0^d f(gamma(s)) ds = int_[0,1]^d f(t) rho(t) dt,      rho(t) = (d-1)! C(t) e^L / L^d,      mass d

Masses come from quadrature in the logarithms of the clocks for 2 and 3 tokens and from importance sampling for more;
the density itself is compared, bin by bin on two tokens, with points of curves and with fine walks at a random step.
"""

import functools
import itertools
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float
from matplotlib.figure import Figure

from asyncpatch.elbo import log_density, random_walk, trajectory
from asyncpatch.paths import time_of_clock
from proofs_check.evidence import counts_row, mean_row, pool_rare
from proofs_check.quadrature import LEAST, MOST, integrate
from proofs_check.statement import Row, Size

CLAIM = "Curves and walks spend their time as the density rho says, whose total mass is d"
SOURCE = "paper B.3, eqs. 30-31"

EDGES = np.array([0.0, 0.05, 0.15, 0.3, 0.5, 0.7, 0.85, 0.95, 1.0])
"""Of the bins of one token's time."""

CUT = 1e-7
"""What the quadrature leaves out and rounds away at most; at a spread of 1.5 the tail that is cut weighs 2e-9."""

TAIL = 1.5
"""Of the proposal's law of `L`: above 1, the importance weights have a variance."""

NODES_A_PIECE = 10

Density = Callable[[Float[Array, " tokens"], float], Float[Array, ""]]
"""The logarithm of `rho` at some clocks, for a spread of the environment."""


def density_of_wider_rates(ell: Float[Array, " tokens"], spread: float) -> Float[Array, ""]:
    """Wrong twin: the density of another environment. Its mass is right and its shape is not."""
    return log_density(ell, 1.5 * spread)


RIGHT: Density = log_density
WRONG: Density = density_of_wider_rates


def check(size: Size, subject: Density) -> list[Row]:
    masses, many = {
        Size.QUICK: ([(2, 1.0, 0.5)], [(16, 4_000)]),
        Size.FULL: (
            [(2, 0.5, 0.25), (2, 1.0, 0.25), (2, 1.5, 0.25), (3, 0.5, 0.35), (3, 1.0, 0.5), (3, 1.5, 0.5)],
            [(4, 400_000), (16, 400_000), (256, 100_000), (4096, 10_000)],
        ),
    }[size]
    curves, walks, levels = {Size.QUICK: (20_000, 4_000, 150), Size.FULL: (1_000_000, 20_000, 1_000)}[size]
    with jax.enable_x64(True):
        rows = [row for tokens, spread, step in masses for row in _mass_rows(subject, tokens, spread, step)]
        rows += [_sampled_mass_row(subject, tokens, draws) for tokens, draws in many]
        shares = _bin_shares(subject)
    rows.append(counts_row("points of curves, 2 tokens", *pool_rare(*_compare(_curve_points(curves), shares))))
    rows.append(
        counts_row(f"walks on {levels} levels, 2 tokens", *pool_rare(*_compare(_walk_points(walks, levels), shares)))
    )
    return rows


def _mass_rows(subject: Density, tokens: int, spread: float, step: float) -> list[Row]:
    """The total mass, and the mean of the level: `int mean(t) rho dt = int_0^d (s / d) ds = d / 2`."""

    def log_level(ell):
        return subject(ell, spread) + jnp.log(jnp.mean(time_of_clock(ell)))

    integrals = jax.jit(lambda: [integrate(f, tokens, step) for f in (lambda ell: subject(ell, spread), log_level)])
    mass, level = map(float, integrals())
    what, basis = f"{tokens} tokens, spread {spread:g}", f"quadrature, step {step:g}"
    return [
        Row(f"total mass, {what}", mass, float(tokens), CUT, basis),
        Row(f"integral of the mean level, {what}", level, tokens / 2, CUT, basis),
    ]


def _sampled_mass_row(subject: Density, tokens: int, draws: int) -> Row:
    """The mass over `d`, by importance sampling: a uniform direction of the clocks and a log-logistic length `L`."""
    draw = np.random.default_rng(tokens)
    direction = draw.exponential(size=(draws, tokens))
    direction /= direction.sum(axis=1, keepdims=True)
    odds = draw.logistic(size=draws)
    length = tokens * np.exp(TAIL * odds)
    # Of the clocks: the law of L, whose density is that of the odds over TAIL L, times (d-1)! / L^(d-1).
    log_odds_density = -odds - 2 * np.log1p(np.exp(-odds))
    log_simplex = sum(np.log(np.arange(1, tokens))) - (tokens - 1) * np.log(length)
    log_proposal = log_odds_density - np.log(TAIL * length) + log_simplex
    ell = length[:, None] * direction
    log_rho = np.asarray(jax.jit(jax.vmap(lambda ell: subject(ell, 1.0)))(jnp.asarray(ell)))
    weights = np.exp(log_rho - length - log_proposal) / tokens
    return mean_row(f"total mass over d, {tokens} tokens", weights, 1.0)


def _bin_shares(subject: Density) -> np.ndarray:
    """The share of `rho / 2` in every bin, by Gauss's rule on pieces of length 1 in the logarithms of both clocks."""
    with np.errstate(divide="ignore"):
        edges = np.clip(np.log(-np.log1p(-EDGES)), LEAST, MOST)
    nodes, weights = np.polynomial.legendre.leggauss(NODES_A_PIECE)
    log_ell, measure, owner = [], [], []
    for number, (low, high) in enumerate(itertools.pairwise(edges)):
        pieces = np.linspace(low, high, 1 + int(np.ceil(high - low)))
        for start, end in itertools.pairwise(pieces):
            log_ell.append((start + end) / 2 + nodes * (end - start) / 2)
            measure.append(weights * (end - start) / 2)
            owner.append(np.full(nodes.size, number))
    log_ell, measure, owner = map(np.concatenate, (log_ell, measure, owner))

    def integrand(first, second):
        log_both = jnp.stack([first, second])
        return jnp.exp(subject(jnp.exp(log_both), 1.0) - jnp.sum(jnp.exp(log_both)) + jnp.sum(log_both))

    grid = jax.jit(jax.vmap(jax.vmap(integrand, (None, 0)), (0, None)))
    mass = np.asarray(grid(jnp.asarray(log_ell), jnp.asarray(log_ell))) * measure[:, None] * measure[None]
    members = owner[None] == np.arange(len(EDGES) - 1)[:, None]
    return members @ mass @ members.T / 2


@functools.cache
def _curve_points(draws: int) -> np.ndarray:
    """A random point of the curve of a random environment."""
    draw = np.random.default_rng(9)
    log_rates = jnp.asarray(np.log(draw.exponential(size=(draws, 2))), jnp.float32)
    s = jnp.asarray(draw.uniform(1e-7, 2 - 1e-7, draws), jnp.float32)
    return np.asarray(jax.jit(jax.vmap(trajectory))(log_rates, s))


@functools.cache
def _walk_points(walks: int, levels: int) -> np.ndarray:
    """The place of a walk after a random step; each walk has its own environment."""

    draw = np.random.default_rng(10)
    log_rates = jnp.asarray(np.log(draw.exponential(size=(walks, 2))), jnp.float32)
    step = draw.integers(2 * levels, size=walks)
    walk = jax.jit(lambda both: jax.lax.map(lambda one: random_walk(*one, levels), both, batch_size=500))
    climbing = np.asarray(walk((jr.split(jr.key(10), walks), log_rates)))
    # Half way along the step, as the integral over s asks.
    before = ((np.arange(2 * levels) < step[:, None]) & (climbing == 1)).sum(axis=1)
    second = before + climbing[np.arange(walks), step] / 2
    return np.stack([step + 0.5 - second, second], axis=1) / levels


def _compare(points: np.ndarray, shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Counts of all bins of points, and their expectation."""
    counts = np.histogram2d(points[:, 0], points[:, 1], [EDGES, EDGES])[0]
    return counts, shares / shares.sum() * len(points)


def picture(path: Path) -> None:
    """The histogram of walks beside the density, and both on lines across the square."""
    with jax.enable_x64(True):
        shares = _bin_shares(RIGHT)
    points = _walk_points(20_000, 1_000)
    counts, _ = _compare(points, shares)
    area = np.outer(np.diff(EDGES), np.diff(EDGES))
    measured, exact = counts / len(points) / area, shares / area
    figure = Figure(figsize=(13, 4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    top = np.log10(np.concatenate([measured[measured > 0], exact.ravel()]))
    with np.errstate(divide="ignore"):
        for axes, values, title in ((left, measured, "20,000 walks on 1,000 levels"), (middle, exact, "rho / 2")):
            drawn = axes.pcolormesh(EDGES, EDGES, np.log10(values).T, vmin=top.min(), vmax=top.max())
            axes.set(title=title, xlabel="time of token 1", ylabel="time of token 2")
    figure.colorbar(drawn, ax=[left, middle], label="log10 of the density, per bin")
    centres = (EDGES[:-1] + EDGES[1:]) / 2
    error = np.sqrt(exact * area / len(points)) / area
    for row, colour in zip((0, 3, 7), ("tab:blue", "tab:orange", "tab:green"), strict=True):
        right.errorbar(centres, measured[row], 2 * error[row], fmt="o", color=colour, markersize=4, capsize=2)
        name = f"token 1 in {EDGES[row]:g} to {EDGES[row + 1]:g}"
        right.stairs(exact[row], EDGES, color=colour, label=name)
    right.set(yscale="log", xlabel="time of token 2", ylabel="density", title="rho / 2 (lines), walks (points, 2 s.d.)")
    right.legend()
    figure.savefig(path, dpi=120)
