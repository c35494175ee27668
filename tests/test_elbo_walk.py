"""Random walks have the law of their definition, and the curve that they stay near is the one in closed form.

Chi-square and Kolmogorov-Smirnov tests have a false-alarm rate of 1e-4; seeds are fixed.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy import stats
from test_paths import exact_log_time

from asyncpatch.elbo import (
    log_auxiliary_clock,
    log_transition_probabilities,
    physical_clock,
    positions,
    random_walk,
    trajectory,
)

FALSE_ALARM = 1e-4
RATES = np.array([0.5, 1.0, 3.0])
LEVELS = 2


@functools.partial(jax.jit, static_argnums=2)
def _walks(keys, log_rates, levels):
    return jax.vmap(lambda key: random_walk(key, log_rates, levels))(keys)


def draw_walks(rates, levels, draws):
    log_rates = jnp.log(jnp.asarray(rates, jnp.float32))
    return np.asarray(_walks(jr.split(jr.key(0), draws), log_rates, levels))


def literal_walks(rates, levels, draws, seed=0):
    """The definition, step by step: token `i` climbs with probability in proportion to `omega_i (n - x_i)`."""
    rng = np.random.default_rng(seed)
    left = np.full((draws, len(rates)), levels)
    walks = []
    for _ in range(levels * len(rates)):
        odds = np.cumsum(rates * left, axis=1)
        walks.append(np.argmax(rng.uniform(size=(draws, 1)) * odds[:, -1:] < odds, axis=1))
        left[np.arange(draws), walks[-1]] -= 1
    return np.stack(walks, axis=1)


def forgetful_walks(rates, levels, draws, seed=0):
    """Wrong twin: how much a token still has to climb does not count until it has arrived."""
    rng = np.random.default_rng(seed)
    left = np.full((draws, len(rates)), levels)
    walks = []
    for _ in range(levels * len(rates)):
        odds = np.cumsum(rates * (left > 0), axis=1)
        walks.append(np.argmax(rng.uniform(size=(draws, 1)) * odds[:, -1:] < odds, axis=1))
        left[np.arange(draws), walks[-1]] -= 1
    return np.stack(walks, axis=1)


def has_the_law(walks):
    """Whether whole walks, all 90 of three tokens on two levels, are as frequent as the definition makes them."""
    expected = {}
    for order in set(itertools.permutations(np.repeat(np.arange(3), LEVELS).tolist())):
        left, probability = np.full(3, LEVELS), 1.0
        for token in order:
            probability *= RATES[token] * left[token] / np.sum(RATES * left)
            left[token] -= 1
        expected[order] = probability * len(walks)
    assert len(expected) == 90
    assert min(expected.values()) > 20
    seen = dict.fromkeys(expected, 0)
    for walk, count in zip(*np.unique(walks, axis=0, return_counts=True), strict=True):
        seen[tuple(walk.tolist())] = count
    return stats.chisquare(list(seen.values()), list(expected.values())).pvalue > FALSE_ALARM


# --- the walk ---


def test_every_walk_is_as_likely_as_its_definition_says():
    assert has_the_law(draw_walks(RATES, LEVELS, 100_000))
    assert has_the_law(literal_walks(RATES, LEVELS, 100_000))


@pytest.mark.parametrize(
    "twin",
    [
        forgetful_walks,
        lambda rates, levels, draws: draw_walks(np.ones(3), levels, draws),
        lambda rates, levels, draws: draw_walks(1 / rates, levels, draws),
    ],
    ids=["forgets what is left", "forgets the rates", "inverts the rates"],
)
def test_walks_of_another_law_are_rejected(twin):
    assert not has_the_law(twin(RATES, LEVELS, 100_000))


def test_a_longer_walk_agrees_with_the_literal_one():
    """Eight tokens, eight levels: how far each is half way, and who arrives last (two-sample tests)."""
    rates, levels, draws = np.random.default_rng(0).exponential(size=8), 8, 4000
    walks, literal = (draw(rates, levels, draws) for draw in (draw_walks, literal_walks))
    for token in (np.argmin(rates), np.argmax(rates)):
        climbed = [np.bincount((w[:, :32] == token).sum(axis=1), minlength=9) for w in (walks, literal)]
        table = np.stack(climbed)[:, np.sum(climbed, axis=0) >= 10]
        assert stats.chi2_contingency(table).pvalue > FALSE_ALARM
    last = np.stack([np.bincount(w[:, -1], minlength=8) for w in (walks, literal)])
    assert stats.chi2_contingency(last[:, last.sum(axis=0) >= 10]).pvalue > FALSE_ALARM


@pytest.mark.parametrize("spread", [0.0, 1.0, 10.0])
def test_every_token_climbs_every_level(spread):
    rates = np.random.default_rng(1).exponential(size=8) ** spread
    walks = draw_walks(rates, 8, 4000)
    assert walks.shape == (4000, 64)
    assert np.all(np.sort(walks, axis=1) == np.repeat(np.arange(8), 8)[None])
    assert len(np.unique(walks[:, :20], axis=0)) > 1


def test_positions_count_the_steps():
    walk = jnp.array([1, 0, 1, 2, 2, 0])
    expected = [[0, 0, 0], [0, 1, 0], [1, 1, 0], [1, 2, 0], [1, 2, 1], [1, 2, 2], [2, 2, 2]]
    assert np.array_equal(positions(walk, 3), expected)


def test_a_walk_without_levels_is_refused():
    for levels in (0, -1):
        with pytest.raises(ValueError, match=f"at least one level, got levels={levels}; give"):
            random_walk(jr.key(0), jnp.zeros(3), levels)


def test_walks_close_in_on_the_curve_like_one_over_root_n():
    """The mean largest distance of 64 walks; its fitted order has a standard error of about 0.02."""
    rates = np.array([0.2, 0.5, 1.0, 1.5, 3.0])
    levels, distances = np.array([10, 100, 1000]), []
    for n in levels:
        steps = np.arange(1, 5 * n)
        log_rates = jnp.log(jnp.asarray(rates, jnp.float32))
        curve = np.asarray(_times_and_speeds(trajectory, log_rates, jnp.asarray(steps / n, jnp.float32))[0])
        climbed = np.cumsum(draw_walks(rates, int(n), 64)[:, :-1, None] == np.arange(5), axis=1)
        distances.append(np.mean(np.abs(climbed / n - curve[None]).max(axis=(1, 2))))
    order = np.polyfit(np.log(levels), np.log(distances), 1)[0]
    assert -0.58 < order < -0.42, distances


# --- the curve ---

TOKENS = 64
CLOCKS = TOKENS * np.array([1e-6, 1e-3, 0.1, 0.3, 0.5, 0.7, 0.9, 0.999, 1 - 1e-6])


def diagonal(log_rates, s):
    """Wrong twin: all tokens alike, whatever their rates."""
    return jnp.full(log_rates.shape, s / log_rates.size)


def unsolved(log_rates, s):
    """Wrong twin: takes one clock for the other."""
    return 1 - jnp.exp(-jnp.exp(log_rates) * s / log_rates.size)


@functools.partial(jax.jit, static_argnums=0)
def _times_and_speeds(curve, log_rates, s):
    return jax.vmap(lambda at: jax.jvp(lambda x: curve(log_rates, x), (at,), (jnp.ones_like(at),)))(s)


def broken_laws(curve, log_rates):
    s = jnp.asarray(CLOCKS, jnp.float32)
    times, speeds = (np.asarray(values, np.float64) for values in _times_and_speeds(curve, log_rates, s))
    rates, exact_s = np.exp(np.asarray(log_rates, np.float64)), np.asarray(s, np.float64)
    clocks = rates * np.exp([exact_log_time(log_rates, x / TOKENS, 1 - x / TOKENS) for x in exact_s])[:, None]
    moving = rates * np.exp(-clocks)
    laws = {
        "starts at 0": times[0].max() <= 1.01 * exact_s[0],
        "ends at 1": times[-1].min() >= 1 - 1.01 * (TOKENS - exact_s[-1]) - 1e-7,
        "sums to s": np.allclose(times.sum(axis=1), exact_s, rtol=1e-5),
        "rises": speeds.min() >= 0 and np.diff(times, axis=0).min() >= 0,
        "at unit speed": np.allclose(speeds.sum(axis=1), 1, rtol=1e-5),
        "where the walk goes": np.allclose(speeds, moving / moving.sum(axis=1, keepdims=True), atol=2e-5),
    }
    return {name for name, holds in laws.items() if not holds}


def draw_log_rates(spread, tokens=TOKENS):
    return jnp.asarray(spread * np.log(np.random.default_rng(2).exponential(size=tokens)), jnp.float32)


@pytest.mark.parametrize("spread", [0.0, 0.3, 1.0, 3.0])
def test_the_curve_is_the_limit_of_the_walk(spread):
    assert broken_laws(trajectory, draw_log_rates(spread)) == set()


def test_other_curves_are_rejected():
    log_rates = draw_log_rates(1.0)
    assert broken_laws(diagonal, log_rates) == {"where the walk goes"}
    assert broken_laws(unsolved, log_rates) >= {"sums to s", "at unit speed"}


@pytest.mark.parametrize("tokens", [1, 4096])
def test_the_clocks_are_inverse_to_each_other(tokens):
    """From a millionth of the whole to all but a millionth, against float64."""
    log_rates = draw_log_rates(1.0, tokens)
    s = jnp.asarray(tokens / TOKENS * CLOCKS, jnp.float32)
    log_tau = jax.vmap(lambda at: log_auxiliary_clock(log_rates, at))(s)
    exact_s = np.asarray(s, np.float64)
    exact = [exact_log_time(log_rates, x / tokens, (tokens - x) / tokens) for x in exact_s]
    np.testing.assert_allclose(log_tau, exact, rtol=1e-6, atol=2e-6)
    back = jax.vmap(lambda at: physical_clock(log_rates, at))(log_tau)
    np.testing.assert_allclose(back, s, rtol=5e-6)


def test_along_the_curve_the_environment_cancels_from_the_next_step():
    log_rates = draw_log_rates(1.0)
    for log_tau in (-10.0, 0.0, 3.0):
        ell = jnp.exp(log_rates + log_tau)
        expected = np.exp(np.asarray(log_rates, np.float64)) * np.exp(-np.asarray(ell, np.float64))
        found = np.exp(np.asarray(log_transition_probabilities(ell), np.float64))
        np.testing.assert_allclose(found, expected / expected.sum(), rtol=2e-5, atol=1e-30)
