"""Every path law keeps the invariants of paths; windows, stages and environments their formulas; orders are orders."""

import tracemalloc

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jaxtyping
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, special, stats

from asyncpatch.paths import (
    AbstractPath,
    AbstractPathLaw,
    AnyOrder,
    Environment,
    EnvironmentPath,
    Learned,
    Staged,
    StagedPath,
    Synchronous,
    Window,
    WindowPath,
    check_groups,
    clock,
    derivative,
    log_shared_time,
    outwards,
    random_order,
    raster,
    spiral,
    time_of_clock,
)

HEIGHT, WIDTH = 8, 8
FALSE_ALARM = 1e-4
STEP = 2.0**-8
"""Half the distance of the finite differences: exact in float32, and small beside the paths' straight pieces."""

LAWS = [
    Synchronous(),
    Window((1, 2, 4, 8)),
    Staged(raster(HEIGHT, WIDTH, 4)),
    Staged(spiral(HEIGHT, WIDTH, 3), overlap=0.3),
    Staged(raster(HEIGHT, WIDTH, 1), overlap=1.0),
    AnyOrder(2, overlap=0.7),
    Environment((1,), (0.0, 0.0)),
    Environment((1,), (0.3, 0.3)),
    Environment((4,)),
    Environment((2, 4, 8), (0.0, 1.5)),
    Learned(jnp.log(0.1), jr.normal(jr.key(0), (4, 3)), raster(HEIGHT, WIDTH, 4), patch=2),
]


class FallingWindow(AbstractPathLaw):
    """Wrong twin: leads beyond 1, so that late tokens fall first."""

    def sample(self, key, height, width):
        return WindowPath(1.5 * Window((1,)).sample(key, height, width).lead)


class UnfinishedPath(AbstractPath):
    """Wrong twin: stops just short of pure noise."""

    path: AbstractPath

    def __call__(self, r):
        return 0.999 * self.path(r)


class Unfinished(AbstractPathLaw):
    def sample(self, key, height, width):
        return UnfinishedPath(Window((1,)).sample(key, height, width))


class LatePath(AbstractPath):
    """Wrong twin: starts a hair above clean."""

    path: AbstractPath

    def __call__(self, r):
        return jnp.maximum(self.path(r), 1e-6)


class Late(AbstractPathLaw):
    def sample(self, key, height, width):
        return LatePath(Synchronous().sample(key, height, width))


@eqx.filter_jit
def walk(law, key, points):
    path = law.sample(key, HEIGHT, WIDTH)
    return jax.vmap(path)(points), jax.vmap(lambda r: derivative(path, r))(points)


def broken_laws(law, seed):
    """The names of the invariants that a random path of this law breaks."""
    inside = jr.uniform(jr.key(seed + 1), (29,), minval=2 * STEP, maxval=1 - 2 * STEP)
    around = jnp.stack([inside - STEP, inside, inside + STEP], axis=1).ravel()
    points = jnp.concatenate([jnp.zeros(1), jnp.sort(around), jnp.ones(1)])
    times, _ = map(np.asarray, walk(law, jr.key(seed), points))
    laws = {
        "starts at 0": np.all(times[0] == 0),
        "ends at 1": np.all(times[-1] == 1),
        "never falls": np.all(np.diff(times, axis=0) >= 0),
        "in [0, 1]": times.min() >= 0 and times.max() <= 1,
    }
    triples, slopes = map(np.asarray, walk(law, jr.key(seed), jnp.concatenate([jnp.zeros(1), around, jnp.ones(1)])))
    left, middle, right = np.moveaxis(triples[1:-1].reshape(-1, 3, HEIGHT, WIDTH), 1, 0)
    before, after = (middle - left) / STEP, (right - middle) / STEP
    # Float32 times are good to about 1e-6 of the longest of these paths, divided by STEP.
    tolerance = 2e-2
    jvp = slopes[1:-1].reshape(-1, 3, HEIGHT, WIDTH)[:, 1]
    least, most = np.minimum(before, after) - tolerance, np.maximum(before, after) + tolerance
    laws["derivative"] = np.all((jvp >= least) & (jvp <= most))
    return {name for name, holds in laws.items() if not holds}


@pytest.mark.parametrize("law", LAWS, ids=repr)
@given(seed=st.integers(0, 2**16))
def test_invariants_of_every_path_law(law, seed):
    assert broken_laws(law, seed) == set()


