"""What the spread `c` of the environment's rates `E^c` tends to at either end.

*Small c.* All tokens agree: with `ell = -log(1 - r)` and `sd(log E) = pi / sqrt(6)`, times around the mean `r` deviate
by `c ell e^-ell pi / sqrt(6)` to first order, so that the variance inside an image falls like `c^2`.

*Large c.* One token after another: the path tends to the staged path in the order of its rates, from which it differs
only while two neighbours in that order have logarithms within about 1 of each other, a share of time like `1/c`. At
every time all tokens but one are clean or noise, so that the mean of `t (1 - t)` over a path tends to `1 / (6 d)`. The
order is uniform.
"""

import itertools
import math
from functools import partial

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from asyncpatch.paths import Environment, EnvironmentPath, StagedPath
from proofs_check.evidence import counts_row, slope
from proofs_check.ranks import REACH
from proofs_check.statement import Row, Size

CLAIM = "Rates E^c give synchronous diffusion as c -> 0 and one token after another, in a uniform order, as c -> inf"
SOURCE = "docs/theory.md 9.2"

TOKENS = 4
SMALL = (0.003, 0.01, 0.03)
LARGE = (100.0, 300.0, 1000.0)
DRAWS = {Size.QUICK: 4_000, Size.FULL: 200_000}
LEVELS = 8
"""Points of a path that are looked at, in the middle of equal pieces: no token is half way there if one moves alone."""


def weibull_rates(key: PRNGKeyArray, spread: Float[Array, ""]) -> Float[Array, "1 tokens"]:
    """The package's law: logarithms of rates are in proportion to the spread, which may be traced here."""
    return spread * Environment((1,)).sample(key, 1, TOKENS).log_rates


def shifted_rates(key: PRNGKeyArray, spread: Float[Array, ""]) -> Float[Array, "1 tokens"]:
    """Wrong twin: rates `1 + c E`, which agree as `c -> 0` as well, but tend to the paper's walk as `c -> inf`."""
    return jnp.log1p(spread * jr.exponential(key, (1, TOKENS)))


RIGHT = weibull_rates
WRONG = shifted_rates


def check(size: Size, subject) -> list[Row]:
    draws = DRAWS[size]
    near = {spread: look(draws, spread, subject) for spread in SMALL}
    far = {spread: look(draws, spread, subject) for spread in LARGE}
    deviations = [math.sqrt(float(np.mean(found["variance"]))) for found in near.values()]
    distances = [float(np.mean(found["distance"])) for found in far.values()]
    rows = [
        Row("small c: exponent of the deviation inside an image", slope(list(near), deviations), 1.0, 0.02, "a fit"),
        Row("large c: exponent of the distance to a staged path", slope(list(far), distances), -1.0, 0.15, "a fit"),
    ]
    rows.append(proportion_row())
    rows.append(small_row(near[SMALL[0]]["variance"], draws))
    rows.append(large_row(far[LARGE[-1]]["inside"], distances[-1], draws))
    orders = list(itertools.permutations(range(TOKENS)))
    seen = dict.fromkeys(orders, 0)
    for order, count in zip(*np.unique(far[LARGE[-1]]["order"], axis=0, return_counts=True), strict=True):
        seen[tuple(order.tolist())] = int(count)
    counts = np.array([list(seen.values())])
    rows.append(counts_row("large c: every order as often as any other", counts, np.full(counts.shape, draws / 24)))
    return rows


def proportion_row() -> Row:
    """The package's rates at one spread are a power of those at another, for the same randomness."""
    at_one, at_three = (
        Environment((1,), (spread, spread)).sample(jr.key(5), 1, TOKENS).log_rates for spread in (1.0, 3.0)
    )
    return Row(
        "log rates at c = 3 minus 3 x log rates",
        float(jnp.max(jnp.abs(at_three - 3 * at_one))),
        0.0,
        1e-5,
        "rounding in 32 bits",
    )


def small_row(variances: Float[np.ndarray, "draws levels"], draws: int) -> Row:
    """Variance inside an image over `c^2`, averaged over the levels of a path, against its first order."""
    clocks = -np.log1p(-levels())
    expected = math.pi**2 / 6 * (1 - 1 / TOKENS) * float(np.mean((clocks * np.exp(-clocks)) ** 2))
    per_draw = variances.mean(axis=1) / SMALL[0] ** 2
    error = REACH * float(np.std(per_draw) / math.sqrt(draws))
    return Row(
        f"c = {SMALL[0]:g}: variance inside an image over c^2",
        float(np.mean(per_draw)),
        expected,
        error + SMALL[0],
        f"{draws} draws, and the next order in c",
    )


def large_row(inside: Float[np.ndarray, "draws levels"], distance: float, draws: int) -> Row:
    """The mean of `t (1 - t)` against what one moving token gives, at the levels looked at."""
    moving = (levels() * TOKENS) % 1
    expected = float(np.mean(moving * (1 - moving))) / TOKENS
    # Per token t (1 - t) changes by no more than t does.
    return Row(
        f"c = {LARGE[-1]:g}: mean of t (1 - t)",
        float(np.mean(inside)),
        expected,
        distance,
        "the mean distance to the staged path",
    )


def levels() -> np.ndarray:
    return (np.arange(LEVELS) + 0.5) / LEVELS


def look(draws: int, spread: float, subject) -> dict[str, np.ndarray]:
    """Statistics of many paths: variance inside the image, `t (1 - t)`, distance to the staged path, and order."""
    keys = jr.split(jr.key(1), draws)
    found = _look(keys, jnp.float32(spread), subject)
    return {name: np.asarray(values, np.float64) for name, values in found.items()}


@partial(jax.jit, static_argnames="subject")
def _look(keys, spread, subject):
    def one(key):
        log_rates = subject(key, spread)
        # The largest rate is noised first, that is, generated last.
        groups = jnp.argsort(jnp.argsort(log_rates.ravel())).reshape(log_rates.shape)
        path, staged = EnvironmentPath(log_rates), StagedPath(groups, jnp.zeros(()))
        points = jnp.asarray(levels(), jnp.float32)
        times = jax.vmap(path)(points)
        crossed = jnp.sum(times > 0.5, axis=(0, 1))  # the earlier a token is noised, the more often
        return {
            "variance": jnp.var(times, axis=(1, 2)),
            "inside": jnp.mean(times * (1 - times), axis=(1, 2)),
            "distance": jnp.mean(jnp.abs(times - jax.vmap(staged)(points))),
            "order": jnp.argsort(-crossed),
        }

    return jax.lax.map(one, keys, batch_size=2000)
