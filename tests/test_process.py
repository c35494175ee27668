"""The forward process, predictions, and the laws of denoisers. To enrol a denoiser, add a line to `DENOISERS`."""

import jax
import jax.numpy as jnp
import jax.random as jr
import jaxtyping
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncpatch.noise_schedule import AbstractNoiseSchedule, Cosine, LogLinear, RectifiedFlow, Truncated
from asyncpatch.process import (
    AbstractDenoiser,
    FiniteDenoiser,
    GaussianDenoiser,
    OnSchedule,
    Prediction,
    corrupt,
    per_channel,
    posterior,
)
from asyncpatch.shapes import NULL_LABEL, Image, Label, TimeField

SHAPE = (2, 3, 2)
SIZE = 12
NO_LABEL = jnp.asarray(NULL_LABEL, jnp.int32)
SCHEDULES = {
    "rectified flow": RectifiedFlow(),
    "cosine": Cosine(),
    "log-linear": LogLinear(),
    "truncated": Truncated(RectifiedFlow()),
}
seeds = st.integers(0, 2**31 - 1)


def _gaussian(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    factor = rng.normal(size=(SIZE, SIZE)) / np.sqrt(SIZE)
    return rng.normal(size=SIZE), factor @ factor.T + 0.3 * np.eye(SIZE)


MEAN, COVARIANCE = _gaussian(0)
POINTS = np.random.default_rng(1).normal(size=(5, *SHAPE))


def gaussian_denoiser(schedule):
    return GaussianDenoiser(jnp.asarray(MEAN.reshape(SHAPE), "float32"), jnp.asarray(COVARIANCE, "float32"), schedule)


def finite_denoiser(schedule):
    return FiniteDenoiser(jnp.asarray(POINTS, "float32"), schedule)


def rescheduled_denoiser(schedule):
    return OnSchedule(gaussian_denoiser(RectifiedFlow()), schedule)


DENOISERS = {
    "Gaussian": gaussian_denoiser,
    "finite data set": finite_denoiser,
    "on another schedule": rescheduled_denoiser,
}


def _scales(schedule, t) -> tuple[np.ndarray, np.ndarray]:
    """Alpha and sigma per entry of the flattened image, in float64."""
    like = jnp.zeros(SHAPE)
    return tuple(np.asarray(per_channel(f(t), like), np.float64).reshape(-1) for f in (schedule.alpha, schedule.sigma))


def _times_with_ends(key) -> TimeField:
    """Random times, of which some are 0 and some are 1."""
    return jnp.clip(jr.uniform(key, SHAPE[:2], minval=-0.4, maxval=1.4), 0.0, 1.0)


# --- corrupt and posterior ---


@pytest.mark.parametrize("name", SCHEDULES)
def test_corrupt_scales_each_token_by_its_own_time(name):
    schedule, t = SCHEDULES[name], _times_with_ends(jr.key(0))
    data, noise = jr.normal(jr.key(1), SHAPE), jr.normal(jr.key(2), SHAPE)
    alpha, sigma = _scales(schedule, t)
    expected = alpha * np.asarray(data).reshape(-1) + sigma * np.asarray(noise).reshape(-1)
    np.testing.assert_allclose(corrupt(schedule, data, t, noise).reshape(-1), expected, atol=1e-6)


@pytest.mark.parametrize("name", SCHEDULES)
@given(seed=seeds)
def test_posterior_is_gaussian_conditioning(name, seed):
    """Against `q(z_s | x) q(z_t | z_s)`, conditioned on `z_t` by the textbook formula in float64."""
    schedule = SCHEDULES[name]
    t_key, share_key, z_key, x_key = jr.split(jr.key(seed), 4)
    t = jr.uniform(t_key, SHAPE[:2], minval=0.1, maxval=1.0).at[0, 0].set(1.0)
    s = t * jr.uniform(share_key, SHAPE[:2], maxval=0.9).at[0, 1].set(0.0)
    z, x = jr.normal(z_key, SHAPE), jr.normal(x_key, SHAPE)
    mean, deviation = posterior(schedule, z, x, t, s)
    (alpha_s, sigma_s), (alpha_t, sigma_t) = _scales(schedule, s), _scales(schedule, t)
    z, x = (np.asarray(a, np.float64).reshape(-1) for a in (z, x))
    ratio = alpha_t / alpha_s
    gain = sigma_s**2 * ratio / sigma_t**2
    np.testing.assert_allclose(mean.reshape(-1), alpha_s * x + gain * (z - alpha_t * x), atol=3e-5)
    variance = np.maximum(sigma_s**2 - gain * ratio * sigma_s**2, 0)
    np.testing.assert_allclose(per_channel(deviation, mean).reshape(-1), np.sqrt(variance), atol=1e-3)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("time", [0.0, 0.3, 1.0])
def test_posterior_of_a_token_that_stays_is_itself_to_the_bit(name, time):
    z, x = jr.normal(jr.key(0), SHAPE), jr.normal(jr.key(1), SHAPE)
    t = jnp.full(SHAPE[:2], time).at[0].set(0.9)
    s = t.at[0].set(0.4)
    mean, deviation = posterior(SCHEDULES[name], z, x, t, s)
    assert (mean[1] == z[1]).all()
    assert (deviation[1] == 0).all()
    assert jnp.isfinite(mean).all()
    assert (deviation[0] > 0).all()


# --- predictions ---

KINDS = {
    "data": (Prediction.from_data, lambda prediction, schedule, t: prediction.data),
    "noise": (Prediction.from_noise, lambda prediction, schedule, t: prediction.noise),
    "velocity": (Prediction.from_velocity, Prediction.velocity),
    "score": (Prediction.from_score, Prediction.score),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SCHEDULES)
@given(seed=seeds)
def test_prediction_survives_the_round_trip(name, kind, seed):
    schedule, (build, read) = SCHEDULES[name], KINDS[kind]
    t_key, data_key, noise_key = jr.split(jr.key(seed), 3)
    t = jr.uniform(t_key, SHAPE[:2], minval=0.1, maxval=0.9)
    pair = Prediction(jr.normal(data_key, SHAPE), jr.normal(noise_key, SHAPE))
    z = corrupt(schedule, pair.data, t, pair.noise)
    rebuilt = build(schedule, z, t, read(pair, schedule, t))
    np.testing.assert_allclose(rebuilt.data, pair.data, atol=1e-3)
    np.testing.assert_allclose(rebuilt.noise, pair.noise, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("time", [0.0, 1.0])
def test_prediction_is_finite_and_differentiable_at_the_ends(name, kind, time):
    schedule, (build, read) = SCHEDULES[name], KINDS[kind]
    z, t = jr.normal(jr.key(0), SHAPE), jnp.full(SHAPE[:2], time)

    def total(estimate):
        prediction = build(schedule, z, t, estimate)
        return (prediction.data + prediction.noise + read(prediction, schedule, t)).sum()

    value, gradient = jax.value_and_grad(total)(jr.normal(jr.key(1), SHAPE))
    assert jnp.isfinite(value)
    assert jnp.isfinite(gradient).all()


def test_velocity_of_rectified_flow_is_noise_minus_data():
    pair = Prediction(jr.normal(jr.key(0), SHAPE), jr.normal(jr.key(1), SHAPE))
    velocity = pair.velocity(RectifiedFlow(), jnp.full(SHAPE[:2], 0.3))
    np.testing.assert_allclose(velocity, pair.noise - pair.data, atol=1e-6)


# --- laws of every denoiser ---


def _noisy(schedule, t) -> Image:
    return corrupt(schedule, jnp.asarray(POINTS[0], "float32"), t, jr.normal(jr.key(5), SHAPE))


def check_depends_on_every_token_and_every_time(make) -> None:
    schedule = RectifiedFlow()
    t = jr.uniform(jr.key(0), SHAPE[:2], minval=0.7, maxval=0.9)
    on_z, on_t = jax.jacobian(lambda z, t: make(schedule)(z, t, NO_LABEL).data, (0, 1))(_noisy(schedule, t), t)
    assert (jnp.abs(on_z).sum(axis=(2, 5)) > 1e-6).all()
    assert (jnp.abs(on_t).sum(axis=2) > 1e-6).all()


def check_finite_at_all_times(make) -> None:
    for schedule in SCHEDULES.values():
        for t in (jnp.zeros(SHAPE[:2]), jnp.ones(SHAPE[:2]), _times_with_ends(jr.key(0))):
            prediction = make(schedule)(_noisy(schedule, t), t, NO_LABEL)
            assert jnp.isfinite(prediction.data).all()
            assert jnp.isfinite(prediction.noise).all()


def check_data_and_noise_make_z(make) -> None:
    for schedule in SCHEDULES.values():
        t = _times_with_ends(jr.key(0))
        z = _noisy(schedule, t)
        prediction = make(schedule)(z, t, NO_LABEL)
        np.testing.assert_allclose(corrupt(schedule, prediction.data, t, prediction.noise), z, atol=1e-5)


def check_says_its_schedule(make) -> None:
    for schedule in SCHEDULES.values():
        assert make(schedule).schedule == schedule


LAWS = [
    check_depends_on_every_token_and_every_time,
    check_finite_at_all_times,
    check_data_and_noise_make_z,
    check_says_its_schedule,
]


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("name", DENOISERS)
def test_law(name, law):
    law(DENOISERS[name])


class _Crooked(AbstractDenoiser):
    """Looks at its own token alone, divides by scales that vanish, and says that it has a schedule of its own."""

    made_for: AbstractNoiseSchedule

    schedule = LogLinear(1.0, -1.0)
    num_classes = None

    def __call__(self, z: Image, t: TimeField, label: Label) -> Prediction:
        return Prediction((z + 1) / (1 - t)[..., None], z / t[..., None])


@pytest.mark.parametrize("law", LAWS)
def test_law_rejects_wrong_twin(law):
    with pytest.raises(AssertionError):
        law(_Crooked)


def test_a_denoiser_without_a_schedule_cannot_be_built():
    class Silent(AbstractDenoiser):
        num_classes = None

        def __call__(self, z: Image, t: TimeField, label: Label) -> Prediction:
            return Prediction(z, z)

    with pytest.raises(TypeError, match="schedule"):
        Silent()


# --- exactness ---


@pytest.mark.parametrize("name", SCHEDULES)
@given(seed=seeds)
def test_gaussian_denoiser_is_gaussian_conditioning(name, seed):
    """Against the joint covariance of `(x, eps, z)`, conditioned on `z` in float64."""
    schedule = SCHEDULES[name]
    t_key, z_key = jr.split(jr.key(seed))
    t, z = _times_with_ends(t_key), jr.normal(z_key, SHAPE)
    prediction = gaussian_denoiser(schedule)(z, t, NO_LABEL)
    alpha, sigma = _scales(schedule, t)
    of_z = alpha[:, None] * COVARIANCE * alpha + np.diag(sigma**2)
    gap = np.linalg.solve(of_z, np.asarray(z, np.float64).reshape(-1) - alpha * MEAN)
    np.testing.assert_allclose(prediction.data.reshape(-1), MEAN + COVARIANCE * alpha @ gap, atol=1e-4)
    np.testing.assert_allclose(prediction.noise.reshape(-1), sigma * gap, atol=1e-4)


@given(seed=seeds)
def test_finite_denoiser_is_the_posterior_mean_of_the_points(seed):
    """Against probabilities of the points computed in float64, with the known tokens deciding among them."""
    schedule = RectifiedFlow()
    t_key, noise_key = jr.split(jr.key(seed))
    t = _times_with_ends(t_key)
    # Points 0, 1 and 2 agree on the first row, so that clean tokens there leave a choice.
    points = POINTS.copy()
    points[1:3, 0] = points[0, 0]
    z = corrupt(schedule, jnp.asarray(points[0], "float32"), t, jr.normal(noise_key, SHAPE))
    data = FiniteDenoiser(jnp.asarray(points, "float32"), schedule)(z, t, NO_LABEL).data
    alpha, sigma = _scales(schedule, t)
    gaps = np.asarray(z, np.float64).reshape(-1) - alpha * points.reshape(5, -1)
    clean = sigma == 0
    possible = (np.abs(gaps[:, clean]) < 1e-6).all(axis=1)
    log_weights = np.where(possible, -0.5 * (gaps[:, ~clean] ** 2 / sigma[~clean] ** 2).sum(axis=1), -np.inf)
    weights = np.exp(log_weights - log_weights.max())
    expected = (weights / weights.sum()) @ points.reshape(5, -1)
    np.testing.assert_allclose(data.reshape(-1), expected, atol=1e-3)


def test_finite_denoiser_survives_tiny_noise_and_unknown_images():
    """Log-weights of -1e10 do not overflow; a clean image outside of the set gives its nearest point."""
    denoiser = finite_denoiser(RectifiedFlow())
    image = denoiser.points[3] + 0.01
    for time in (0.0, 1e-6):
        data = denoiser(image, jnp.full(SHAPE[:2], time), NO_LABEL).data
        np.testing.assert_allclose(data, denoiser.points[3], atol=1e-6)


@pytest.mark.parametrize("name", SCHEDULES)
def test_score_is_the_gradient_of_the_log_density(name):
    schedule, t = SCHEDULES[name], jr.uniform(jr.key(0), SHAPE[:2], minval=0.2, maxval=1.0)
    z = _noisy(schedule, t)
    alpha, sigma = (per_channel(f(t), z) for f in (schedule.alpha, schedule.sigma))

    def log_density(z):
        gaps = (z[None] - alpha[None] * jnp.asarray(POINTS, "float32")) / sigma[None]
        return jax.nn.logsumexp(-0.5 * (gaps**2).sum(axis=(1, 2, 3)))

    score = finite_denoiser(schedule)(z, t, NO_LABEL).score(schedule, t)
    np.testing.assert_allclose(score, jax.grad(log_density)(z), rtol=1e-3, atol=1e-3)


# --- on another schedule ---


@pytest.mark.parametrize(
    ("trained", "used"),
    [
        (RectifiedFlow(), LogLinear()),
        (RectifiedFlow(), Truncated(RectifiedFlow(), 13.0, -10.0)),
        (RectifiedFlow(), Cosine()),
        (Cosine(), RectifiedFlow()),
        (LogLinear(12.0, -12.0), Truncated(RectifiedFlow(), 8.0, -8.0)),
        (Truncated(RectifiedFlow(), 13.0, -10.0), LogLinear(9.0, -9.0)),
    ],
    ids=repr,
)
def test_an_exact_denoiser_is_exact_on_any_other_schedule(trained, used):
    t, noise = jr.uniform(jr.key(0), SHAPE[:2]).at[0, :2].set(jnp.array([0.0, 1.0])), jr.normal(jr.key(1), SHAPE)
    z = corrupt(used, jnp.asarray(POINTS[0], "float32"), t, noise)
    found = OnSchedule(gaussian_denoiser(trained), used)(z, t, NO_LABEL)
    expected = gaussian_denoiser(used)(z, t, NO_LABEL)
    np.testing.assert_allclose(found.data, expected.data, atol=2e-3)
    np.testing.assert_allclose(found.noise, expected.noise, atol=2e-3)


@pytest.mark.parametrize(
    "twin",
    [
        lambda z, t: gaussian_denoiser(RectifiedFlow())(z, t, NO_LABEL),
        lambda z, t: gaussian_denoiser(RectifiedFlow())(z, RectifiedFlow().time(LogLinear().log_snr(t)), NO_LABEL),
    ],
    ids=["same time", "same log-SNR, another scale"],
)
def test_a_denoiser_taken_to_another_schedule_as_it_is_would_be_wrong(twin):
    t = jnp.full(SHAPE[:2], 0.4)
    z = _noisy(LogLinear(), t)
    assert np.abs(twin(z, t).data - gaussian_denoiser(LogLinear())(z, t, NO_LABEL).data).max() > 0.05


def test_a_denoiser_on_another_schedule_knows_the_same_labels():
    class Labelled(AbstractDenoiser):
        schedule = RectifiedFlow()
        num_classes = 7

        def __call__(self, z: Image, t: TimeField, label: Label) -> Prediction:
            return Prediction(z, z + label.astype(z.dtype))

    denoiser = OnSchedule(Labelled(), LogLinear())
    assert denoiser.num_classes == 7
    assert rescheduled_denoiser(LogLinear()).num_classes is None
    z, t = jnp.zeros(SHAPE), jnp.full(SHAPE[:2], 0.5)
    assert (denoiser(z, t, jnp.asarray(3)).noise == 3).all()


# --- bad input ---


@pytest.fixture
def as_users_run_it():
    """Without the run-time type checks, so that the package's own messages are seen."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize(
    ("covariance", "message"),
    [
        (jnp.eye(6), r"has 12 entries, got a covariance of shape \(6, 6\)"),
        (jnp.eye(12).at[0, 1].set(0.5), "symmetric, got entries that differ by 0.5"),
        (jnp.eye(12).at[0, 0].set(jnp.nan), "symmetric, got entries that differ by nan"),
        (jnp.eye(12).at[0, 0].set(-1.0), "positive definite, got a smallest eigenvalue of -1"),
    ],
)
def test_bad_covariance_is_refused(covariance, message):
    with pytest.raises(ValueError, match=message):
        GaussianDenoiser(jnp.zeros(SHAPE), covariance, RectifiedFlow())


def test_empty_data_set_is_refused():
    with pytest.raises(ValueError, match="needs a point"):
        FiniteDenoiser(jnp.zeros((0, *SHAPE)), RectifiedFlow())
