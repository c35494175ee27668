"""The mean level of the bound's own law of times is uniform, whatever the environment.

Two forms. Given any rates `omega`, `tau = ell(u) / omega_i` with `i` and `u` drawn evenly has the distribution function
`mean_i (1 - exp(-omega_i tau))`, which is the mean of the field; so that mean is U(0, 1). And for rates drawn
independently from one law, a token that is not `i` expects the level `m(tau) = E[1 - exp(-omega tau)]`, which is the
distribution function of `tau = E / omega` as well; so that level is U(0, 1) too. Independent times have neither
property: their mean sits at 1/2 with deviation `1/sqrt(12 d)`.
"""

from functools import partial

import jax
import jax.numpy as jnp
import jax.random as jr
import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray
from scipy import special

from asyncpatch.paths import clock, time_of_clock
from proofs_check.ranks import distribution_row
from proofs_check.statement import Row, Size

CLAIM = (
    "For any environment the mean of a field drawn by `tau = ell(u) / omega_i` is U(0,1); for i.i.d. rates so is the "
    "level that another token expects."
)
SOURCE = "docs/theory.md 9.4"

DRAWS = {Size.QUICK: 20_000, Size.FULL: 1_000_000}
TOKENS = {Size.QUICK: (16,), Size.FULL: (2, 16, 256)}
QUANTILES = 512
"""Rates that stand for a law of rates where `m(tau)` is computed; its error is at most half of one of them."""

ENVIRONMENTS = {
    "Exp(1)": lambda rank: np.log(-np.log1p(-rank)),
    "Weibull, c = 0.3": lambda rank: 0.3 * np.log(-np.log1p(-rank)),
    "Weibull, c = 3": lambda rank: 3.0 * np.log(-np.log1p(-rank)),
    "log-normal, deviation 2": lambda rank: 2.0 * special.ndtri(rank),
    "two values, 1 and 50": lambda rank: np.where(rank < 0.7, 0.0, np.log(50.0)),
}
"""Logarithms of rates, as functions of their rank in (0, 1)."""


def shared_clock(key: PRNGKeyArray, log_rates: Float[Array, " tokens"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The mean of a field of the bound's own law, and `log tau`."""
    token_key, level_key = jr.split(key)
    log_rate = log_rates[jr.randint(token_key, (), 0, log_rates.size)]
    log_tau = jnp.log(clock(jr.uniform(level_key))) - log_rate
    return jnp.mean(time_of_clock(jnp.exp(log_rates + log_tau))), log_tau


def independent_times(
    key: PRNGKeyArray, log_rates: Float[Array, " tokens"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Wrong twin: every token has a uniform time of its own; `tau` is where the first one stands."""
    times = jr.uniform(key, log_rates.shape)
    return jnp.mean(times), jnp.log(clock(times[0])) - log_rates[0]


RIGHT = shared_clock
WRONG = independent_times


def check(size: Size, subject) -> list[Row]:
    rows, draws = [], DRAWS[size]
    for tokens in TOKENS[size]:
        for number, (name, quantile) in enumerate(ENVIRONMENTS.items()):
            means, levels = draw(1000 * tokens + number, quantile, subject, tokens, draws)
            rows.append(distribution_row(f"mean of the field, {tokens} tokens, {name}: gap to U(0,1)", means))
            rows.append(distribution_row(f"level of another token, {tokens} tokens, {name}: gap to U(0,1)", levels))
        means, _ = draw(1000 * tokens + 999, same_rates, subject, tokens, draws)
        rows.append(distribution_row(f"mean of the field, {tokens} rates from 0.01 to 100: gap to U(0,1)", means))
    return rows


def same_rates(rank: Float[np.ndarray, "draws tokens"]) -> Float[np.ndarray, "draws tokens"]:
    """An environment that is always the same: the first statement needs no randomness of it."""
    return np.broadcast_to(np.linspace(np.log(0.01), np.log(100.0), rank.shape[1]), rank.shape)


def draw(seed: int, quantile, subject, tokens: int, draws: int) -> tuple[np.ndarray, np.ndarray]:
    """Means of fields, and `m(tau)` of each."""
    ranks = np.random.default_rng(seed).uniform(size=(draws, tokens))
    log_rates = jnp.asarray(quantile(np.maximum(ranks, np.finfo(np.float64).tiny)), jnp.float32)
    means, log_tau = _draw_all(jr.split(jr.key(seed), draws), log_rates, subject)
    middles = (np.arange(QUANTILES) + 0.5) / QUANTILES
    stand_ins = quantile(middles[:, None])[:, 0]
    return np.asarray(means), _expected_level(stand_ins, np.asarray(log_tau, np.float64))


@partial(jax.jit, static_argnames="subject")
def _draw_all(keys, log_rates, subject):
    return jax.vmap(subject)(keys, log_rates)


def _expected_level(log_rates: Float[np.ndarray, " rates"], log_tau: Float[np.ndarray, " draws"]) -> np.ndarray:
    """The mean over rates of `1 - exp(-omega tau)`."""
    with np.errstate(over="ignore"):
        return sum(-np.expm1(-np.exp(log_rate + log_tau)) for log_rate in log_rates) / len(log_rates)


def picture(path: str) -> None:
    """Histograms of the mean level under the two laws of times."""
    figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
    quantile = ENVIRONMENTS["Exp(1)"]
    for subject, label in ((RIGHT, "a random point of a random walk"), (WRONG, "independent uniform times")):
        means, _ = draw(9, quantile, subject, 64, 100_000)
        axes.hist(means, bins=80, range=(0, 1), density=True, histtype="step", label=label)
    axes.set(xlabel="mean of a field of 64 times", ylabel="density", xlim=(0, 1))
    axes.legend(loc="upper left")
    figure.savefig(path, dpi=120)
    plt.close(figure)
