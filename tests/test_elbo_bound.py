"""The bound is unbiased for every law of paths and every design, tight for the exact denoiser, and its ends are right.

To enrol a design, add a line to `DESIGNS`; a decoder, to `DECODERS`; a law of paths, to `LAWS`. Averages are compared
within five standard errors, a false-alarm rate of 6e-7 each; seeds are fixed.
"""

import functools
import math
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy import integrate, stats

from asyncpatch.elbo import (
    AllTokens,
    Antithetic,
    Continuous,
    EightBit,
    Evaluation,
    OneToken,
    WholePath,
    check_grid,
    diffusion_nats,
    error_rate,
    evaluate,
    grid_diffusion_nats,
    positions,
    prior_nats,
    random_walk,
)
from asyncpatch.noise_schedule import LogLinear, RectifiedFlow, Truncated
from asyncpatch.paths import (
    AbstractPath,
    AbstractPathLaw,
    AnyOrder,
    Environment,
    Staged,
    Synchronous,
    Window,
    derivative,
    raster,
)
from asyncpatch.process import AbstractDenoiser, GaussianDenoiser, OnSchedule, Prediction
from asyncpatch.shapes import NULL_LABEL

HEIGHT, WIDTH, CHANNELS = 2, 2, 1
SHAPE = (HEIGHT, WIDTH, CHANNELS)
TOKENS = HEIGHT * WIDTH
STANDARD_ERRORS = 5
NO_LABEL = jnp.asarray(NULL_LABEL, jnp.int32)
SCHEDULE = LogLinear(max_log_snr=12.0, min_log_snr=-12.0)

LAWS = {
    "diagonal": Synchronous(),
    "window": Window((1, 2)),
    "raster": Staged(raster(HEIGHT, WIDTH, 1), overlap=0.3),
    "any order": AnyOrder(1),
    "walk": Environment((1,)),
    "walks of all spreads": Environment((1, 2), (0.0, 4.0)),
}
DESIGNS = {
    "all tokens": AllTokens(),
    "one token": OneToken(),
    "whole path": WholePath(4),
    "antithetic": Antithetic(),
}


def is_average(values, expected):
    """Whether independent values average to `expected`, within the stated number of standard errors."""
    values = np.asarray(values, np.float64)
    return abs(values.mean() - expected) <= STANDARD_ERRORS * values.std() / math.sqrt(len(values)) + 1e-5


# --- designs ---


def slopes_of_a_potential(t):
    """Slopes of `F(t) = sum t_i^3 + (sum t_i)^2 / 4`, whose line integral is `F(1) - F(0) = 4 + 4` on every path."""
    return 3 * t**2 + jnp.sum(t) / 2


def slopes_of_no_potential(t):
    """A field of slopes whose line integral depends on the path."""
    return jnp.cos(5 * t) + jnp.arange(TOKENS, dtype=jnp.float32).reshape(HEIGHT, WIDTH) * jnp.flip(t)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _weigh_points(keys, draw, slopes):
    def one(key):
        points = draw(key)
        rates = jax.vmap(slopes)(points.times) * jnp.mean(points.noise**2, axis=-1)
        return jnp.sum(points.weights * rates)

    return jax.vmap(one)(keys)


def line_integrals(design, law, slopes, draws=10_000):
    """Draws of the line integral of `slopes`, whose rate is noisy: of mean 1, as a squared normal is."""
    return _weigh_points(jr.split(jr.key(0), draws), lambda key: design.draw(key, law, *SHAPE), slopes)


@pytest.mark.parametrize("law", ["diagonal", "window", "raster", "walks of all spreads"])
@pytest.mark.parametrize("design", DESIGNS)
def test_every_design_is_unbiased_on_every_law(design, law):
    assert is_average(line_integrals(DESIGNS[design], LAWS[law], slopes_of_a_potential), 4 + 4)


@pytest.mark.parametrize("design", DESIGNS)
def test_every_design_follows_its_path(design):
    """Against the integral along one known path, where another path has another."""
    law = LAWS["raster"]
    path = law.sample(jr.key(0), HEIGHT, WIDTH)
    points = (jnp.arange(4000, dtype=jnp.float32) + 0.5) / 4000
    rates = jax.vmap(lambda r: jnp.sum(derivative(path, r) * slopes_of_no_potential(path(r))))(points)
    expected = float(jnp.mean(rates))
    draws = line_integrals(DESIGNS[design], law, slopes_of_no_potential)
    assert is_average(draws, expected)
    assert not is_average(draws, math.sin(5) / 5 * 4 + 6 / 2)  # the diagonal's


