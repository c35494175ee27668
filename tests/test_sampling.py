"""Step rules and the sampling loop. To enrol a step rule, add a line to `RULES`.

The truth is a Gaussian of 8x8 correlated pixels, for which the denoiser is exact: whatever plan is followed, the
images must have its (conditional) mean and covariance.
"""

import functools
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jaxtyping
import numpy as np
import pytest
from gaussian_truth import (
    COVARIANCE,
    FLOW,
    MEAN,
    SIDE,
    SIZE,
    Echo,
    check_slope,
    error,
    exact_flow,
    gaussian,
    run,
    start,
)
from jaxtyping import Array, Float
from scipy.linalg import sqrtm
from scipy.stats import chi2, ncx2, norm

from asyncpatch.guidance import ClassifierFree
from asyncpatch.noise_schedule import AbstractNoiseSchedule, Cosine, LogLinear
from asyncpatch.paths import StagedPath, SynchronousPath, Window, random_order, raster
from asyncpatch.plans import AbstractPlan, FixedPlan, Task, from_path, staged, synchronous, with_strength
from asyncpatch.process import AbstractDenoiser, FiniteDenoiser, OnSchedule, Prediction, posterior
from asyncpatch.sampling import (
    DDIM,
    AbstractStepRule,
    Heun,
    Multistep,
    StochasticCoefficient,
    sample,
    sample_with_history,
)
from asyncpatch.shapes import NULL_LABEL, Image, Label, TimeField

KNOWN = np.zeros((SIDE, SIDE), bool)
KNOWN[1:5, 2:7] = True


# --- the law of the images ---

IMAGES = 1000
WINDOW = Window((1,)).sample(jr.key(1), SIDE, SIDE)
# The overlaps give every token at least 100 of the 500 steps.
RASTER = staged(raster(SIDE, SIDE, 2), 500, overlap=0.75)
RANDOM_ORDER = staged(random_order(jr.key(2), SIDE, SIDE, 1), 500, overlap=0.95)
SYNCHRONOUS = synchronous(500, SIDE, SIDE)
WINDOW_PLAN = from_path(WINDOW, 20)
# A first-order rule leaves the variances of the images off by this share or less at 500 steps (measured: 0.5 to 2.8%).
BIAS = 0.04
# Per statistic. The covariance statistic is a chi-square up to O(SIZE / IMAGES), hence "below 1e-5" for all together.
FALSE_ALARM = 1e-7


