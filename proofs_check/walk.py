"""The random walk is well defined, and sorting alarms draws it (paper B.1, eq. 14).

    P(x -> x + e_i) = omega_i (n - x_i) / sum_j omega_j (n - x_j)

Every walk ends at all-`n` after `n d` steps. The truth is the definition: its transition probabilities at every point
of the grid, the probability of every whole walk on a small grid, and a walk that is taken step by step.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, Key

from asyncpatch.elbo import random_walk
from proofs_check.evidence import counts_row, pool_rare
from proofs_check.statement import Row, Size

CLAIM = "Sorted exponential alarms are the random walk: it climbs by the stated probabilities and ends at the top"
SOURCE = "paper B.1, eq. 14"

LOG_RATES = (-1.0, 0.0, 0.7)

Walk = Callable[[Key[Array, ""], Float[Array, " tokens"], int], Int[Array, " steps"]]


def endless_rates(key: Key[Array, ""], log_rates: Float[Array, " tokens"], levels: int) -> Int[Array, " steps"]:
    """Wrong twin: a token climbs at its rate, however few levels it has left; full tokens drop out."""
    gaps = jr.exponential(key, (levels, log_rates.size)) * jnp.exp(-log_rates)[None, :]
    return jnp.argsort(jnp.cumsum(gaps, axis=0).ravel()) % log_rates.size


def literal_walk(key: Key[Array, ""], log_rates: Float[Array, " tokens"], levels: int) -> Int[Array, " steps"]:
    """The definition, step by step."""

    def step(left, chance):
        # The largest logarithm plus Gumbel noise is a draw with probabilities omega_i left_i / sum.
        token = jnp.argmax(log_rates + jnp.log(left) + chance)
        return left.at[token].add(-1.0), token

    chances = jr.gumbel(key, (levels * log_rates.size, log_rates.size))
    return jax.lax.scan(step, jnp.full(log_rates.shape, float(levels)), chances)[1]


RIGHT: Walk = random_walk
WRONG: Walk = endless_rates


def check(size: Size, subject: Walk) -> list[Row]:
    walks, levels, short = {Size.QUICK: (8_000, 4, 2), Size.FULL: (300_000, 12, 3)}[size]
    drawn = _draw(subject, walks, levels, 3)
    climbs = np.stack([(drawn == token).sum(axis=1) for token in range(len(LOG_RATES))], axis=1)
    complete = Row(
        "walks that miss the top", float((climbs != levels).any(axis=1).sum()), 0.0, 0.0, f"exact, {walks} walks"
    )
    expected = walks * _chances_of_walks(short)
    sorted_, literal = (_tally(_draw(walk, walks, short, seed)) for walk, seed in ((subject, 4), (literal_walk, 5)))
    return [
        complete,
        counts_row(f"transitions, {levels} levels", *_transitions(drawn, levels)),
        counts_row(f"whole walks, {short} levels", *pool_rare(sorted_, expected)),
        counts_row(f"whole walks, taken step by step, {short} levels", *pool_rare(literal, expected)),
    ]


@functools.cache
def _draw(walk: Walk, walks: int, levels: int, seed: int) -> np.ndarray:
    keys, rates = jr.split(jr.key(seed), walks), jnp.array(LOG_RATES)
    draw = jax.jit(lambda keys: jax.lax.map(lambda key: walk(key, rates, levels), keys, batch_size=min(walks, 10_000)))
    return np.asarray(draw(keys)).astype(np.int64)


def _transitions(drawn: np.ndarray, levels: int) -> tuple[np.ndarray, np.ndarray]:
    """Counts of climbs out of every visited point of the grid, and what the definition expects of them."""
    tokens, side = len(LOG_RATES), levels + 1
    position = np.zeros((len(drawn), tokens), np.int64)
    counts = np.zeros((side**tokens, tokens))
    for climbing in drawn.T:
        np.add.at(counts, (position @ side ** np.arange(tokens), climbing), 1)
        position[np.arange(len(drawn)), climbing] += 1
    left = levels - np.arange(side**tokens)[:, None] // side ** np.arange(tokens) % side
    rates = np.exp(LOG_RATES) * left
    inside = left.sum(axis=1) > 0
    chances = rates[inside] / rates[inside].sum(axis=1, keepdims=True)
    return counts[inside], counts[inside].sum(axis=1, keepdims=True) * chances


def _chances_of_walks(levels: int) -> np.ndarray:
    """The probability of every sequence of climbs, numbered as in `_tally`; 0 for those that leave the grid."""
    tokens, steps = len(LOG_RATES), levels * len(LOG_RATES)
    number = np.arange(tokens**steps)
    left, chances = np.full((number.size, tokens), levels), np.ones(number.size)
    for step in range(steps):
        climbing = number // tokens**step % tokens
        rates = np.exp(LOG_RATES) * np.maximum(left, 0)
        chances *= rates[np.arange(number.size), climbing] / np.maximum(rates.sum(axis=1), np.finfo(float).tiny)
        left[np.arange(number.size), climbing] -= 1
    return chances


def _tally(drawn: np.ndarray) -> np.ndarray:
    """How often every sequence of climbs occurred."""
    steps = drawn.shape[1]
    return np.bincount(drawn @ len(LOG_RATES) ** np.arange(steps), minlength=len(LOG_RATES) ** steps).astype(float)
