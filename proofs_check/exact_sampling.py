"""Drawing an environment, a token `i` and `u ~ U(0,1)`, and reading all clocks when token `i` is at `u`, draws rho/d.

Checked against the density itself on two tokens, where `rho / 2` has the exact mass of each of many cells, and against
a random point of a random path found by solving for `tau`, which is rho/d by definition, on more. The wrong twin reads
the clocks when the *first* token is at `u`: nearly right, because the mean of the field is still uniform and the
unordered set of times has the right law; but then the first token's time is uniform, and it should not be.
"""

import math

import jax
import jax.numpy as jnp
import jax.random as jr
import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from asyncpatch.elbo import log_density
from asyncpatch.paths import Environment as EnvironmentLaw
from asyncpatch.paths import clock, time_of_clock
from asyncpatch.timesteps import AbstractTimestepSampler, Environment, OnPath
from proofs_check.evidence import counts_row, mean_row
from proofs_check.ranks import distribution_row
from proofs_check.statement import Row, Size

CLAIM = "t_j = 1 - exp(-omega_j tau), tau = ell(u) / omega_i with random i and u, has the density rho/d."
SOURCE = "docs/theory.md 9.3"

CASES = {
    Size.QUICK: (((1, 2), 1.0),),
    Size.FULL: tuple((grid, spread) for grid in ((1, 2), (2, 2), (8, 8)) for spread in (0.5, 1.0, 2.0)),
}
"""Grids and spreads."""
DRAWS = {Size.QUICK: 100_000, Size.FULL: 1_000_000}
ANGLES, LENGTHS = 6, np.array([0.0, 0.1, 0.3, 0.7, 1.2, 2.0, 3.0, 5.0])
"""Cells of two clocks: equal pieces of the angle, and of their sum; one cell more is beyond the last."""


class FirstToken(AbstractTimestepSampler):
    """Wrong twin: the clock is read off the first token, not off a random one."""

    law: EnvironmentLaw

    def __call__(self, key: PRNGKeyArray, height: int, width: int) -> Float[Array, "{height} {width}"]:
        path_key, level_key = jr.split(key)
        log_rates = self.law.sample(path_key, height, width).log_rates
        return time_of_clock(jnp.exp(log_rates - log_rates[0, 0] + jnp.log(clock(jr.uniform(level_key)))))


RIGHT = Environment
WRONG = FirstToken

FEATURES = {
    "t_1": lambda t: t[..., 0],
    "t_1^2": lambda t: t[..., 0] ** 2,
    "t_1 t_d": lambda t: t[..., 0] * t[..., -1],
    "t_1 < t_d and t_d > 1/2": lambda t: (t[..., 0] < t[..., -1]) & (t[..., -1] > 0.5),
    "t_1 < 1/100": lambda t: t[..., 0] < 0.01,
    "t_d > 99/100": lambda t: t[..., -1] > 0.99,
}
"""Statistics of the first and the last token whose means are compared."""


def check(size: Size, subject) -> list[Row]:
    rows = []
    for number, (grid, spread) in enumerate(CASES[size]):
        law = EnvironmentLaw((1,), (spread, spread))
        drawn_key, solved_key = jr.split(jr.key(number))
        drawn = fields(drawn_key, subject(law), grid, DRAWS[size])
        case = f"d = {math.prod(grid)}, c = {spread:g}"
        if math.prod(grid) == 2:
            expected = DRAWS[size] * masses(spread)
            rows.append(counts_row(f"cells of two tokens, {case}", counts(drawn, spread)[None], expected[None]))
        rows.append(distribution_row(f"mean of the field, {case}: gap to U(0,1)", np.mean(drawn, axis=1)))
        if size is Size.QUICK:
            continue
        solved = fields(solved_key, OnPath(law), grid, DRAWS[size])
        for name, feature in FEATURES.items():
            difference = feature(drawn).astype(np.float64) - feature(solved)
            rows.append(mean_row(f"E[{name}], {case}: minus that of solving for tau", difference, 0.0))
    return rows