class Unweighted(eqx.Module):
    """Wrong twin: every token counts alike, however fast its time rises."""

    def draw(self, key, law, height, width, channels):
        points = AllTokens().draw(key, law, height, width, channels)
        return eqx.tree_at(lambda p: p.weights, points, jnp.ones_like(points.weights))


class Unscaled(eqx.Module):
    """Wrong twin: the one token's error does not stand for the others."""

    def draw(self, key, law, height, width, channels):
        points = OneToken().draw(key, law, height, width, channels)
        return eqx.tree_at(lambda p: p.weights, points, jnp.sign(points.weights))


class HalfWay(eqx.Module):
    """Wrong twin: all points of a path in its first half."""

    def draw(self, key, law, height, width, channels):
        path = law.sample(key, height, width)
        at = jnp.array([0.125, 0.375])
        weights = jax.vmap(lambda r: derivative(path, r))(at) / 2
        return eqx.tree_at(
            lambda p: (p.times, p.weights),
            Antithetic().draw(jr.clone(key), law, height, width, channels),
            (jax.vmap(path)(at), weights),
        )


@pytest.mark.parametrize("twin", [Unweighted(), Unscaled(), HalfWay()], ids=repr)
def test_a_biased_design_is_rejected(twin):
    assert not is_average(line_integrals(twin, LAWS["any order"], slopes_of_a_potential), 4 + 4)


def test_designs_say_how_often_they_call():
    for name, design in DESIGNS.items():
        points = design.draw(jr.key(0), LAWS["diagonal"], *SHAPE)
        assert points.times.shape == (design.calls, HEIGHT, WIDTH), name
        assert points.noise.shape == (design.calls, *SHAPE), name


# --- the error rate and one draw ---

_factor = np.random.default_rng(0).normal(size=(TOKENS, TOKENS)) / 2
COVARIANCE = _factor @ _factor.T + 0.2 * np.eye(TOKENS)
MEAN = np.random.default_rng(1).normal(size=TOKENS) / 2
DISTRIBUTION = stats.multivariate_normal(MEAN, COVARIANCE)
IMAGES = np.random.default_rng(2).multivariate_normal(MEAN, COVARIANCE, size=64)


def gaussian_denoiser(schedule, widened=1.0):
    return GaussianDenoiser(
        jnp.asarray(MEAN.reshape(SHAPE), "float32"), jnp.asarray(widened * COVARIANCE, "float32"), schedule
    )


DENOISER = gaussian_denoiser(SCHEDULE)
IMAGE = jnp.asarray(IMAGES[0].reshape(SHAPE), jnp.float32)


@pytest.mark.parametrize("schedule", [SCHEDULE, Truncated(RectifiedFlow(), 8.0, -8.0)], ids=repr)
def test_the_error_rate_is_that_of_the_data(schedule):
    """`-(1/2) SNR' |x - xhat|^2`, the other way to write it, in float64."""
    t = jnp.array([[0.2, 0.4], [0.5, 0.9]])
    noise = jr.normal(jr.key(0), SHAPE)
    found = error_rate(gaussian_denoiser(schedule), IMAGE, t, noise, NO_LABEL)
    alpha, sigma = (np.asarray(scale(t), np.float64).ravel() for scale in (schedule.alpha, schedule.sigma))
    z = alpha * IMAGES[0] + sigma * np.asarray(noise, np.float64).ravel()
    of_z = alpha[:, None] * COVARIANCE * alpha + np.diag(sigma**2)
    data = MEAN + COVARIANCE * alpha @ np.linalg.solve(of_z, z - alpha * MEAN)
    ahead, behind = (np.exp(np.asarray(schedule.log_snr(t + h), np.float64)) for h in (2e-3, -2e-3))
    slope = (ahead - behind).ravel() / 4e-3
    np.testing.assert_allclose(found.ravel(), -0.5 * slope * (IMAGES[0] - data) ** 2, rtol=5e-3)


class Tilted(AbstractPathLaw):
    """Smooth paths `t = r + tilt r (1 - r)`, to differentiate by their tilts."""

    tilt: jax.Array

    def sample(self, key, height, width):
        return TiltedPath(self.tilt)


class TiltedPath(AbstractPath):
    tilt: jax.Array

    def __call__(self, r):
        return r + self.tilt * r * (1 - r)