def check_gaussian(images: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> None:
    """Whiten, then compare the sample mean with 0 and the sample covariance with the identity. False alarms: 1e-5.

    For n samples in d dimensions `n |mean|^2` is chi-square with d degrees, and the squared entries of
    `covariance - identity`, over their variances (1/n, on the diagonal 2/n), add up to a chi-square with d(d+1)/2
    degrees, whose noncentrality is `n d BIAS^2 / 2` if each variance is off by `BIAS`. The mean of the d variances,
    normal with variance `2 / (n d)`, shows an error that all of them share.
    """
    count, size = images.shape
    white = np.linalg.solve(np.linalg.cholesky(covariance), (images - mean).T)
    assert count * (white.mean(axis=1) ** 2).sum() < chi2.isf(FALSE_ALARM, size)
    gap = white @ white.T / count - np.eye(size)
    assert abs(gap.trace() / size) < BIAS + norm.isf(FALSE_ALARM / 2) * np.sqrt(2 / (count * size))
    statistic = count * (gap**2).sum() / 2
    assert statistic < ncx2.isf(FALSE_ALARM, size * (size + 1) / 2, count * size * BIAS**2 / 2)


@pytest.mark.parametrize(
    ("plan", "rule"),
    [
        (SYNCHRONOUS, DDIM(0.0)),
        (SYNCHRONOUS, DDIM(1.0)),
        (RASTER, DDIM(0.0)),
        (RANDOM_ORDER, DDIM(0.0)),
        (from_path(WINDOW, 500), DDIM(0.0)),
        (from_path(WINDOW, 500), StochasticCoefficient(0.25)),
        (synchronous(40, SIDE, SIDE), Multistep()),
        (synchronous(40, SIDE, SIDE), Multistep(0.5)),
        (from_path(WINDOW, 40), Heun()),
    ],
    ids=[
        "synchronous",
        "synchronous, eta 1",
        "raster",
        "random order",
        "window",
        "window, c 1/4",
        "synchronous, 40 steps of second order",
        "synchronous, 40 steps of second order, eta 1/2",
        "window, 40 steps of second order",
    ],
)
def test_every_plan_generates_the_data_law(plan, rule):
    images = np.asarray(run(gaussian(), plan, rule, batch=IMAGES), np.float64)
    check_gaussian(images.reshape(IMAGES, SIZE), MEAN, COVARIANCE)


@pytest.mark.parametrize("plan", [SYNCHRONOUS, RANDOM_ORDER], ids=["synchronous", "random order"])
@pytest.mark.parametrize("known", [KNOWN, ~KNOWN], ids=["outpainting", "inpainting"])
def test_inpainting_is_conditioning(plan, known):
    truth = np.random.default_rng(1).multivariate_normal(MEAN, COVARIANCE).astype(np.float32)
    image = jnp.broadcast_to(truth.reshape(1, SIDE, SIDE, 1), (IMAGES, SIDE, SIDE, 1))
    images = np.asarray(run(gaussian(), plan, DDIM(0.0), image=image, known=jnp.asarray(known)))
    images, known = images.reshape(IMAGES, SIZE), known.reshape(-1)
    assert (images[:, known] == truth[known]).all(), "known pixels must come out equal to the bit"
    gain = np.linalg.solve(COVARIANCE[np.ix_(known, known)], COVARIANCE[np.ix_(known, ~known)]).T
    mean = MEAN[~known] + gain @ (truth[known] - MEAN[known])
    covariance = COVARIANCE[np.ix_(~known, ~known)] - gain @ COVARIANCE[np.ix_(known, ~known)]
    check_gaussian(images[:, ~known].astype(np.float64), mean, covariance)


def test_law_rejects_as_few_steps_of_first_order():
    """Those that the multistep rule of the same fresh noise generates the law in."""
    images = np.asarray(run(gaussian(), synchronous(40, SIDE, SIDE), DDIM(0.5), batch=IMAGES), np.float64)
    with pytest.raises(AssertionError):
        check_gaussian(images.reshape(IMAGES, SIZE), MEAN, COVARIANCE)


def test_law_rejects_a_denoiser_without_correlations():
    images = np.asarray(run(gaussian(np.eye(SIZE)), SYNCHRONOUS, DDIM(0.0), batch=IMAGES), np.float64)
    with pytest.raises(AssertionError):
        check_gaussian(images.reshape(IMAGES, SIZE), MEAN, COVARIANCE)


POINTS = jr.normal(jr.key(0), (3, SIDE, SIDE, 1))


def check_generates_the_points(denoiser: AbstractDenoiser, eta: float = 0.0) -> None:
    images = run(denoiser, synchronous(50, SIDE, SIDE), DDIM(eta), batch=16)
    nearest = jnp.abs(images[:, None] - POINTS[None]).max(axis=(2, 3, 4))
    # Schedules with finite ends leave noise of deviation 5e-5 in the image.
    assert (nearest.min(axis=1) < 3e-4).all()
    assert len(set(nearest.argmin(axis=1).tolist())) == 3


SCHEDULES = {"rectified flow": FLOW, "cosine": Cosine(), "log-linear": LogLinear(20.0, -20.0)}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_finite_data_set_is_generated_point_by_point_under_every_schedule(schedule):
    check_generates_the_points(FiniteDenoiser(POINTS, SCHEDULES[schedule]))


def test_finite_data_set_is_generated_on_another_schedule():
    check_generates_the_points(OnSchedule(FiniteDenoiser(POINTS, Cosine()), FLOW), eta=1.0)


class _Misstated(AbstractDenoiser):
    """Wrong twin: a denoiser of one schedule that says it is of another, as if a sampler were given the wrong one."""

    denoiser: AbstractDenoiser
    schedule: AbstractNoiseSchedule

    num_classes = None

    def __call__(self, z: Image, t: TimeField, label: Label) -> Prediction:
        return self.denoiser(z, t, label)


def test_law_rejects_a_denoiser_that_misstates_its_schedule():
    with pytest.raises(AssertionError):
        check_generates_the_points(_Misstated(FiniteDenoiser(POINTS, Cosine()), FLOW), eta=1.0)


# --- laws of every step rule ---

RULES = {
    "DDIM, eta 0": DDIM(0.0),
    "DDIM, eta 0.5": DDIM(0.5),
    "DDIM, eta 1": DDIM(1.0),
    "coefficient 0": StochasticCoefficient(0.0),
    "coefficient 1/4": StochasticCoefficient(0.25),
    "coefficient 1": StochasticCoefficient(1.0),
    "multistep": Multistep(),
    "multistep, eta 0.5": Multistep(0.5),
    "Heun": Heun(),
}
ORDER = {"DDIM, eta 0": 1, "coefficient 0": 1, "multistep": 2, "Heun": 2}


def _step(rule, schedule, t, s, seed=0):
    z_key, data_key, noise_key, rule_key = jr.split(jr.key(seed), 4)
    z = jr.normal(z_key, (SIDE, SIDE, 1))
    prediction = Prediction(jr.normal(data_key, z.shape), jr.normal(noise_key, z.shape))
    return z, prediction, rule(schedule, z, prediction, t, s, rule.init(z), rule_key, lambda z, t: prediction)[0]


def check_keeps_the_bits_of_tokens_that_stay(rule: AbstractStepRule) -> None:
    for schedule in (FLOW, Cosine(), LogLinear()):
        s = jr.uniform(jr.key(3), (SIDE, SIDE)).at[0].set(0.0).at[1].set(1.0)
        t = s.at[4:].set((s[4:] + 1) / 2)
        z, _, moved = _step(rule, schedule, t, s)
        assert (moved[:4] == z[:4]).all()
        assert (moved[4:] != z[4:]).all()


def check_reaches_the_data_estimate_at_zero(rule: AbstractStepRule) -> None:
    for schedule in (FLOW, Cosine()):
        t = jr.uniform(jr.key(3), (SIDE, SIDE), minval=0.1).at[0].set(1.0)
        _, prediction, moved = _step(rule, schedule, t, jnp.zeros_like(t))
        np.testing.assert_allclose(moved, prediction.data, atol=1e-6)


COUNTS = [16, 32, 64]
PATHS = {
    "synchronous": (SynchronousPath(SIDE, SIDE), []),
    "window": (WINDOW, [0.5]),
    "raster": (StagedPath(raster(SIDE, SIDE, 4), jnp.asarray(0.8)), [k / 8 for k in range(7, 0, -1)]),
}
"""Paths, and where between 1 and 0 they have kinks, which are grid points for all counts."""


@functools.cache
def _exact(name: str) -> np.ndarray:
    path, kinks = PATHS[name]
    return exact_flow(jnp.stack([path(jnp.asarray(r)) for r in (1.0, *kinks, 0.0)]), start())


def check_order_of_convergence(rule: AbstractStepRule, order: int = 1) -> None:
    """Slope of log error over log steps, against the exact flow of the Gaussian, along three paths."""
    for name, (path, _) in PATHS.items():
        check_slope(COUNTS, [error(from_path(path, count), rule, _exact(name)) for count in COUNTS], order)


def test_the_exact_flow_is_a_closed_form_where_there_is_one():
    """On the diagonal all covariances commute, so the flow maps unit noise by the symmetric root of the covariance."""
    np.testing.assert_allclose(_exact("synchronous"), MEAN + start() @ sqrtm(COVARIANCE), atol=1e-4)


@pytest.mark.parametrize("law", [check_keeps_the_bits_of_tokens_that_stay, check_reaches_the_data_estimate_at_zero])
@pytest.mark.parametrize("name", RULES)
def test_law_of_step_rules(name, law):
    law(RULES[name])


@pytest.mark.parametrize("name", ORDER)
def test_order_of_convergence(name):
    check_order_of_convergence(RULES[name], ORDER[name])


class _Careless(AbstractStepRule):
    """Moves tokens that stay, and takes the scales of a time a little beside `s`."""

    calls: ClassVar[int] = 1

    def init(self, z):
        return None

    def __call__(self, schedule, z, prediction, t, s, state, key, denoise):
        beside = 0.98 * s + 0.02
        alpha, sigma = schedule.alpha(beside)[..., None], schedule.sigma(beside)[..., None]
        return alpha * prediction.data + sigma * prediction.noise, None


@pytest.mark.parametrize(
    "law",
    [
        check_keeps_the_bits_of_tokens_that_stay,
        check_reaches_the_data_estimate_at_zero,
        check_order_of_convergence,
    ],
)
def test_law_rejects_wrong_twin(law):
    with pytest.raises(AssertionError):
        law(_Careless())


@pytest.mark.parametrize("schedule", [FLOW, Cosine(), LogLinear()], ids=["rectified flow", "cosine", "log-linear"])
@pytest.mark.parametrize("rule", [DDIM(1.0), StochasticCoefficient(1.0)], ids=["eta 1", "c 1"])
def test_full_noise_is_the_posterior_given_the_estimate(rule, schedule):
    t = jr.uniform(jr.key(3), (SIDE, SIDE), minval=0.3).at[0].set(1.0)
    s = t * jr.uniform(jr.key(4), (SIDE, SIDE), minval=0.2, maxval=0.9)
    z, data, rule_key = jr.normal(jr.key(5), (SIDE, SIDE, 1)), jr.normal(jr.key(6), (SIDE, SIDE, 1)), jr.key(7)
    guess = Prediction.from_data(schedule, z, t, data)
    moved, _ = rule(schedule, z, guess, t, s, None, rule_key, lambda z, t: guess)
    mean, deviation = posterior(schedule, z, data, t, s)
    # A rule draws its noise from the key that it is given, in one go.
    noise = jr.normal(jr.clone(rule_key), z.shape)
    np.testing.assert_allclose(moved, mean + deviation[..., None] * noise, atol=2e-5)


@pytest.mark.parametrize("schedule", [FLOW, Cosine(), LogLinear()], ids=["rectified flow", "cosine", "log-linear"])
@pytest.mark.parametrize("c", [0.1, 0.25, 0.8])
def test_coefficient_and_eta_name_one_family(schedule, c):
    rule = StochasticCoefficient(c)
    for time, later in ((1.0, 0.7), (0.6, 0.2), (0.05, 0.0), (0.5, 0.499)):
        t, s = jnp.full((SIDE, SIDE), time), jnp.full((SIDE, SIDE), later)
        eta = rule.eta(schedule, t, s)
        by_c, by_eta = _step(rule, schedule, t, s)[2], _step(DDIM(eta[0, 0]), schedule, t, s)[2]
        np.testing.assert_allclose(by_c, by_eta, atol=1e-5)
    # The last of these steps is short: to first order eta is the root of c.
    np.testing.assert_allclose(eta, np.sqrt(c), rtol=5e-3)
    np.testing.assert_allclose(rule.eta(schedule, t, t), np.sqrt(c), rtol=1e-6)


# --- the loop ---


def test_soft_strengths_start_from_the_noised_image():
    """The start is `image` at 0, pure noise at 1, and between them a mix of the two: read off by an echo."""
    image = jr.normal(jr.key(5), (4, SIDE, SIDE, 1))
    strength = jnp.zeros((SIDE, SIDE)).at[2:].set(0.25).at[5:].set(1.0)
    plan = FixedPlan(jnp.stack([strength, jnp.zeros_like(strength)]))
    start = run(Echo(), plan, DDIM(0.0), image=image)
    noise = run(Echo(), synchronous(1, SIDE, SIDE), DDIM(0.0), image=image)
    assert (start[:, :2] == image[:, :2]).all()
    np.testing.assert_allclose(start[:, 2:5], 0.75 * image[:, 2:5] + 0.25 * noise[:, 2:5], atol=1e-6)
    assert (start[:, 5:] == noise[:, 5:]).all()


@pytest.mark.parametrize("rule", [DDIM(0.5), StochasticCoefficient(0.25)], ids=["eta 1/2", "c 1/4"])
def test_strengths_of_0_and_1_are_inpainting_to_the_bit(rule):
    image, known = jr.normal(jr.key(5), (4, SIDE, SIDE, 1)), jnp.asarray(KNOWN)
    plan = synchronous(12, SIDE, SIDE)
    soft = run(gaussian(), with_strength(plan, 1.0 - KNOWN), rule, image=image)
    hard = run(gaussian(), plan, rule, image=image, known=known)
    np.testing.assert_array_equal(soft, hard)
    np.testing.assert_array_equal(soft[:, known], image[:, known])


def test_one_strength_for_all_is_image_to_image():
    """The same as an ordinary sampler that starts from the image, noised to that time."""
    image = jr.normal(jr.key(5), (4, SIDE, SIDE, 1))
    times = jnp.broadcast_to(jnp.linspace(1.0, 0.0, 13)[:, None, None] * 0.6, (13, SIDE, SIDE))
    ordinary = run(gaussian(), FixedPlan(times), DDIM(0.0), image=image)
    soft = run(gaussian(), with_strength(synchronous(12, SIDE, SIDE), 0.6), DDIM(0.0), image=image)
    np.testing.assert_array_equal(soft, ordinary)
    noised = 0.4 * image + 0.6 * run(Echo(), synchronous(1, SIDE, SIDE), DDIM(0.0), image=image)
    again = run(Echo(), with_strength(synchronous(1, SIDE, SIDE), 0.6), DDIM(0.0), image=image)
    np.testing.assert_allclose(again, noised, atol=1e-6)


def test_one_compiled_program_serves_tasks_weights_rules_and_labels():
    """With and without a known region, one for all images or one for each, at any trail."""
    traces, compiled = [], []

    def listen(event, duration, fun_name="", **_):
        if event.endswith("backend_compile_duration"):
            compiled.append(fun_name)

    class Counted(AbstractDenoiser):
        """Counts how often it is traced."""

        inner: AbstractDenoiser

        schedule = FLOW
        num_classes = None

        def __call__(self, z: Image, t: TimeField, label: Label) -> Prediction:
            traces.append(label)
            return self.inner(z, t, label)

    def run(task, weight, eta, label, image, covariance):
        denoiser = ClassifierFree(Counted(gaussian(covariance)), weight)
        labels = jnp.full(4, label, jnp.int32)
        return sample(jr.key(0), denoiser, task, image, labels, DDIM(eta))

    image, known = jnp.ones((4, SIDE, SIDE, 1)), jnp.asarray(KNOWN)
    window, in_order = from_path(WINDOW, 20), staged(raster(SIDE, SIDE, 2), 20)
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        run(Task(synchronous(20, SIDE, SIDE)), 1.0, 0.0, 3, image, COVARIANCE)
        once = len(traces)
        run(Task(in_order), 2.5, 0.7, 0, -image, np.eye(SIZE))
        run(Task(window, known), 0.0, 1.0, NULL_LABEL, 0 * image, COVARIANCE)
        run(Task(window, ~known, 0.5), 0.0, 1.0, NULL_LABEL, 0 * image, COVARIANCE)
        run(Task(in_order, jr.bernoulli(jr.key(6), shape=(4, SIDE, SIDE)), 1), 1.5, 0.5, 1, image, COVARIANCE)
        assert len(traces) == once
        run(Task(synchronous(21, SIDE, SIDE)), 1.0, 0.0, 3, image, COVARIANCE)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert len(traces) > once, "another number of steps is another program"
    assert compiled.count("jit(_images)") == 2, compiled


@pytest.mark.parametrize("trail", [0.0, 0.5])
def test_a_region_per_image_is_every_region_alone(trail):
    """To the bit: it is one program. Given in another order, the regions come to other images."""
    image = jr.normal(jr.key(5), (4, SIDE, SIDE, 1))
    known = jr.bernoulli(jr.key(6), shape=(4, SIDE, SIDE))
    plan, rule = staged(raster(SIDE, SIDE, 2), 20), DDIM(0.5)
    images = run(gaussian(), plan, rule, image=image, known=known, trail=trail)
    assert (images == image)[known].all()
    assert (images != image)[~known].all()
    for number, region in enumerate(known):
        alone = run(gaussian(), plan, rule, image=image, known=region, trail=trail)
        assert (images[number] == alone[number]).all()
        assert (images[number - 1] != alone[number - 1]).any()
    nothing = run(gaussian(), plan, rule, image=image)
    assert (nothing == run(gaussian(), plan, rule, image=image, known=known & False, trail=trail)).all()
    assert (nothing != images).any(axis=(1, 2, 3)).all()


def test_a_plan_per_image_follows_the_vocabulary_of_vmap():
    """With nothing known, with one region, and with a region per image: as each plan alone, shared by all."""
    image, rule = jr.normal(jr.key(5), (4, SIDE, SIDE, 1)), DDIM(0.5)
    orders = jax.vmap(lambda key: random_order(key, SIDE, SIDE, 2))(jr.split(jr.key(8), 4))
    plans = jax.vmap(lambda groups: from_path(StagedPath(groups, jnp.asarray(0.5)), 20))(orders)
    regions = jr.bernoulli(jr.key(6), shape=(4, SIDE, SIDE))
    for known, trail in ((None, 0.0), (jnp.asarray(KNOWN), 0.0), (regions, 0.5)):
        images = run(gaussian(), plans, rule, image=image, known=known, trail=trail, plan_axes=0)
        for number, times in enumerate(plans.times):
            alone = run(gaussian(), FixedPlan(times), rule, image=image, known=known, trail=trail)
            np.testing.assert_allclose(images[number], alone[number], atol=1e-4)
            assert jnp.abs(images[number - 1] - alone[number - 1]).max() > 1e-2
        if known is not None:
            known = jnp.broadcast_to(known, images.shape[:3])
            assert (images == image)[known].all()
            assert (images != image)[~known].all()


def test_hidden_pixels_are_not_read():
    """Where nothing is known and the plan starts from pure noise, the values given do not matter."""
    image, other = (jr.normal(jr.key(seed), (4, SIDE, SIDE, 1)) for seed in (5, 9))
    known = jnp.asarray(KNOWN)
    for trail in (0.0, 0.5):
        both = jnp.where(known[None, ..., None], image, other)
        one, two = (run(gaussian(), WINDOW_PLAN, DDIM(0.5), image=i, known=known, trail=trail) for i in (image, both))
        assert (one == two).all()


class _ByPrediction(AbstractPlan):
    """Holds tokens with a small estimate back for one step, and ends when its steps do."""

    rate: Float[Array, ""]
    calls: int = eqx.field(static=True)

    @property
    def steps(self) -> int:
        return self.calls

    def init(self, height, width):
        return jnp.zeros((), jnp.int32), jnp.ones((height, width))

    def next(self, state, t, prediction):
        moved = jnp.where(jnp.abs(prediction.data[..., 0]) > 0.1, t - self.rate, t)
        return state + 1, jnp.where(state + 1 == self.steps, 0.0, jnp.maximum(moved, 0.0))


@pytest.mark.parametrize("plan_axes", [None, 0])
def test_a_plan_may_look_at_predictions(plan_axes):
    rates = jnp.full(4, 0.06)
    plan = _ByPrediction(rates[0], 20) if plan_axes is None else jax.vmap(lambda rate: _ByPrediction(rate, 20))(rates)
    image, label = jnp.zeros((4, SIDE, SIDE, 1)), jnp.full(4, NULL_LABEL, jnp.int32)
    images, history = sample_with_history(
        jr.key(0), gaussian(), Task(plan), image, label, DDIM(0.0), frames=20, plan_axes=plan_axes
    )
    assert (history.times[0] != history.times[1]).any()
    np.testing.assert_allclose(images, run(gaussian(), plan, DDIM(0.0), plan_axes=plan_axes), atol=1e-4)


def test_history_shows_evenly_spaced_steps_of_the_same_images():
    plan, image, label = from_path(WINDOW, 20), jnp.zeros((4, SIDE, SIDE, 1)), jnp.full(4, NULL_LABEL, jnp.int32)
    images, history = sample_with_history(jr.key(0), gaussian(), Task(plan), image, label, DDIM(0.5), frames=5)
    np.testing.assert_allclose(images, run(gaussian(), plan, DDIM(0.5)), atol=1e-4)
    for image in range(4):
        assert (history.times[image] == plan.times[jnp.array([0, 5, 10, 14, 19])]).all()
    # At all-noise the best guess is the mean; at the last step the guess is the image, but for its last noise.
    np.testing.assert_allclose(history.data[:, 0].reshape(4, SIZE), np.tile(MEAN, (4, 1)), atol=1e-5)
    np.testing.assert_allclose(history.data[:, -1], images, atol=1e-4)


def test_history_shows_what_the_denoiser_was_shown():
    """The noisy images and their times, of which it makes the estimates again; known pixels are what was given."""
    known = jnp.arange(SIDE * SIDE).reshape(SIDE, SIDE) % 3 == 0
    image, label = jnp.full((4, SIDE, SIDE, 1), 0.5), jnp.full(4, NULL_LABEL, jnp.int32)
    task = Task(from_path(WINDOW, 6), known)
    _, history = sample_with_history(jr.key(0), gaussian(), task, image, label, DDIM(0.5), frames=6)
    again = jax.vmap(jax.vmap(lambda z, t: gaussian()(z, t, jnp.asarray(NULL_LABEL)).data))
    made = again(history.noisy, history.times)
    np.testing.assert_allclose(made[:, :, ~known], history.data[:, :, ~known], atol=1e-4)
    assert np.all(np.asarray(history.noisy)[:, :, np.asarray(known)] == 0.5)
    assert np.abs(history.noisy[:, 1] - history.data[:, 1]).max() > 0.1, "noise is seen"


def test_same_key_same_images_and_every_image_its_own_noise():
    once, again, other = (run(gaussian(), synchronous(20, SIDE, SIDE), DDIM(0.5), seed=seed) for seed in (0, 0, 1))
    assert (once == again).all()
    assert (once != other).all()
    assert (once[0] != once[1]).all()


# --- bad input ---


@pytest.fixture
def as_users_run_it():
    """Without the run-time type checks, so that the package's own messages are seen."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


GOOD = {
    "plan": synchronous(2, SIDE, SIDE),
    "image": jnp.zeros((4, SIDE, SIDE, 1)),
    "label": jnp.zeros(4, jnp.int32),
    "plan_axes": None,
    "known": None,
}
BY_PREDICTION = _ByPrediction(jnp.asarray(0.5), 2)
STACKED = jax.vmap(lambda _: GOOD["plan"])(jnp.arange(3))


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"image": GOOD["image"][0]}, ValueError, r"are \(batch, height, width, channel\), got shape \(8, 8, 1\)"),
        ({"image": GOOD["image"].astype(jnp.int32)}, TypeError, "floats in .*, got dtype int32"),
        ({"image": GOOD["image"].at[1, 2, 3, 0].set(jnp.nan)}, ValueError, r"value nan at .* = \(1, 2, 3, 0\)"),
        ({"image": GOOD["image"].at[3, 0, 0, 0].set(jnp.inf)}, ValueError, r"value inf at .* = \(3, 0, 0, 0\)"),
        ({"label": GOOD["label"][:3]}, ValueError, r"4 images need 4 labels, got shape \(3,\)"),
        ({"label": GOOD["label"].astype(jnp.float32)}, TypeError, "int32 class indices, got dtype float32"),
        ({"label": GOOD["label"] - 2}, ValueError, "got a label of -2"),
        ({"label": GOOD["label"].at[2].set(10)}, ValueError, "got a label of 10; give one of 10 classes"),
        ({"plan": synchronous(2, SIDE, 4)}, ValueError, r"plan for 8x8 tokens .* got \(3, 8, 4\)"),
        ({"plan": STACKED}, ValueError, r"got \(3, 3, 8, 8\); .* plan_axes=0"),
        ({"plan": STACKED, "plan_axes": 0}, ValueError, r"leading axis of 4 images, got shapes \[\(3, 3, 8, 8\)\]"),
        ({"known": jnp.ones((4, SIDE, SIDE))}, TypeError, "known must be boolean, .* got dtype float32"),
        (
            {"known": jnp.ones((4, SIDE, 2), bool)},
            ValueError,
            r"known is \(4, 8, 2\), the plan's time fields are \(8, 8",
        ),
        (
            {"known": jnp.ones((3, SIDE, SIDE), bool)},
            ValueError,
            r"a known region of \(8, 8\), or one each \(4, 8, 8\); got \(3, 8, 8\)",
        ),
        ({"known": jnp.ones((1, SIDE, SIDE), bool)}, ValueError, r"or one each \(4, 8, 8\); got \(1, 8, 8\)"),
        ({"known": jnp.ones((2, 4, SIDE, SIDE), bool)}, ValueError, r"or one each \(4, 8, 8\); got \(2, 4, 8, 8\)"),
        ({"plan": BY_PREDICTION, "known": jnp.ones((SIDE, 2), bool)}, ValueError, r"each \(4, 8, 8\); got \(8, 2\)"),
        ({"plan": BY_PREDICTION, "known": jnp.ones((3, 8, 8), bool)}, ValueError, r"each \(4, 8, 8\); got \(3, 8, 8\)"),
        ({"plan": BY_PREDICTION, "known": jnp.ones((8, 8))}, TypeError, "known must be boolean, .* got dtype float32"),
        ({"plan_axes": 1}, ValueError, r"plan_axes is None .* or 0 .*, got 1"),
    ],
)
@pytest.mark.parametrize("draw", [sample, functools.partial(sample_with_history, frames=2)], ids=["images", "history"])
def test_bad_input_is_refused_before_any_compute(draw, changed, error, message):
    class Untouched(AbstractDenoiser):
        """Must not be called."""

        schedule = FLOW
        num_classes = 10

        def __call__(self, z, t, label):
            raise AssertionError("the denoiser ran on bad input")

    arguments = GOOD | changed
    with pytest.raises(error, match=message):
        draw(
            jr.key(0),
            Untouched(),
            Task(arguments["plan"], arguments["known"]),
            arguments["image"],
            arguments["label"],
            DDIM(0.0),
            plan_axes=arguments["plan_axes"],
        )


def test_a_plan_from_outside_may_be_used_under_jit():
    def draw(label):
        image, plan = GOOD["image"], GOOD["plan"]
        return sample(jr.key(0), Echo(), Task(plan, GOOD["known"]), image, label, DDIM(0.0))

    np.testing.assert_allclose(jax.jit(draw)(GOOD["label"]), draw(GOOD["label"]), atol=1e-6)


@pytest.mark.parametrize("frames", [0, 3])
def test_history_has_no_more_frames_than_steps(frames):
    with pytest.raises(ValueError, match=f"a plan of 2 steps has no {frames} frames; ask for 1 to 2"):
        sample_with_history(
            jr.key(0), Echo(), Task(GOOD["plan"]), GOOD["image"], GOOD["label"], DDIM(0.0), frames=frames
        )


@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan")])
def test_step_coefficients_are_checked(value):
    for rule, name in ((DDIM, "eta"), (StochasticCoefficient, "c")):
        with pytest.raises(ValueError, match=f"{name} runs from 0 .*, got {value:.1f}"):
            rule(value)


def test_coefficients_are_arrays():
    assert eqx.is_array(DDIM(0.5).eta)
    assert eqx.is_array(StochasticCoefficient(1).c)
