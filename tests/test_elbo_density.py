"""The density of a bound's time fields, against float64, its own integrals, and fields drawn by another route."""

import functools
import math

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy import special

from asyncpatch.elbo import log_density, token_log_weights
from asyncpatch.paths import Environment, clock
from asyncpatch.timesteps import OnPath

SPREADS = (0.3, 1.0, 1.5, 4.0)
LEVELS = (1e-5, 0.1, 0.5, 0.9, 1 - 1e-5)


def exact_log_density(ell, spread):
    """The formula as it stands, in float64."""
    ell, a, tokens = np.asarray(ell, np.float64), 1 / spread, len(ell)
    log_moving = special.logsumexp(np.log(ell) - ell)
    log_powers = special.logsumexp(a * np.log(ell))
    products = (a - 1) * np.sum(np.log(ell)) if spread != 1 else 0.0
    return (
        (tokens - 1) * math.log(a) + math.lgamma(tokens) + log_moving + products - tokens * log_powers + math.fsum(ell)
    )


def exact_log_weights(ell, spread):
    ell = np.asarray(ell, np.float64)
    log_moving = np.log(ell) - ell
    return exact_log_density(ell, spread) + log_moving - special.logsumexp(log_moving)


@functools.lru_cache
def draw_clocks(tokens, spread):
    """Clocks on a path of the environment, at each of `LEVELS`."""
    path = Environment((1,), (spread, spread)).sample(jr.key(tokens), 1, tokens)
    return jax.vmap(lambda r: path.clocks(r).ravel())(jnp.asarray(LEVELS))


def relative_error(found, exact):
    return np.max(np.abs(np.asarray(found, np.float64) - exact) / np.maximum(1, np.abs(exact)))


both = jax.jit(jax.vmap(lambda ell, spread: (log_density(ell, spread), token_log_weights(ell, spread)), (0, None)))


@pytest.mark.parametrize("tokens", [1, 2, 64, 4096])
def test_densities_and_weights_are_those_of_float64(tokens):
    for spread in SPREADS:
        # Clocks where this law puts them, and where another does.
        for ell in (draw_clocks(tokens, spread), draw_clocks(tokens, 1.0)):
            density, weights = both(ell, spread)
            exact = [exact_log_density(row, spread) for row in np.asarray(ell)]
            exact_weights = [exact_log_weights(row, spread) for row in np.asarray(ell)]
            assert relative_error(density, np.array(exact)) < 1e-5, spread
            # Of a clock of 1e4 a weight forgets what a density does: the error is relative to the larger of the two.
            larger = np.maximum(np.abs(exact_weights), np.maximum(1, np.abs(exact))[:, None])
            assert np.max(np.abs(np.asarray(weights, np.float64) - exact_weights) / larger) < 1e-5, spread


@jax.jit
def _values_and_gradients(inputs):
    def both(at):
        return jnp.stack([log_density(at[:-1], at[-1]), token_log_weights(at[:-1], at[-1])[2]])

    return jax.vmap(both)(inputs), jax.vmap(jax.jacrev(both))(inputs)


def in_float64(inputs):
    """Log-density and one log-weight at rows of clocks and a spread, and their gradients."""
    with jax.enable_x64(True):
        values, gradients = _values_and_gradients(jnp.asarray(inputs))
        return np.asarray(values), np.asarray(gradients)


def test_the_naive_sum_would_lose_these_digits():
    """Wrong twin: the same formula in float32, at its worst over twenty draws."""
    errors = []
    for seed in range(20):
        ell = np.random.default_rng(seed).exponential(size=4096).astype(np.float32)
        total, moving = np.sum(ell), np.sum(ell * np.exp(-ell))
        naive = np.float32(math.lgamma(4096)) + np.log(moving) + total - np.float32(4096) * np.log(total)
        errors.append(relative_error(naive, exact_log_density(ell, 1.0)))
    assert max(errors) > 5e-5


def test_at_spread_one_it_is_the_papers_density():
    """`rho = (d-1)! sum_j ell_j (1 - t_j) / (L^d V)`, written with times."""
    t = np.float32([0.2, 0.5, 0.9])
    ell = clock(jnp.asarray(t))
    t = t.astype(np.float64)
    clocks = -np.log1p(-t)
    common = 2 / (clocks.sum() ** 3 * np.prod(1 - t))
    np.testing.assert_allclose(np.exp(log_density(ell)), common * np.sum(clocks * (1 - t)), rtol=1e-5)
    np.testing.assert_allclose(np.exp(token_log_weights(ell)), common * clocks * (1 - t), rtol=1e-5)


def test_one_token_has_density_one_at_any_time():
    for ell in (1e-6, 1.0, 50.0):
        assert log_density(jnp.array([ell]), 3.0) == 0
        assert token_log_weights(jnp.array([ell]), 3.0) == 0


@pytest.mark.parametrize("spread", SPREADS)
def test_values_and_gradients_are_finite_for_many_tokens(spread):
    for tokens in (4096, 16_384):
        ell = draw_clocks(tokens, spread)[2]
        density, (on_ell, on_spread) = jax.jit(jax.value_and_grad(log_density, (0, 1)))(ell, spread)
        assert np.isfinite(density)
        assert np.isfinite(on_spread)
        assert np.all(np.isfinite(on_ell))
        assert np.all(np.isfinite(token_log_weights(ell, spread)))