def test_one_draw_is_differentiable_by_the_law():
    """Against central differences under one key; and the exact denoiser's bound is stationary in every direction."""
    tilt = jnp.array([[0.5, -0.5], [0.2, 0.9]])

    def nats(tilt, key):
        return diffusion_nats(key, DENOISER, Tilted(tilt), WholePath(8), IMAGE, NO_LABEL)

    gradient = jax.jit(jax.vmap(jax.grad(nats), in_axes=(None, 0)))(tilt, jr.split(jr.key(1), 1000))
    for row, col in np.ndindex(tilt.shape):
        assert is_average(gradient[:, row, col], 0)
        assert np.std(gradient[:, row, col]) > 0.1
    ahead, behind = (jax.jit(nats)(tilt.at[0, 1].add(h), jr.split(jr.key(1), 1000)[0]) for h in (2e-3, -2e-3))
    np.testing.assert_allclose(gradient[0, 0, 1], (ahead - behind) / 4e-3, rtol=2e-2, atol=2e-2)


# --- the whole bound ---


@functools.lru_cache
def bound(law, widened=1.0, draws=16, key=0):
    """The bound of all images on a law, by name."""
    images = jnp.asarray(IMAGES.reshape(-1, *SHAPE), jnp.float32)
    labels = jnp.full(len(images), NULL_LABEL)
    denoiser = gaussian_denoiser(SCHEDULE, widened)
    return evaluate(jr.key(key), denoiser, LAWS[law], WholePath(8), Continuous(), images, labels, draws=draws)


def off_by(evaluation):
    """By how many of its standard errors the bound misses the truth, for every image."""
    # The two ends leave about 1e-4 nats open.
    return (evaluation.nats + DISTRIBUTION.logpdf(IMAGES)) / (evaluation.draw_error + 1e-3)


@pytest.mark.parametrize("law", LAWS)
def test_the_exact_denoisers_bound_is_the_likelihood_on_every_law(law):
    """Also the stated errors are right: with 64 images they spread like 64 of Student's t with 15 degrees of freedom.

    The mean square of those lies in [0.5, 2.2] with a false-alarm rate below 1e-3.
    """
    errors = off_by(bound(law))
    assert is_average(errors, 0)
    assert 0.5 < np.mean(errors**2) < 2.2


def test_a_worse_denoisers_bound_is_looser():
    """Wrong twin: the denoiser of another distribution; its bound is larger on average, and the test above sees it."""
    errors = off_by(bound("walk", widened=30.0))
    assert not is_average(errors, 0)
    assert errors.mean() > 0


def test_results_do_not_depend_on_how_images_are_grouped(monkeypatch):
    images = jnp.asarray(IMAGES[:5].reshape(-1, *SHAPE), jnp.float32)
    labels = jnp.full(5, NULL_LABEL)
    results, reports = [], []
    for calls in (16_384, 48, 1):
        # The module, which the function of the same name hides.
        monkeypatch.setattr(sys.modules["asyncpatch.elbo.evaluate"], "CALLS_A_DISPATCH", calls)
        report = []
        results.append(
            evaluate(
                jr.key(0),
                DENOISER,
                LAWS["walk"],
                WholePath(8),
                Continuous(),
                images,
                labels,
                draws=3,
                progress=lambda *at: report.append(at),  # noqa: B023
            )
        )
        reports.append(report)
    assert reports == [[(5, 5)], [(2, 5), (4, 5), (5, 5)], [(k, 5) for k in (1, 2, 3, 4, 5)]]
    for other in results[1:]:
        for part in ("diffusion", "reconstruction", "prior", "draw_error"):
            np.testing.assert_allclose(getattr(other, part), getattr(results[0], part), rtol=1e-4, atol=1e-4)


def test_the_denoiser_is_compiled_once_for_all_laws():
    compiled = []

    def listen(event, duration, fun_name="", **_):
        if event.endswith("backend_compile_duration"):
            compiled.append(fun_name)

    images, labels = jnp.zeros((7, *SHAPE)), jnp.full(7, NULL_LABEL)  # seven images: a shape of this test alone
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        for law in LAWS.values():
            for design in (AllTokens(), OneToken()):
                evaluate(jr.key(0), DENOISER, law, design, Continuous(), images, labels, draws=2)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert compiled.count("jit(_read_rates)") == 1, compiled


def test_two_laws_see_the_same_noise():
    for design in DESIGNS.values():
        first, second = (design.draw(jr.key(5), LAWS[law], *SHAPE).noise for law in ("diagonal", "walk"))
        assert np.array_equal(first, second)