@pytest.mark.parametrize(
    ("twin", "name"), [(FallingWindow(), "never falls"), (Unfinished(), "ends at 1"), (Late(), "starts at 0")]
)
def test_wrong_twins_are_rejected(twin, name):
    assert name in broken_laws(twin, seed=0)


@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_same_key_same_path(law):
    points = jnp.linspace(0, 1, 5)
    first, second = (walk(law, jr.key(3), points)[0] for _ in range(2))
    assert np.array_equal(first, second)


@pytest.mark.parametrize("law", [Window((1, 2, 4, 8)), AnyOrder(2), Environment((1,))], ids=repr)
def test_other_key_other_path(law):
    points = jnp.array([0.0, 0.4, 1.0])
    assert not np.array_equal(walk(law, jr.key(3), points)[0], walk(law, jr.key(4), points)[0])


@given(seed=st.integers(0, 2**16))
def test_window_is_its_formula(seed):
    path = Window((1, 2, 4)).sample(jr.key(seed), HEIGHT, WIDTH)
    lead = np.asarray(path.lead, np.float64)
    assert np.abs(lead).max() <= 1
    for r in (0.1, 0.5, 0.8):
        np.testing.assert_allclose(path(jnp.float32(r)), r + min(r, 1 - r) * lead, atol=1e-6)


def test_window_leads_are_uniform_and_constant_on_patches():
    keys = jr.split(jr.key(5), 4000)
    lead = np.asarray(jax.jit(jax.vmap(lambda key: Window((4,)).sample(key, HEIGHT, WIDTH).lead))(keys))
    assert np.array_equal(lead, np.repeat(np.repeat(lead[:, ::4, ::4], 4, axis=1), 4, axis=2))
    assert stats.kstest(lead[:, 0, 5], stats.uniform(-1, 2).cdf).pvalue > FALSE_ALARM


@given(seed=st.integers(0, 2**16))
def test_staged_without_overlap_is_one_group_after_another(seed):
    groups = random_order(jr.key(seed), HEIGHT, WIDTH, 2)
    count = 16
    path = Staged(groups).sample(jr.key(0), HEIGHT, WIDTH)
    for progress in np.linspace(0, 1, 9):
        expected = np.clip(1 - (progress * count - np.asarray(groups)), 0, 1)
        np.testing.assert_allclose(path(jnp.float32(1 - progress)), expected, atol=1e-5)


def test_overlap_widens_the_windows_until_all_groups_move_together():
    groups = raster(HEIGHT, WIDTH, 2)
    moving = []
    for overlap in (0.0, 0.5, 0.9, 1.0):
        times = np.asarray(Staged(groups, overlap).sample(jr.key(0), HEIGHT, WIDTH)(jnp.float32(0.47)))
        moving.append(np.mean((times > 0) & (times < 1)))
    assert moving[0] <= 1 / 16
    assert moving == sorted(moving)
    np.testing.assert_allclose(times, 0.47, atol=1e-6)


@given(seed=st.integers(0, 2**16), overlap=st.integers(0, 1000))
def test_ends_of_staged_paths_are_exact_for_any_overlap(seed, overlap):
    groups = random_order(jr.key(seed), HEIGHT, WIDTH, 1)
    times, _ = walk(Staged(groups, overlap / 1000), jr.key(0), jnp.array([0.0, 0.4, 1.0]))
    assert np.all(times[0] == 0)
    assert np.all(times[2] == 1)


def test_one_program_serves_every_order_and_overlap():
    traces = []

    @jax.jit
    def half_way(groups, overlap):
        traces.append(groups.shape)
        return StagedPath(groups, overlap)(jnp.float32(0.5))

    for patch in (1, 2, 4, 8):
        half_way(raster(HEIGHT, WIDTH, patch), jnp.float32(patch / 8))
    half_way(spiral(HEIGHT, WIDTH, 3), jnp.float32(0))
    assert len(traces) == 1


def test_any_order_gives_every_patch_every_rank():
    keys = jr.split(jr.key(7), 4000)
    groups = np.asarray(jax.jit(jax.vmap(lambda key: AnyOrder(4).sample(key, HEIGHT, WIDTH).groups))(keys))
    assert np.all(np.sort(groups[:, ::4, ::4].reshape(-1, 4), axis=1) == np.arange(4))
    for row, col in ((0, 0), (4, 4)):
        counts = np.bincount(groups[:, row, col], minlength=4)
        assert stats.chisquare(counts).pvalue > FALSE_ALARM