def test_clocks_at_zero_are_allowed_at_spread_one():
    ell = jnp.array([0.0, 0.5, 1.0])
    assert np.isfinite(log_density(ell))
    weights = token_log_weights(ell)
    assert weights[0] == -jnp.inf
    assert np.all(np.isfinite(weights[1:]))


@pytest.mark.parametrize("scale", [0.01, 1.0, 1.25, 8.0])
def test_gradients_are_central_differences(scale):
    """In float64; the scales lie on both sides of where the series for mean clocks near 1 gives way."""
    ell = np.random.default_rng(0).exponential(size=5) ** 0.5
    ell *= scale / ell.mean()
    for spread in SPREADS:
        at = np.append(ell, spread)
        steps = 1e-5 * np.diag(at)
        values, gradients = in_float64(np.concatenate([at[None], at + steps, at - steps]))
        slopes = (values[1:7] - values[7:]) / (2 * np.diag(steps)[:, None])
        np.testing.assert_allclose(gradients[0].T, slopes, rtol=1e-6, atol=1e-6)


def test_gradients_in_float32_are_those_of_float64():
    ell = draw_clocks(4096, 1.5)[2]
    gradient = jax.jit(jax.grad(log_density))
    found = gradient(ell, 1.5)
    with jax.enable_x64(True):
        exact = gradient(jnp.asarray(np.asarray(ell), jnp.float64), 1.5)
    np.testing.assert_allclose(found, exact, rtol=2e-4, atol=2e-4 * np.abs(exact).mean())


# --- integrals ---

LOG_CLOCKS = np.linspace(-40, 40, 1601)
"""In log ell the integrands fall off exponentially on both sides, so that plain sums are exact."""


def over_another_token(function, spread):
    """`int function(t_1, t_2) dt_2` for a token 1 at time 1/2, in float64."""
    with jax.enable_x64(True):
        other = jnp.exp(jnp.asarray(LOG_CLOCKS[LOG_CLOCKS < 25]))  # past it, rounding of ell itself is felt
        ell = jnp.stack([jnp.full_like(other, math.log(2)), other], axis=1)
        log_values = jax.jit(jax.vmap(lambda at: function(at, spread)))(ell)
        values = np.exp(np.asarray(log_values - other)) * np.asarray(other)
        return np.sum(values) * (LOG_CLOCKS[1] - LOG_CLOCKS[0])


@pytest.mark.parametrize("spread", [0.5, 1.0, 1.5])
def test_weights_integrate_to_one_over_the_other_token(spread):
    assert over_another_token(lambda *at: token_log_weights(*at)[0], spread) == pytest.approx(1, abs=1e-5)


def test_other_weights_do_not_integrate_to_one():
    """Wrong twins: the next token's probability left out, and a power of the clocks left out."""
    assert abs(over_another_token(log_density, 1.0) - 1) > 0.1
    wrong = over_another_token(lambda ell, c: token_log_weights(ell, 1.0)[0] + (1 / c - 1) * jnp.sum(jnp.log(ell)), 1.5)
    assert abs(wrong - 1) > 0.1


@functools.lru_cache
def density_on_a_grid(spread):
    """Times of two tokens, evenly spaced in log ell, and what each stands for of `rho dt / d`, in float64."""
    log_clocks = np.linspace(-25, 25, 401)
    one, two = (np.exp(grid.ravel()) for grid in np.meshgrid(log_clocks, log_clocks))
    ell = np.stack([one, two], axis=1)
    with jax.enable_x64(True):
        log_density_ = np.asarray(jax.jit(jax.vmap(lambda at: log_density(at, spread)))(jnp.asarray(ell)))
    # dt = exp(-ell) ell d log ell; logarithms are added before they can overflow.
    masses = np.exp(log_density_ + np.sum(np.log(ell) - ell, axis=1)) * (log_clocks[1] - log_clocks[0]) ** 2 / 2
    return -np.expm1(-ell), masses


FEATURES = {
    "one token": lambda t: t[:, 0] * (1 - t[:, 0]),
    "both tokens": lambda t: 4 * (1 - t[:, 0]) * t[:, 0] * (1 - t[:, 1]) * t[:, 1],
    "difference": lambda t: (t[:, 0] - t[:, 1]) ** 2 * (1 - t[:, 0]),
}


@functools.lru_cache
def drawn_fields(spread):
    sampler = OnPath(Environment((1,), (spread, spread)))
    keys = jr.split(jr.key(0), 100_000)
    return np.asarray(jax.jit(jax.vmap(lambda key: sampler(key, 1, 2).ravel()))(keys), np.float64)


def far_off(feature, spread, other_spread):
    """By how many standard errors the average over drawn fields misses the integral."""
    values = FEATURES[feature](drawn_fields(spread))
    error = values.std() / np.sqrt(len(values))
    times, masses = density_on_a_grid(other_spread)
    return abs(values.mean() - np.sum(FEATURES[feature](times) * masses)) / error


@pytest.mark.parametrize("spread", [0.5, 1.0, 1.5])
@pytest.mark.parametrize("feature", FEATURES)
def test_fields_of_random_paths_have_this_density(feature, spread):
    """Five standard errors of 100,000 points of random paths: a false-alarm rate of 6e-7."""
    assert far_off(feature, spread, spread) < 5


@pytest.mark.parametrize("spread", [0.5, 1.5])
def test_the_density_of_another_spread_is_rejected(spread):
    assert far_off("difference", spread, 1.0) > 5