def test_bits_per_dimension_are_nats_by_their_arithmetic():
    evaluation = Evaluation(
        diffusion=np.float32([10.0, 20.0]),
        reconstruction=np.float32([1.0, 2.0]),
        prior=np.float32([0.5, 0.5]),
        draw_error=np.float32([0.3, 0.4]),
        dimensions=12,
    )
    np.testing.assert_allclose(evaluation.nats, [11.5, 22.5])
    mean, population, draws = evaluation.bits_per_dimension()
    unit = 12 * math.log(2)
    assert mean == pytest.approx(17 / unit)
    assert population == pytest.approx(5.5 / unit)  # a standard deviation of 11 / sqrt(2), over sqrt(2)
    assert draws == pytest.approx(0.25 / unit)  # sqrt(0.3^2 + 0.4^2) / 2
    one = Evaluation(*(np.float32([1.0]) for _ in range(4)), dimensions=1)
    assert math.isnan(one.bits_per_dimension()[1])


# --- grids ---


def exact_grid_nats(fields):
    """The expectation over the noise of the grid's sum, for `IMAGES[0]` and the exact denoiser, in float64."""
    times = jnp.asarray(fields.reshape(-1, TOKENS))
    alphas, sigmas, log_snrs = (
        np.asarray(read(times), np.float64) for read in (SCHEDULE.alpha, SCHEDULE.sigma, SCHEDULE.log_snr)
    )
    total = 0.0
    for alpha, sigma, drop in zip(alphas[1:], sigmas[1:], -np.diff(np.exp(log_snrs), axis=0), strict=True):
        of_z = alpha[:, None] * COVARIANCE * alpha + np.diag(sigma**2)
        gain = COVARIANCE * alpha @ np.linalg.inv(of_z)
        # x - xhat = (1 - gain alpha)(x - m) - gain sigma eps
        off = (np.eye(TOKENS) - gain * alpha) @ (IMAGES[0] - MEAN)
        total += 0.5 * np.sum(drop * (off**2 + np.sum((gain * sigma) ** 2, axis=1)))
    return total


def walk_grid():
    """One token at a time: 64 steps of a random walk."""
    walk = random_walk(jr.key(3), jnp.zeros(TOKENS), 16)
    return np.asarray(positions(walk, TOKENS), np.float32).reshape(-1, HEIGHT, WIDTH) / 16


def path_grid(law, steps):
    path = LAWS[law].sample(jr.key(4), HEIGHT, WIDTH)
    return np.asarray(jax.vmap(path)(jnp.linspace(0, 1, steps + 1)))


@jax.jit
def grid_draws(fields):
    return jax.vmap(lambda key: grid_diffusion_nats(key, DENOISER, fields, IMAGE, NO_LABEL))(jr.split(jr.key(0), 1000))


GRIDS = {
    "one token at a step": walk_grid,
    "all tokens at a step": lambda: path_grid("diagonal", 64),
    "some tokens at a step": lambda: path_grid("raster", 64),
    "every field twice": lambda: np.repeat(path_grid("walk", 32), 2, axis=0)[:65],
}


@pytest.mark.parametrize("name", GRIDS)
def test_a_grids_sum_has_its_expectation(name):
    fields = GRIDS[name]()
    assert is_average(grid_draws(check_grid(fields)), exact_grid_nats(fields))


def test_a_grids_sum_closes_in_on_the_likelihood_from_above():
    """By the Gaussian formula that the test above compares with: its excess falls like one over the steps."""
    truth = -DISTRIBUTION.logpdf(IMAGES[0])
    noise = jr.normal(jr.key(0), (100_000, *SHAPE))
    reconstruction = float(jnp.mean(jax.vmap(lambda eps: Continuous().nats(SCHEDULE, IMAGE, eps))(noise)))
    ends = reconstruction + float(prior_nats(SCHEDULE, IMAGE))
    excess = np.array([exact_grid_nats(path_grid("walk", steps)) + ends - truth for steps in (64, 256, 1024)])
    assert np.all(excess > 0)
    order = np.polyfit(np.log([64, 256, 1024]), np.log(excess), 1)[0]
    assert -1.5 < order < -0.8, excess


class Indifferent(AbstractDenoiser):
    """Far off at every token but those that a test looks at."""

    error: jax.Array

    schedule = SCHEDULE
    num_classes = None

    def __call__(self, z, t, label):
        return Prediction(z, jnp.broadcast_to(self.error[..., None], z.shape))


