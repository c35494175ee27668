"""Every training law of times is the law it states: its mean, its tokens, its spread and its scale.

One battery, run on a sample of each law and on a wrong twin of it that it must reject. Goodness of fit is by
Kolmogorov-Smirnov at a false-alarm rate of 1e-4, averages by five standard errors (6e-7); seeds are fixed.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy import integrate, special, stats

from asyncpatch.masks import Square
from asyncpatch.paths import AnyOrder, Window, clock, time_of_clock
from asyncpatch.paths import Environment as EnvironmentPaths
from asyncpatch.timesteps import (
    AbstractTimestepSampler,
    AsyncPatch,
    Environment,
    Independent,
    Margins,
    Masked,
    MeanBeta,
    OnPath,
    PatchForcing,
    Patchwise,
    Perlin,
    Regions,
    Synchronous,
)
from asyncpatch.timesteps.mean_beta import split_mean
from asyncpatch.timesteps.perlin import perlin_noise

SIDE = 8
TOKENS = SIDE * SIDE
DRAWS = 4000
FALSE_ALARM = 1e-4
STANDARD_ERRORS = 5

Cdf = Callable[[np.ndarray], np.ndarray]


def tabulated(cdf: Cdf) -> Cdf:
    """A smooth distribution function, computed on a grid once: good to about 1e-5."""
    grid = np.linspace(0, 1, 1001)
    values = cdf(grid)
    return lambda x: np.interp(x, grid, values)


# ---------------------------------------------------------------- the stated laws, in closed form or by quadrature


def uniform_cdf(x):
    return np.clip(x, 0, 1)


def independent_mean_cdf(cells):
    """Mean of `cells` uniforms: exact for few, and normal to 4 digits for 16 and more."""
    if cells < 16:
        return stats.irwinhall(cells, scale=1 / cells).cdf
    return stats.norm(0.5, 1 / np.sqrt(12 * cells)).cdf


def window_token_cdf(x):
    """The integral of the one-patch density `-(1/2) log(t (1 - t))`."""
    return x + (special.xlogy(1 - x, 1 - x) - special.xlogy(x, x)) / 2


def window_mean_cdf(cells):
    """`r + min(r, 1 - r) q` rises in `r`, so given the mean lead `q` its law is the inverse of that map."""
    if cells == 1:
        return window_token_cdf
    quantiles = (np.arange(400) + 0.5) / 400
    lead = 2 * stats.norm(0.5, 1 / np.sqrt(12 * cells)).ppf(quantiles) - 1
    if cells < 16:
        grid = np.linspace(0, 1, 10_001)
        lead = 2 * np.interp(quantiles, independent_mean_cdf(cells)(grid), grid) - 1

    def cdf(x):
        x, q = x[:, None], lead[None, :]
        return np.where(2 * x <= 1 + q, x / (1 + q), 1 - (1 - x) / (1 - q)).mean(axis=1)

    return tabulated(cdf)


def perlin_mean_cdf(x):
    """Mean of `a t1 + (1 - a) t2`: a trapezoid for each area `a`, averaged over the areas."""
    large = np.maximum(np.arange(TOKENS + 1), np.arange(TOKENS, -1, -1))[None, :] / TOKENS
    small = 1 - large
    x = x[:, None]
    near = np.minimum(x, 1 - x)
    corner = near**2 / (2 * np.maximum(small, 1e-9) * large)
    below_half = np.where(near < small, corner, (near - small / 2) / large)
    return np.where(x < 0.5, below_half, 1 - below_half).mean(axis=1)


RATIO_QUANTILES = (np.arange(10_000) + 0.5) / 10_000


def rate_ratios(spread):
    """Equally likely ratios of two rates `E^c`: that of two exponential variables is `v / (1 - v)`, `v ~ U(0, 1)`."""
    return (RATIO_QUANTILES / (1 - RATIO_QUANTILES)) ** spread


def environment_token_cdf(x, cells, spread):
    """With odds `1 / cells` the token that the moment was drawn by; else `1 - exp(-ratio E)`, `E ~ Exp(1)`."""
    return x / cells + (1 - 1 / cells) * -np.expm1(np.log1p(-x) / rate_ratios(spread)).mean()


def environment_spread(cells, spread):
    """`E[t^2]` of a token, by the Laplace transform of `E`, minus that of the mean, which is uniform."""
    ratio = rate_ratios(spread)
    other = np.mean(1 - 2 / (1 + ratio) + 1 / (1 + 2 * ratio))
    return (1 - 1 / cells) * (other - 1 / 3)


def regions_token_cdf(x, known):
    """With odds `known / 2` the product of two uniforms, else one."""
    return x + known / 2 * (-x * np.log(np.clip(x, 1e-300, 1)))


def regions_mean_cdf(cells, known):
    """`t (1 - k (1 - b))`, where any number of the cells is known equally often."""
    share = np.arange(cells + 1)[:, None] / cells
    reached = 1 - share * np.linspace(0.0005, 0.9995, 1000)
    return tabulated(lambda x: np.array([(1 - known) * y + known * np.minimum(1, y / reached).mean() for y in x]))


def patch_forcing_cdf(mean_step):
    """Law of `1 - s (1 - h)` with `logit s ~ N(0.7, 1)`, averaged over equally likely values of `h`."""

    def cdf(x):
        signal = np.clip((1 - x[:, None]) / (1 - mean_step[None, :]), 0, 1)
        return stats.norm.sf(special.logit(signal) - 0.7).mean(axis=1)

    return tabulated(cdf)


def truncated_steps(shape):
    """Half-normals of deviation 1/2, redrawn uniformly where they exceed 1: an independent way to draw them."""
    rng = np.random.default_rng(0)
    steps = stats.halfnorm(scale=0.5).rvs(shape, random_state=rng)
    return np.where(steps > 1, rng.uniform(size=shape), steps)


def recursive_beta(rng, total, count):
    """Independent statement of the recursive split, in sums and with NumPy's own Beta generator."""
    if count == 1:
        return total[:, None]
    first, second = count // 2, count - count // 2
    concentration = (count - 1 - count % 2) ** 1.05
    least, most = np.maximum(total - second, 0), np.minimum(total, first)
    share = least + (most - least) * rng.beta(concentration, concentration, total.shape)
    return np.concatenate([recursive_beta(rng, share, first), recursive_beta(rng, total - share, second)], axis=1)