@pytest.fixture
def as_users_run_it():
    """Without the run-time type checks, so that the package's own messages are seen."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


# --- environments ---

LEVELS = np.array([1e-6, 1e-3, 0.3, 0.47, 0.53, 0.7, 0.999, 1 - 1e-6])
"""Mean levels, none of them where a few tokens of very different rates are all at rest."""


def exact_log_time(log_rates, level, missing):
    """`log tau` by bisection in float64."""
    log_rates = np.asarray(log_rates, np.float64)

    def off(log_tau):
        log_clocks = np.minimum(log_rates + log_tau, 700)
        if level < 0.5:
            return special.logsumexp(np.log(-np.expm1(-np.exp(log_clocks)))) - np.log(log_rates.size * level)
        return np.log(log_rates.size * missing) - special.logsumexp(-np.exp(log_clocks))

    centre = np.log(-np.log(missing) if level > 0.5 else level)
    return optimize.brentq(off, centre - log_rates.max() - 1, centre - log_rates.min() + 1, xtol=1e-12)


@pytest.mark.parametrize("tokens", [1, 4, 64, 4096])
def test_the_shared_time_is_solved_for_as_well_as_float32_can(tokens):
    """Against bisection in float64: for levels from 1e-6 to 1 - 1e-6, from equal rates to one token at a time."""
    rng = np.random.default_rng(0)
    spreads = np.array([0.0, 0.1, 1.0, 3.0, 10.0])
    log_rates = np.float32(spreads[:, None] * np.log(rng.exponential(size=tokens)))
    level, missing = np.float32(LEVELS), np.float32(1) - np.float32(LEVELS)
    solve = jax.vmap(jax.vmap(log_shared_time, in_axes=(None, 0, 0)), in_axes=(0, None, None))
    found = np.asarray(jax.jit(solve)(*map(jnp.asarray, (log_rates, level, missing))), np.float64)
    for i, j in np.ndindex(found.shape):
        exact = exact_log_time(log_rates[i], float(level[j]), float(missing[j]))
        assert abs(found[i, j] - exact) < 2e-6 * max(1, abs(exact)), (spreads[i], level[j])


def test_the_shared_time_has_its_first_and_second_derivatives():
    """Against central differences in float64."""

    def log_tau(inputs):
        return log_shared_time(inputs[:4], inputs[4], 1 - inputs[4])

    @jax.jit
    @jax.vmap
    def derivatives(inputs):
        return log_tau(inputs), jax.grad(log_tau)(inputs), jax.hessian(log_tau)(inputs)

    log_rates = np.log(np.random.default_rng(1).exponential(size=4))
    for level in (1e-3, 0.2, 0.8, 0.999):
        at = np.append(log_rates, level)
        # The level is moved in proportion to its distance from the nearer end.
        steps = 1e-5 * np.diag([1, 1, 1, 1, min(level, 1 - level)])
        with jax.enable_x64(True):
            inputs = jnp.asarray(np.concatenate([at[None], at + steps, at - steps]))
            values, gradients, hessians = (np.asarray(part) for part in derivatives(inputs))
        twice = 2 * np.diag(steps)
        np.testing.assert_allclose(gradients[0], (values[1:6] - values[6:]) / twice, rtol=1e-6, atol=1e-8)
        curvatures = (gradients[1:6] - gradients[6:]) / twice[:, None]
        np.testing.assert_allclose(hessians[0], curvatures, rtol=1e-6, atol=1e-6 * np.abs(curvatures).max())


@pytest.mark.parametrize("spread", [0.0, 1.0, 10.0])
def test_the_mean_of_an_environments_field_is_its_parameter(spread):
    path = EnvironmentPath(spread * -jr.gumbel(jr.key(1), (HEIGHT, WIDTH)))
    points = jnp.asarray(LEVELS, jnp.float32)
    times, clocks, slopes = jax.jit(jax.vmap(lambda r: (path(r), path.clocks(r), derivative(path, r))))(points)
    exact = np.asarray(points, np.float64)
    np.testing.assert_allclose(np.asarray(times, np.float64).mean(axis=(1, 2)), exact, rtol=2e-5)
    left = np.exp(-np.asarray(clocks, np.float64)).mean(axis=(1, 2))
    np.testing.assert_allclose(left, 1 - exact, rtol=2e-5)
    np.testing.assert_allclose(np.asarray(slopes, np.float64).mean(axis=(1, 2)), 1, rtol=2e-5)
    assert np.all(slopes >= 0)


@pytest.mark.parametrize("spread", [0.0, 1.0, 10.0])
def test_an_environments_slope_is_finite_at_both_ends(spread):
    path = EnvironmentPath(spread * -jr.gumbel(jr.key(1), (HEIGHT, WIDTH)))
    for end in (0.0, 1.0):
        slope = derivative(path, jnp.float32(end))
        assert np.all(np.isfinite(slope))
        np.testing.assert_allclose(np.mean(slope), 1, rtol=1e-4)


def test_the_rates_of_an_environment_are_powers_of_exponential_variables():
    law, keys = Environment((4,), (2.0, 2.0)), jr.split(jr.key(9), 4000)
    log_rates = np.asarray(jax.jit(jax.vmap(lambda key: law.sample(key, HEIGHT, WIDTH).log_rates))(keys), np.float64)
    assert np.array_equal(log_rates, np.repeat(np.repeat(log_rates[:, ::4, ::4], 4, axis=1), 4, axis=2))
    for row, col in ((0, 0), (4, 4)):
        assert stats.kstest(np.exp(log_rates[:, row, col] / 2), stats.expon.cdf).pvalue > FALSE_ALARM


def test_an_environments_spread_is_drawn_evenly_between_its_ends():
    """`log E` has variance pi^2 / 6 and mean square 1.978, so that rates of spread `c ~ U(1, 3)` have 13/3 of it."""
    law, keys = Environment((8,), (1.0, 3.0)), jr.split(jr.key(9), 4000)
    log_rates = np.asarray(jax.jit(jax.vmap(lambda key: law.sample(key, HEIGHT, WIDTH).log_rates))(keys), np.float64)
    squares = log_rates[:, 0, 0] ** 2
    expected = 13 / 3 * (np.pi**2 / 6 + np.euler_gamma**2)
    # Five standard errors: a false-alarm rate of 6e-7 for a normal mean.
    assert abs(squares.mean() - expected) < 5 * squares.std() / np.sqrt(4000)


def test_clocks_and_times_are_inverse_also_where_times_round():
    ell = jnp.array([0.0, 1e-30, 1e-6, 0.5, 3.0, 10.0])
    np.testing.assert_allclose(clock(time_of_clock(ell)), ell, rtol=2e-3)
    assert clock(jnp.float32(1)) == jnp.inf
    assert time_of_clock(jnp.float32(jnp.inf)) == 1
    late = jnp.array([20.0, 40.0])  # where 1 - t is 0 in float32
    np.testing.assert_allclose(jax.vmap(jax.grad(time_of_clock))(late), np.exp(-np.asarray(late)), rtol=1e-5)


@pytest.mark.parametrize("time", [-0.1, 1.5, float("nan")])
def test_times_outside_the_unit_interval_have_no_clock(time):
    with pytest.raises(ValueError, match=r"times must lie in \[0, 1\], got values from .*; rescale"):
        clock(jnp.array([0.5, time]))


@pytest.mark.parametrize("spread", [(1.0,), (-0.5, 1.0), (2.0, 1.0), (0.0, float("inf")), (float("nan"), 1.0)])
@pytest.mark.usefixtures("as_users_run_it")
def test_a_bad_spread_is_refused(spread):
    with pytest.raises(ValueError, match=r"spread must be two numbers \(least, most\) with 0 <= least <= most, got"):
        Environment((1,), spread)


# --- orders, and bad input ---


@pytest.mark.parametrize("patch", [1, 2, 3, 8])
@pytest.mark.parametrize("build", [raster, spiral, lambda *grid: random_order(jr.key(0), *grid)])
def test_orders_number_each_patch_once(build, patch):
    groups = np.asarray(build(8, 5, patch))
    assert groups.dtype == np.int32
    assert np.array_equal(check_groups(groups), groups)
    corners = groups[::patch, ::patch]
    assert sorted(corners.ravel()) == list(range(corners.size))
    assert np.array_equal(groups, np.kron(corners, np.ones((patch, patch), int))[:8, :5])


def test_raster_reads_like_a_page():
    assert np.array_equal(raster(4, 6, 2)[::2, ::2], [[0, 1, 2], [3, 4, 5]])


@pytest.mark.parametrize("shape", [(8, 8), (7, 7), (4, 9), (9, 4), (1, 5), (5, 1), (1, 1), (2, 3)])
def test_spiral_moves_to_a_neighbour_from_the_innermost_ring_to_a_corner(shape):
    groups = np.asarray(spiral(*shape, 1))
    places = np.argwhere(groups >= 0)[np.argsort(groups.ravel())]
    assert np.all(np.abs(np.diff(places, axis=0)).sum(axis=1) == 1)
    assert tuple(places[-1]) == (0, 0)
    assert np.min([places[0], np.array(shape) - 1 - places[0]]) == (min(shape) - 1) // 2


@pytest.mark.parametrize(
    ("groups", "error", "text"),
    [
        (np.zeros((2, 2)), TypeError, "must be integers"),
        (np.zeros(4, int), ValueError, "one number per token"),
        (np.zeros((0, 2), int), ValueError, "one number per token"),
        (np.array([[0, 1], [3, 1]]), ValueError, r"missing, at most five shown: \[2\]"),
        (np.array([[1, 2], [2, 1]]), ValueError, "0..G-1"),
        (np.array([[-1, 0], [0, 1]]), ValueError, "from -1 to 1"),
    ],
)
def test_bad_orders_are_refused(groups, error, text):
    for build in (check_groups, Staged):
        with pytest.raises(error, match=text):
            build(groups)


@pytest.mark.parametrize("large", [10**6, 10**9, 2**31, 2**62, 2**64 - 1, -(10**9), -(2**62)])
def test_refusing_groups_costs_no_more_than_the_groups(large):
    groups = np.arange(64, dtype=np.uint64 if large > 2**63 else np.int64).reshape(8, 8)
    groups[3, 4] = large
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"none left out, .*at most five shown: \[(28|63)") as error:
            check_groups(groups)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10**6
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("patch_sizes", [(), (0,), (4, -1), (1.5,), [4], (np.int64(-2),)])
def test_bad_patch_sizes_are_refused(patch_sizes):
    for law in (Window, Environment):
        with pytest.raises((ValueError, TypeError)):
            law(patch_sizes)


def test_error_texts_say_what_to_do():
    with pytest.raises(ValueError, match=r"tuple of one or more positive integers, got \(0,\).*give"):
        Window((0,))
    with pytest.raises(ValueError, match="patch of 16x16 is larger than the grid of 8x8; give"):
        Window((4, 16)).sample(jr.key(0), HEIGHT, WIDTH)
    with pytest.raises(ValueError, match="patch of 16x16 is larger"):
        raster(HEIGHT, WIDTH, 16)
    with pytest.raises(ValueError, match="grid of 4x4 tokens, but the path is asked for 8x8"):
        Staged(raster(4, 4, 2)).sample(jr.key(0), HEIGHT, WIDTH)
    for overlap in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match=r"overlap must be in \[0, 1\]"):
            Staged(raster(4, 4, 2), overlap)
        with pytest.raises(ValueError, match=r"overlap must be in \[0, 1\]"):
            AnyOrder(2, overlap)


# --- outwards from what is known ---


def test_rings_grow_outwards_from_what_is_known():
    known = np.zeros((5, 9), bool)
    known[2, 3:5] = True
    groups = np.asarray(outwards(known, 2))
    assert np.array_equal(check_groups(groups), groups)
    rows, cols = np.argwhere(known).T
    away = np.maximum(np.abs(np.arange(5)[:, None, None] - rows), np.abs(np.arange(9)[None, :, None] - cols)).min(-1)
    assert np.array_equal(groups, np.maximum(-(-away // 2) - 1, 0))
    assert np.array_equal(np.asarray(outwards(known, 20)), np.zeros((5, 9)))
    assert np.array_equal(np.asarray(outwards(np.ones((2, 2), bool), 1)), np.zeros((2, 2)))


@pytest.mark.parametrize(
    ("known", "patch", "error", "text"),
    [
        (np.zeros((2, 3), bool), 1, ValueError, r"got shape \(2, 3\) with 0 known; give a region that knows something"),
        (np.ones(3, bool), 1, ValueError, r"got shape \(3,\)"),
        (np.ones((2, 3)), 1, TypeError, "known must be boolean"),
        (np.ones((2, 3), bool), 0, ValueError, "positive integers"),
    ],
)
def test_rings_around_nothing_are_refused(known, patch, error, text):
    with pytest.raises(error, match=text):
        outwards(known, patch)