def test_a_token_that_stays_adds_nothing():
    """An error of 1e15 at all tokens that do not move at the first step leaves no trace in it."""
    moving = jnp.zeros((HEIGHT, WIDTH)).at[0, 1].set(1.0)
    huge = Indifferent(1e15 * (1 - moving))
    first, second = jnp.zeros((HEIGHT, WIDTH)), 0.01 * moving
    nats = grid_diffusion_nats(jr.key(0), huge, jnp.stack([first, second]), IMAGE, NO_LABEL)
    assert 0 < nats < 10


# --- ends ---

DECODERS = {"eight bit": EightBit(), "continuous": Continuous()}
VALUES = {"eight bit": np.arange(256) / 127.5 - 1, "continuous": np.linspace(-12, 12, 20_001)}
WIDTHS = {"eight bit": 1.0, "continuous": 24 / 20_000}


def mass(decoder, values, width, log_snr, z):
    """The probability that a decoder gives to all values of one pixel, read from one `z_0`."""
    schedule = LogLinear(log_snr, -9.0)
    alpha, sigma = (float(scale(jnp.float32(0))) for scale in (schedule.alpha, schedule.sigma))
    noise = (z - alpha * values) / sigma
    images, noise = (jnp.asarray(v.reshape(-1, 1, 1, 1), jnp.float32) for v in (values, noise))
    return float(jnp.sum(jnp.exp(-jax.vmap(lambda x, eps: decoder.nats(schedule, x, eps))(images, noise))) * width)


@pytest.mark.parametrize("log_snr", [0.5, 6.0])
@pytest.mark.parametrize("z", [-0.9, 0.013])
@pytest.mark.parametrize("name", DECODERS)
def test_a_decoders_probabilities_sum_to_one(name, z, log_snr):
    assert mass(DECODERS[name], VALUES[name], WIDTHS[name], log_snr, z) == pytest.approx(1, abs=2e-4)


def test_another_decoders_probabilities_do_not():
    """Wrong twin: a density where probabilities are asked for."""
    assert mass(Continuous(), VALUES["eight bit"], 1.0, 6.0, 0.013) > 2


def test_without_noise_every_8_bit_image_is_read_off():
    image = jnp.asarray(np.random.default_rng(0).integers(0, 256, SHAPE) / 127.5 - 1, jnp.float32)
    noise = jr.normal(jr.key(0), SHAPE)
    nats = [float(EightBit().nats(LogLinear(log_snr, -9.0), image, noise)) for log_snr in (8.0, 11.0, 20.0)]
    assert nats[0] > nats[1] > nats[2]
    assert abs(nats[2]) < 1e-5


def test_with_noise_alone_every_8_bit_value_is_as_likely():
    nats = EightBit().nats(LogLinear(-20.0, -30.0), IMAGE, jr.normal(jr.key(0), SHAPE))
    assert float(nats) == pytest.approx(TOKENS * math.log(256), rel=1e-3)


@pytest.mark.parametrize("schedule", [SCHEDULE, Truncated(RectifiedFlow(), 8.0, -1.0), LogLinear(5.0, -0.5)], ids=repr)
def test_the_prior_term_is_the_divergence_from_pure_noise(schedule):
    """Against its definition as an integral, by quadrature."""
    alpha, sigma = (float(scale(jnp.float32(1))) for scale in (schedule.alpha, schedule.sigma))

    def divergence(x):
        q, p = stats.norm(alpha * x, sigma), stats.norm(0, 1)
        centre = alpha * x
        return integrate.quad(
            lambda z: q.pdf(z) * (q.logpdf(z) - p.logpdf(z)), centre - 12 * sigma, centre + 12 * sigma, limit=200
        )[0]

    expected = sum(divergence(float(x)) for x in np.asarray(IMAGE).ravel())
    assert float(prior_nats(schedule, IMAGE)) == pytest.approx(expected, rel=1e-3, abs=1e-6)


def test_a_denoiser_of_another_schedule_gives_the_same_bound():
    """Trained under rectified flow, bounded under a log-linear schedule."""
    images = jnp.asarray(IMAGES.reshape(-1, *SHAPE), jnp.float32)
    labels = jnp.full(len(images), NULL_LABEL)
    denoiser = OnSchedule(gaussian_denoiser(RectifiedFlow()), SCHEDULE)
    law, design = LAWS["walk"], WholePath(8)
    other = evaluate(jr.key(0), denoiser, law, design, Continuous(), images, labels, draws=16)
    np.testing.assert_allclose(other.nats, bound("walk").nats, rtol=1e-3, atol=2e-2)
