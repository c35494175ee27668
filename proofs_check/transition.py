"""Along the curve the environment cancels from the transition probabilities (paper B.3).

    p_i = omega_i (1 - gamma_i) / sum_j omega_j (1 - gamma_j) = ell_i (1 - t_i) / sum_j ell_j (1 - t_j)

so that they are a function of the time field alone. The truth is the left side, from the environment, and the tokens
that fine walks lift next at a given step.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float

from asyncpatch.elbo import log_auxiliary_clock, log_transition_probabilities, random_walk, trajectory
from asyncpatch.paths import clock
from proofs_check.evidence import counts_row
from proofs_check.statement import Row, Size

CLAIM = "Which token climbs next depends on the time field alone: the environment cancels along the curve"
SOURCE = "paper B.3"

TOKENS = 5
NEAREST = 1e-6
"""Of the ends, as a share of `d`."""

RATES = (0.2, 0.7, 1.0, 1.8, 3.0)
SHARES = (0.2, 0.5, 0.8)
"""Where fine walks are looked at, as shares of `d`."""

ROUNDING = 1e-9

Probabilities = Callable[[Float[Array, " tokens"]], Float[Array, " tokens"]]
"""Logarithms, from the clocks of the tokens."""


def by_clocks_alone(ell: Float[Array, " tokens"]) -> Float[Array, " tokens"]:
    """Wrong twin: the rates without the levels that are left, `ell_i / sum_j ell_j`."""
    return jnp.log(ell) - jnp.log(jnp.sum(ell))


RIGHT: Probabilities = log_transition_probabilities
WRONG: Probabilities = by_clocks_alone


def check(size: Size, subject: Probabilities) -> list[Row]:
    environments, levels, walks = {Size.QUICK: (30, 60, 3_000), Size.FULL: (1_000, 500, 20_000)}[size]
    with jax.enable_x64(True):
        rows = _identity_rows(subject, environments)
    return rows + _walk_rows(subject, levels, walks)


def _identity_rows(subject: Probabilities, environments: int) -> list[Row]:
    s = TOKENS * jax.nn.sigmoid(jnp.linspace(np.log(NEAREST), -np.log(NEAREST), 100))

    def errors(log_rates):
        def at(s):
            log_tau = log_auxiliary_clock(log_rates, s)
            ell = jnp.exp(log_rates + log_tau)
            stated = jax.nn.softmax(log_rates - ell)
            slope = jax.jvp(lambda s: trajectory(log_rates, s), (s,), (jnp.ones_like(s),))[1]
            found = jnp.exp(subject(ell))
            # From the times themselves as long as they tell the clocks.
            seen = jnp.where(s < TOKENS / 2, jnp.exp(subject(clock(trajectory(log_rates, s)))), found)
            return [jnp.max(jnp.abs(gap)) for gap in (found - stated, seen - stated, found - slope, jnp.sum(found) - 1)]

        return [jnp.max(gap) for gap in jax.vmap(at)(s)]

    log_rates = jnp.asarray(np.log(np.random.default_rng(8).exponential(size=(environments, TOKENS))))
    worst = [float(jnp.max(gap)) for gap in jax.jit(jax.vmap(errors))(log_rates)]
    names = ("error, from clocks", "error, from times", "distance to the slope of the curve", "sum over tokens minus 1")
    basis = f"rounding, {environments} environments"
    return [Row(f"largest {name}", value, 0.0, ROUNDING, basis) for name, value in zip(names, worst, strict=True)]


def _walk_rows(subject: Probabilities, levels: int, walks: int) -> list[Row]:
    """The token that walks on fine levels lift at some steps. What levels leave to the limit is O(1 / levels)."""
    log_rates = jnp.log(jnp.array(RATES))
    steps = _steps(levels)
    log_tau = jax.vmap(log_auxiliary_clock, (None, 0))(log_rates, jnp.asarray(steps / levels, jnp.float32))
    chances = np.asarray(jnp.exp(jax.vmap(subject)(jnp.exp(log_rates[None] + log_tau[:, None]))), np.float64)
    rows = []
    for share, tokens, expected in zip(SHARES, _lifted(levels, walks).T, chances, strict=True):
        counts = np.bincount(tokens, minlength=TOKENS)[None].astype(float)
        rows.append(counts_row(f"next climbs at s = {share:g} d on {levels} levels", counts, walks * expected[None]))
    return rows


def _steps(levels: int) -> np.ndarray:
    return np.array([round(share * levels * TOKENS) for share in SHARES])


@functools.cache
def _lifted(levels: int, walks: int) -> np.ndarray:
    """Which token every walk lifts at each of the steps."""
    log_rates, steps = jnp.log(jnp.array(RATES)), _steps(levels)
    draw = jax.jit(
        lambda keys: jax.lax.map(lambda key: random_walk(key, log_rates, levels)[steps], keys, batch_size=500)
    )
    return np.asarray(draw(jr.split(jr.key(8), walks)))
