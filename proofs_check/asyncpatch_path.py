"""AsyncPatch's training law is a random point of a path, and so AsyncPatch training has a bound of its own.

`t_j(r) = r + min(r, 1-r) q_j`, `q_j ~ U(-1, 1)`, rises with slope `1 + q_j`, then `1 - q_j`. Weighted by these slopes,
the errors of AsyncPatch training bound `-log p(x)`; for the exact denoiser the bound is an equality for every `q`. The
density of the time of one patch is `-(1/2) log(t (1-t))`. The wrong twin rounds the corner, `t_j = r + r (1-r) q_j`: a
path as good as any other, with an equality as well, but neither AsyncPatch's law nor its slopes.
"""

from functools import partial

import jax
import jax.numpy as jnp
import jax.random as jr
import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Array, Float
from scipy import special

from asyncpatch.noise_schedule import LogLinear
from asyncpatch.paths import AbstractPath, WindowPath, derivative
from asyncpatch.process import GaussianDenoiser
from asyncpatch.shapes import TimeField
from asyncpatch.timesteps import AsyncPatch
from proofs_check.evidence import mean_row
from proofs_check.gaussian import covariance, ends, entropy, line_integral
from proofs_check.ranks import distribution_row
from proofs_check.statement import Row, Size

CLAIM = "AsyncPatch trains on a random point of t_j(r) = r + min(r, 1-r) q_j, a path with a bound and slopes 1 +- q_j"
SOURCE = "docs/theory.md 10.3 and 3"

SCHEDULE = LogLinear(22.0, -22.0)
PATHS = {Size.QUICK: 4, Size.FULL: 40}
DRAWS = {Size.QUICK: 50_000, Size.FULL: 1_000_000}
SIDE = 2


class RoundedPath(AbstractPath):
    """Wrong twin: the lead fades smoothly."""

    lead: TimeField

    def __call__(self, r: Float[Array, ""]) -> TimeField:
        return r + r * (1 - r) * self.lead


RIGHT = WindowPath
WRONG = RoundedPath

FEATURES = {
    "t_1^2": lambda t: t[:, 0] ** 2,
    "t_1 t_4": lambda t: t[:, 0] * t[:, -1],
    "(mean t)^2": lambda t: np.mean(t, axis=1) ** 2,
    "(t_1 - t_4)^2": lambda t: (t[:, 0] - t[:, -1]) ** 2,
    "max t > 0.95": lambda t: np.max(t, axis=1) > 0.95,
    "min t < 0.05": lambda t: np.min(t, axis=1) < 0.05,
}
"""Statistics of a field whose means are compared."""


def check(size: Size, subject) -> list[Row]:
    with jax.enable_x64(True):
        rows = bound_rows(PATHS[size], subject)
    path_key, law_key = jr.split(jr.key(3))
    on_path = points_of_paths(path_key, DRAWS[size], subject)
    trained = training_fields(law_key, DRAWS[size])
    rows.append(slope_row(subject))
    rows.append(distribution_row("time of one patch, on the path: gap to the density", distribution(on_path[:, 0])))
    rows.append(distribution_row("time of one patch, in training: gap to the density", distribution(trained[:, 0])))
    for name, feature in FEATURES.items():
        difference = feature(on_path).astype(np.float64) - feature(trained)
        rows.append(mean_row(f"E[{name}], on the path minus in training", difference, 0.0))
    return rows


def bound_rows(paths: int, subject) -> list[Row]:
    """Among the leads are the extreme ones: tokens one after another."""
    spread = covariance(SIDE, SIDE)
    denoiser = GaussianDenoiser(jnp.zeros((SIDE, SIDE, 1)), jnp.asarray(spread), SCHEDULE)
    leads = jr.uniform(jr.key(0), (paths, SIDE, SIDE), minval=-1.0)
    leads = leads.at[0].set(jnp.array([[1.0, -1.0], [1.0, -1.0]]))
    rest, truth = ends(SCHEDULE, spread), entropy(spread)
    nats = [rest + line_integral(denoiser, spread, subject(lead)) for lead in leads]
    off = max(abs(value - truth) for value in nats)
    return [Row(f"bound minus entropy, most of {paths} paths", off, 0.0, 1e-6, "quadrature in 64 bits and ends")]


def slope_row(subject) -> Row:
    """The slopes against the weights that are claimed, on both sides of the corner."""
    lead = jr.uniform(jr.key(1), (SIDE, SIDE), minval=-1.0)
    points = (0.01, 0.3, 0.49, 0.51, 0.8, 0.99)
    gaps = [
        jnp.max(jnp.abs(derivative(subject(lead), jnp.float32(r)) - (1 + lead if r < 0.5 else 1 - lead)))
        for r in points
    ]
    return Row("slopes against 1 + q, then 1 - q", float(max(gaps)), 0.0, 1e-6, "rounding in 32 bits")


def distribution(times: np.ndarray) -> np.ndarray:
    """The integral of `-(1/2) log(t (1-t))` from 0."""
    return times + 0.5 * (special.xlogy(1 - times, 1 - times) - special.xlogy(times, times))


@partial(jax.jit, static_argnames=("draws", "subject"))
def _points(key, draws: int, subject):
    lead_key, point_key = jr.split(key)
    leads = jr.uniform(lead_key, (draws, SIDE, SIDE), minval=-1.0)
    return jax.vmap(lambda lead, r: subject(lead)(r))(leads, jr.uniform(point_key, (draws,)))


def points_of_paths(key, draws: int, subject) -> Float[np.ndarray, "draws tokens"]:
    return np.asarray(_points(key, draws, subject), np.float64).reshape(draws, -1)


def training_fields(key, draws: int) -> Float[np.ndarray, "draws tokens"]:
    drawn = jax.jit(jax.vmap(lambda k: AsyncPatch((1,))(k, SIDE, SIDE)))(jr.split(key, draws))
    return np.asarray(drawn, np.float64).reshape(draws, -1)


def picture(path: str) -> None:
    """A few paths, and the density of one patch's time."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(7, 3.2), layout="constrained")
    r = np.linspace(0, 1, 201)
    for lead in np.linspace(-1, 1, 7):
        left.plot(r, r + np.minimum(r, 1 - r) * lead, color=plt.cm.viridis((lead + 1) / 2))
    left.set(xlabel="r", ylabel="time of a patch", title="paths, q from -1 to 1")
    times = training_fields(jr.key(4), 400_000)[:, 0]
    right.hist(times, bins=100, range=(0, 1), density=True, color="0.8", label="AsyncPatch training")
    middle = (np.arange(400) + 0.5) / 400
    right.plot(middle, -0.5 * np.log(middle * (1 - middle)), label="-(1/2) log(t (1-t))")
    right.set(xlabel="time of a patch", ylabel="density", xlim=(0, 1))
    right.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)