def fields(key: PRNGKeyArray, sampler, grid: tuple[int, int], draws: int) -> Float[np.ndarray, "draws tokens"]:
    drawn = jax.jit(lambda keys: jax.lax.map(lambda k: sampler(k, *grid), keys, batch_size=5000))(jr.split(key, draws))
    return np.asarray(drawn, np.float64).reshape(draws, -1)


def angle_and_length(ell: Float[np.ndarray, "draws two"], spread: float) -> tuple[np.ndarray, np.ndarray]:
    """Where two clocks stand: `tan^2 angle = (ell_2 / ell_1)^(1/c)`, and their sum."""
    return np.arctan((ell[:, 1] / ell[:, 0]) ** (0.5 / spread)), ell.sum(axis=1)


def counts(times: Float[np.ndarray, "draws two"], spread: float) -> np.ndarray:
    """How many draws fall into each cell."""
    moving = times[(times > 0).all(axis=1) & (times < 1).all(axis=1)]
    angle, length = angle_and_length(-np.log1p(-moving), spread)
    edges = np.linspace(0, math.pi / 2, ANGLES + 1)
    inside = np.histogram2d(angle, length, bins=(edges, LENGTHS))[0].astype(np.int64).ravel()
    return np.append(inside, len(times) - inside.sum())


def masses(spread: float) -> Float[np.ndarray, " cells"]:
    """The mass that `rho / 2` gives to each cell, by Gauss-Legendre in 64 bits."""
    nodes, weights = np.polynomial.legendre.leggauss(16)
    edges = np.linspace(0, math.pi / 2, ANGLES + 1)
    angle, on_angle = _rule(edges, nodes, weights)
    length, on_length = _rule(LENGTHS, nodes, weights)
    ratio = np.tan(angle) ** (2 * spread)  # ell_2 / ell_1
    first = length[None, :] / (1 + ratio[:, None])
    second = length[None, :] - first
    # d ell_1 d ell_2 = length d share d length, and share = 1 / (1 + ratio).
    change = length[None, :] * (ratio / (1 + ratio) ** 2 * 2 * spread / (np.sin(angle) * np.cos(angle)))[:, None]
    with jax.enable_x64(True):
        ell = jnp.asarray(np.stack([first, second], axis=-1).reshape(-1, 2))
        log_rho = np.asarray(jax.vmap(lambda both: log_density(both, spread))(ell)).reshape(first.shape)
    per_node = np.exp(log_rho - length[None, :]) / 2 * change * on_angle[:, None] * on_length[None, :]
    inside = per_node.reshape(ANGLES, len(nodes), len(LENGTHS) - 1, len(nodes)).sum(axis=(1, 3)).ravel()
    return np.append(inside, 1 - inside.sum())


def _rule(edges: np.ndarray, nodes: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of all pieces between `edges`, one after another."""
    half = np.diff(edges)[:, None] / 2
    return (edges[:-1, None] + half * (nodes + 1)).ravel(), (half * weights).ravel()


def picture(path: str) -> None:
    """Draws on two tokens beside the density."""
    figure, axes = plt.subplots(1, 2, figsize=(7, 3.4), layout="constrained", sharey=True)
    drawn = fields(jr.key(5), Environment(EnvironmentLaw((1,))), (1, 2), 400_000)
    axes[0].hist2d(drawn[:, 0], drawn[:, 1], bins=64, range=((0, 1), (0, 1)), density=True, vmin=0, vmax=4)
    middle = (np.arange(64) + 0.5) / 64
    clocks = -np.log1p(-np.stack(np.meshgrid(middle, middle), axis=-1).reshape(-1, 2))
    density = np.exp(np.asarray(jax.vmap(log_density)(jnp.asarray(clocks, jnp.float32)))).reshape(64, 64) / 2
    axes[1].imshow(density, origin="lower", extent=(0, 1, 0, 1), vmin=0, vmax=4, aspect="auto")
    for axis, title in zip(axes, ("400,000 draws", "rho / 2, at the middles of cells"), strict=True):
        axis.set(title=title, xlabel="time of the first token", ylabel="time of the second", aspect="equal")
    figure.savefig(path, dpi=120)
    plt.close(figure)