@functools.lru_cache
def beta_fields(tokens):
    rng = np.random.default_rng(1)
    return recursive_beta(rng, rng.uniform(size=10 * DRAWS) * tokens, tokens)


def straddling(patch):
    """The fraction of horizontal neighbours that belong to different patches."""
    return (SIDE // patch - 1) / (SIDE - 1)


# ------------------------------------------------------------------------------------------- the battery


@dataclasses.dataclass
class Case:
    """A law, what it states, and a twin that does not keep it.

    `spread` is the expected variance inside an image and `roughness` the expected squared difference of horizontal
    neighbours; None where a law has no closed form for it and a test of its own below.
    """

    name: str
    law: AbstractTimestepSampler
    twin: Callable
    mean_cdf: Cdf | None
    token_cdf: Cdf | None
    spread: float | None
    roughness: float | None
    constant_on: int = 1
    draws: int = DRAWS


def window_spread(cells):
    """`E min(r, 1-r)^2 Var(q) (1 - 1/cells)`."""
    return (1 - 1 / cells) / 36


@dataclasses.dataclass(frozen=True)
class WiderWindow:
    """Wrong twin: AsyncPatch's window, a tenth too wide and clipped to [0, 1]."""

    patch: int

    def __call__(self, key, height, width):
        r_key, lead_key = jr.split(key)
        r = jr.uniform(r_key)
        lead = Window((self.patch,)).sample(lead_key, height, width).lead
        return jnp.clip(r + 1.1 * jnp.minimum(r, 1 - r) * lead, 0.0, 1.0)


def wider_spread(law):
    """Wrong twin: every time pushed from 1/2 by a tenth."""
    return lambda *args: jnp.clip(0.5 + 1.1 * (law(*args) - 0.5), 0.0, 1.0)


def squared(law):
    """Wrong twin: every time squared."""
    return lambda *args: law(*args) ** 2


def mirrored(law):
    """Wrong twin: the direction of time confused."""
    return lambda *args: 1 - law(*args)


def half_area(key, height, width):
    """Wrong twin of Perlin: cut at the middle rank, so that both regions have the same area."""
    noise_key, time_key = jr.split(key)
    noise = perlin_noise(noise_key, jnp.asarray(4), height, width)
    inside_time, outside_time = jr.uniform(time_key, (2,))
    return jnp.where(noise < jnp.median(noise), inside_time, outside_time)


def wrong_polarity(key, height, width):
    """Wrong twin of Masked: the hidden tokens are the clean ones."""
    mask_key, time_key = jr.split(key)
    return jnp.where(Square()(mask_key, height, width), jr.uniform(time_key), 0.0)


@dataclasses.dataclass(frozen=True)
class FirstToken:
    """Wrong twin of the environment: the moment is always drawn by the first token."""

    law: EnvironmentPaths

    def __call__(self, key, height, width):
        path_key, level_key = jr.split(key)
        log_rates = self.law.sample(path_key, height, width).log_rates
        return time_of_clock(jnp.exp(log_rates - log_rates[0, 0] + jnp.log(clock(jr.uniform(level_key)))))


CASES = [
    Case("synchronous", Synchronous(), squared(Synchronous()), uniform_cdf, uniform_cdf, 0, 0, SIDE),
    Case(
        "independent",
        Independent(),
        Patchwise((2,)),
        independent_mean_cdf(TOKENS),
        uniform_cdf,
        (1 - 1 / TOKENS) / 12,
        1 / 6,
    ),
    Case(
        "patchwise",
        Patchwise((4,)),
        Patchwise((4, 8)),
        independent_mean_cdf(4),
        uniform_cdf,
        (1 - 1 / 4) / 12,
        straddling(4) / 6,
        4,
    ),
    Case("perlin", Perlin(), half_area, tabulated(perlin_mean_cdf), uniform_cdf, (1 - 1 / TOKENS) / 36, None),
    Case(
        "asyncpatch, one patch",
        AsyncPatch((SIDE,)),
        WiderWindow(SIDE),
        window_mean_cdf(1),
        window_token_cdf,
        0,
        0,
        SIDE,
        # The twin's distribution differs by at most 0.023, at the two ends.
        draws=40_000,
    ),
    Case(
        "asyncpatch, four patches",
        AsyncPatch((4,)),
        WiderWindow(4),
        window_mean_cdf(4),
        window_token_cdf,
        window_spread(4),
        straddling(4) / 18,
        4,
    ),
    Case(
        "asyncpatch, every token",
        AsyncPatch((1,)),
        WiderWindow(1),
        window_mean_cdf(TOKENS),
        window_token_cdf,
        window_spread(TOKENS),
        1 / 18,
    ),
    Case(
        "on path",
        OnPath(Window((1,))),
        squared(OnPath(Window((1,)))),
        window_mean_cdf(TOKENS),
        window_token_cdf,
        window_spread(TOKENS),
        1 / 18,
    ),
    Case(
        "masked",
        Masked(Square()),
        wrong_polarity,
        lambda x: uniform_cdf(4 * x),
        None,
        # t^2 u (1 - u) with a quarter unknown.
        1 / 16,
        None,
    ),
    Case(
        "regions",
        Regions((1,), together=0.25, clean=0.0),
        # Too few fields of one time.
        Regions((1,), together=0.0, clean=0.0),
        regions_mean_cdf(TOKENS, 0.75),
        lambda x: regions_token_cdf(x, 0.75),
        0.75 * (1 - 1 / TOKENS) / 54,
        0.75 / 27,
    ),
    Case(
        "regions, of which half are clean",
        Regions((4,), together=0.0),
        Regions((4,), together=0.0, clean=0.0),
        None,
        None,
        (1 - 1 / 4) * (1 / 2 + 1 / 6) / 18,
        straddling(4) * (1 / 2 + 1 / 6) * 2 / 18,
        4,
    ),
    Case("mean-beta", MeanBeta(), wider_spread(MeanBeta()), uniform_cdf, None, None, None),
    Case(
        "patch forcing",
        PatchForcing((1,)),
        mirrored(PatchForcing((1,))),
        patch_forcing_cdf(truncated_steps((1000, TOKENS)).mean(axis=1)),
        patch_forcing_cdf(np.sort(truncated_steps(1000))),
        None,
        None,
    ),
    Case(
        "environment",
        Environment(EnvironmentPaths((1,))),
        Environment(EnvironmentPaths((1,), (2.0, 2.0))),
        uniform_cdf,
        None,
        environment_spread(TOKENS, 1),
        2 * environment_spread(TOKENS, 1) / (1 - 1 / TOKENS),
    ),
    Case(
        "environment, four patches of very different rates",
        Environment(EnvironmentPaths((4,), (3.0, 3.0))),
        # The paper's rates.
        Environment(EnvironmentPaths((4,))),
        uniform_cdf,
        None,
        environment_spread(4, 3),
        straddling(4) * 2 * environment_spread(4, 3) / (1 - 1 / 4),
        4,
    ),
    Case(
        "environment of equal rates",
        Environment(EnvironmentPaths((1,), (0.0, 0.0))),
        squared(Environment(EnvironmentPaths((1,), (0.0, 0.0)))),
        uniform_cdf,
        uniform_cdf,
        0,
        0,
        SIDE,
    ),
]


@functools.lru_cache
def draw(law, seed=0, draws=DRAWS, height=SIDE, width=SIDE):
    keys = jr.split(jr.key(seed), draws)
    return np.asarray(jax.jit(jax.vmap(lambda key: law(key, height, width)))(keys))


def average_is(values, expected):
    """Whether independent values average to `expected`, within the stated number of standard errors."""
    error = STANDARD_ERRORS * values.std() / np.sqrt(len(values))
    return abs(values.mean() - expected) <= error + 1e-12


def fits(values, cdf):
    return stats.kstest(values.astype(np.float64), cdf).pvalue > FALSE_ALARM


def broken_laws(case, times):
    """The names of the stated laws that a sample of time fields breaks."""
    means = times.astype(np.float64).mean(axis=(1, 2))
    blocks = times[:, :: case.constant_on, :: case.constant_on]
    spread_out = np.repeat(np.repeat(blocks, case.constant_on, axis=1), case.constant_on, axis=2)
    laws = {
        "in [0, 1]": times.min() >= 0 and times.max() <= 1,
        "mean": case.mean_cdf is None or fits(means, case.mean_cdf),
        "scale": np.array_equal(times, spread_out),
    }
    if case.token_cdf is not None:
        laws["token"] = all(fits(times[:, row, col], case.token_cdf) for row, col in ((0, 0), (5, 3)))
    if case.spread is not None:
        laws["spread"] = average_is(times.var(axis=(1, 2), dtype=np.float64), case.spread)
    if case.roughness is not None:
        roughness = np.mean(np.diff(times, axis=2) ** 2, axis=(1, 2), dtype=np.float64)
        laws["roughness"] = average_is(roughness, case.roughness)
    return {name for name, holds in laws.items() if not holds}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_law_is_as_stated(case):
    assert broken_laws(case, draw(case.law, draws=case.draws)) == set()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_wrong_twin_is_rejected(case):
    assert broken_laws(case, draw(case.twin, draws=case.draws)) & {"mean", "token", "spread"}


LAWS = [case.law for case in CASES]
LAWS += [AsyncPatch((1, 2, 4, 8), max_spread=0.1), PatchForcing((2, 8)), OnPath(AnyOrder(2)), Margins(Synchronous())]
LAWS += [OnPath(EnvironmentPaths((2,))), Environment(EnvironmentPaths((1, 2, 4), (0.0, 10.0)))]


@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_one_program_serves_every_draw_on_any_grid(law):
    """Keys decide and nothing else; the grid need not be square, nor a multiple of the patch."""
    traces = []

    @jax.jit
    def field(key):
        traces.append(key)
        return law(key, 9, 11)

    fields = [np.asarray(field(jr.key(seed))) for seed in (0, 0, 1, 2, 3, 4, 5, 6)]
    assert all(times.shape == (9, 11) and times.min() >= 0 and times.max() <= 1 for times in fields)
    assert np.array_equal(fields[0], fields[1])
    assert len({times.tobytes() for times in fields}) == len(fields) - 1
    assert len(traces) == 1


# ------------------------------------------------------------------------------------------- laws of single samplers


def test_window_token_cdf_is_the_integral_of_the_density():
    for t in (0.01, 0.3, 0.8):
        density = integrate.quad(lambda u: -np.log(u * (1 - u)) / 2, 0, t)[0]
        assert window_token_cdf(t) == pytest.approx(density, abs=1e-9)


def test_asyncpatch_is_a_random_point_of_the_window_path():
    """The same law drawn in two ways, and rejected for the wider window (two-sample tests)."""
    sizes = (1, 2, 4, 8)
    window, path = draw(AsyncPatch(sizes), seed=1), draw(OnPath(Window(sizes)), seed=2)
    features = {"token": lambda times: times[:, 2, 6], "spread": lambda times: times.std(axis=(1, 2))}
    for feature in features.values():
        assert stats.ks_2samp(feature(window), feature(path)).pvalue > FALSE_ALARM
    wider = draw(WiderWindow(1))
    every_token = draw(AsyncPatch((1,)))
    assert stats.ks_2samp(features["spread"](every_token), features["spread"](wider)).pvalue < FALSE_ALARM


def test_an_environment_is_a_random_point_of_its_path():
    """The same law drawn in two ways, and rejected for other rates (two-sample tests)."""
    law = EnvironmentPaths((1, 2, 4, 8), (0.0, 2.0))
    point, path = draw(Environment(law), seed=1), draw(OnPath(law), seed=2)
    features = {
        "mean": lambda times: times.mean(axis=(1, 2), dtype=np.float64),
        "token": lambda times: times[:, 2, 6],
        "spread": lambda times: times.std(axis=(1, 2)),
        "corner": lambda times: times[:, 0, 0] - times[:, 7, 7],
    }
    for feature in features.values():
        assert stats.ks_2samp(feature(point), feature(path)).pvalue > FALSE_ALARM
    paper = draw(Environment(EnvironmentPaths((1,))))
    assert stats.ks_2samp(features["spread"](point), features["spread"](paper)).pvalue < FALSE_ALARM


def tokens_fit(law, cells, spread):
    """Whether as many times as stated lie below some times. Many round to 1, which a test of the whole law minds."""
    times = draw(law)
    odds = [
        stats.binomtest(int(np.sum(times[:, row, col] <= x)), DRAWS, environment_token_cdf(x, cells, spread)).pvalue
        for row, col in ((0, 0), (5, 3))
        for x in (0.001, 0.1, 0.5, 0.9, 0.999)
    ]
    return min(odds) > FALSE_ALARM / len(odds)


def test_environment_tokens_have_their_law():
    paper, patches = EnvironmentPaths((1,)), EnvironmentPaths((4,), (3.0, 3.0))
    assert tokens_fit(Environment(paper), TOKENS, 1)
    assert tokens_fit(Environment(patches), 4, 3)
    assert not tokens_fit(FirstToken(paper), TOKENS, 1)
    assert not tokens_fit(Environment(patches), 4, 1)


def test_environment_token_law_at_spread_one_is_the_closed_form():
    """`int (1 - exp(-ell w)) dw / (1 + w)^2 = ell e^ell E_1(ell)` for a token other than the drawn one."""
    for x in (0.05, 0.3, 0.9, 0.99):
        ell = -np.log1p(-x)
        expected = x / TOKENS + (1 - 1 / TOKENS) * ell * np.exp(ell) * special.exp1(ell)
        assert environment_token_cdf(x, TOKENS, 1) == pytest.approx(expected, abs=1e-3)


def test_asyncpatch_draws_every_patch_size_alike():
    times = draw(AsyncPatch((1, 2, 4, 8)))
    finer = [np.all(times[:, :: 2 * p] == times[:, p :: 2 * p], axis=(1, 2)).mean() for p in (1, 2, 4)]
    # Rows p apart in one larger patch agree: 3/4, 2/4 and 1/4 of the images.
    for fraction, expected in zip(finer, (0.75, 0.5, 0.25), strict=True):
        assert stats.binomtest(round(fraction * DRAWS), DRAWS, expected).pvalue > FALSE_ALARM


def test_asyncpatch_strays_no_further_than_its_maximum():
    times = draw(AsyncPatch((1,), max_spread=0.1), draws=2000)
    widths = np.ptp(times, axis=(1, 2))
    assert widths.max() <= 0.2
    assert np.median(widths) > 0.19


def test_perlin_regions_have_uniform_areas():
    times = draw(Perlin())
    cleaner = np.sum(times == times.min(axis=(1, 2), keepdims=True), axis=(1, 2))
    assert all(len(np.unique(field)) <= 2 for field in times[:200])
    # With an area of 0 or of all tokens one region is all there is: the full count stands for both.
    expected = np.full(TOKENS, DRAWS / (TOKENS + 1))
    expected[-1] *= 2
    assert stats.chisquare(np.bincount(cleaner, minlength=TOKENS + 1)[1:], expected).pvalue > FALSE_ALARM


def test_perlin_noise_is_the_textbook_sum_over_corners():
    height, width, period, key = 8, 6, 3, jr.key(0)
    angle = np.asarray(jr.uniform(jr.clone(key), (height + 1, width + 1), maxval=2 * np.pi), np.float64)
    noise = perlin_noise(key, jnp.asarray(period), height, width)

    def fade(s):
        return 6 * s**5 - 15 * s**4 + 10 * s**3

    for row, col in np.ndindex(height, width):
        y, x = (row + 0.5) / period, (col + 0.5) / period
        top, left = int(y), int(x)
        fy, fx = y - top, x - left
        value = 0.0
        for dy, dx in np.ndindex(2, 2):
            slope = angle[top + dy, left + dx]
            weight = (fade(fy) if dy else 1 - fade(fy)) * (fade(fx) if dx else 1 - fade(fx))
            value += weight * (np.sin(slope) * (fy - dy) + np.cos(slope) * (fx - dx))
        assert noise[row, col] == pytest.approx(value, abs=1e-5)


def test_perlin_noise_is_smoother_for_longer_periods():
    keys = jr.split(jr.key(0), 500)
    roughness = []
    for period in (1, 2, 4, 8):
        fields = jax.vmap(lambda key: perlin_noise(key, jnp.asarray(period), SIDE, SIDE))(jr.clone(keys))  # noqa: B023
        roughness.append(np.mean(np.diff(fields, axis=2) ** 2) / np.var(fields))
    assert roughness == sorted(roughness, reverse=True)
    assert roughness[0] > 10 * roughness[-1]


def test_masked_tokens_are_exactly_clean_and_the_others_share_one_time():
    times = draw(Masked(Square()), draws=500)
    assert np.all(np.sum(times == 0, axis=(1, 2)) == TOKENS * 3 // 4)
    unknown = np.sort(times.reshape(500, -1), axis=1)[:, -TOKENS // 4 :]
    assert np.all(unknown == unknown[:, :1])
    assert fits(unknown[:, 0], uniform_cdf)


@pytest.mark.parametrize("count", [1, 2, 15, 64])
def test_mean_beta_keeps_its_mean_exactly(count):
    means = jnp.linspace(0, 1, 101)
    times = jax.jit(jax.vmap(lambda key, mean: split_mean(key, mean, count)))(jr.split(jr.key(0), 101), means)
    assert times.shape == (101, count)
    np.testing.assert_allclose(np.asarray(times, np.float64).mean(axis=1), means, atol=3e-7)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (3, 5)])
def test_mean_beta_is_the_recursive_split(height, width):
    """Against the recursion written out, for an even and an odd number of tokens (two-sample tests)."""
    times = draw(MeanBeta(), seed=1, height=height, width=width)
    reference = beta_fields(height * width)
    token = np.random.default_rng(2).permuted(reference, axis=1)[:, 0]
    assert stats.ks_2samp(times[:, 1, 2], token).pvalue > FALSE_ALARM
    spread = times.std(axis=(1, 2), dtype=np.float64)
    assert stats.ks_2samp(spread, reference.std(axis=1)).pvalue > FALSE_ALARM
    flatter = draw(wider_spread(MeanBeta()), seed=1, height=height, width=width)
    assert stats.ks_2samp(flatter.std(axis=(1, 2)), reference.std(axis=1)).pvalue < FALSE_ALARM


def test_patch_forcing_bounds_the_cleanest_token():
    """The minimum over the tokens is the smallest of their steps above the cleanest time."""
    times = draw(PatchForcing((1,)))
    assert fits(times.min(axis=(1, 2)), patch_forcing_cdf(truncated_steps((1000, TOKENS)).min(axis=1)))
    assert not fits(times.max(axis=(1, 2)), patch_forcing_cdf(truncated_steps((1000, TOKENS)).min(axis=1)))


def test_margins_map_linearly():
    inner = draw(AsyncPatch((2,)), draws=100)
    outer = draw(Margins(AsyncPatch((2,)), 0.25, 0.75), draws=100)
    np.testing.assert_allclose(outer, 0.25 + 0.5 * inner, atol=1e-6)


# ------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("build", [Patchwise, AsyncPatch, PatchForcing])
@pytest.mark.parametrize("patch_sizes", [(), (0,), (2, -4)])
def test_bad_patch_sizes_are_refused(build, patch_sizes):
    with pytest.raises(ValueError, match="patch sizes must be a tuple of one or more positive integers"):
        build(patch_sizes)


@pytest.mark.parametrize("build", [Patchwise, AsyncPatch, PatchForcing])
def test_patches_larger_than_the_image_are_refused(build):
    with pytest.raises(ValueError, match="patch of 16x16 is larger than the grid of 8x8"):
        build((2, 16))(jr.key(0), SIDE, SIDE)


@pytest.mark.parametrize("max_spread", [0.0, -0.1, 0.6, float("nan")])
def test_a_bad_spread_is_refused(max_spread):
    with pytest.raises(ValueError, match=r"max_spread must be in \(0, 0.5\]"):
        AsyncPatch((1,), max_spread)


@pytest.mark.parametrize(("low", "high"), [(0.5, 0.5), (-0.1, 1.0), (0.0, 1.1)])
def test_bad_margins_are_refused(low, high):
    with pytest.raises(ValueError, match="0 <= min_time < max_time <= 1"):
        Margins(Synchronous(), low, high)
