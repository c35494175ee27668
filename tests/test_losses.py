"""Weightings against their published forms, and the minimiser of the loss."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from asyncpatch.losses import AbstractWeighting, FisherDivergence, Plain, SiD2, denoising_loss
from asyncpatch.noise_schedule import AbstractNoiseSchedule, Cosine, LogLinear, RectifiedFlow, Truncated
from asyncpatch.process import AbstractDenoiser, GaussianDenoiser, Prediction
from asyncpatch.shapes import NULL_LABEL

SCHEDULES = [RectifiedFlow(), Cosine(), LogLinear(), Truncated(RectifiedFlow())]
WEIGHTINGS = [Plain(), SiD2(), SiD2(bias=-1.0), FisherDivergence()]


def named(thing):
    return repr(thing).replace("\n", "")


@pytest.mark.parametrize("weighting", WEIGHTINGS, ids=named)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=named)
def test_weights_are_finite_and_not_negative_everywhere(weighting, schedule):
    weights = weighting(schedule, jnp.linspace(0.0, 1.0, 101))
    assert jnp.all(jnp.isfinite(weights))
    # cos(pi/2 (1-t)) and its derivative round to a few parts in 1e8 around 0.
    assert jnp.all(weights >= -1e-6)


TOO_STEEP = [RectifiedFlow(), Cosine(), LogLinear(max_log_snr=80.0), Truncated(RectifiedFlow(), max_log_snr=40.0)]
"""Schedules that come so close to clean that the error of the score there hides all others."""


@pytest.mark.parametrize("weighting", WEIGHTINGS, ids=named)
@pytest.mark.parametrize("schedule", SCHEDULES + TOO_STEEP, ids=named)
def test_weighting_that_cannot_be_trained_under_is_refused(weighting, schedule):
    if isinstance(weighting, FisherDivergence) and schedule in TOO_STEEP:
        with pytest.raises(ValueError, match="weights must be finite, not negative and of comparable size"):
            weighting.check(schedule)
    else:
        weighting.check(schedule)


class Wrong(AbstractWeighting):
    """Twice the noise time, but for nearly clean tokens."""

    cleanest: float

    def __call__(self, schedule, t):
        return jnp.where(t < 1e-4, self.cleanest, 2 * t)


@pytest.mark.parametrize("cleanest", [-0.1, float("nan"), float("inf"), 1e9, 1e20])
def test_weights_that_are_negative_infinite_or_hide_all_others_are_refused(cleanest):
    Wrong(1e3).check(RectifiedFlow())
    with pytest.raises(ValueError, match="weighs the noise time 0 by "):
        Wrong(cleanest).check(RectifiedFlow())


def generic_sid2_on_velocity(schedule, bias, t):
    """The published weight on the data error, times `(data error / velocity error)^2 = sigma^2`, in float64."""
    slope = jax.vmap(jax.grad(schedule.log_snr))(t)
    return -slope * jnp.exp(bias) * jax.nn.sigmoid(schedule.log_snr(t) - bias) * schedule.sigma(t) ** 2


@pytest.mark.parametrize("schedule", SCHEDULES, ids=named)
@pytest.mark.parametrize("bias", [2.0, 0.0, -3.0])
def test_sid2_equals_the_generic_weight_on_data_errors(schedule, bias):
    t = jnp.linspace(0.01, 0.99, 99)
    np.testing.assert_allclose(SiD2(bias)(schedule, t), generic_sid2_on_velocity(schedule, bias, t), rtol=2e-4)


def test_sid2_with_another_bias_is_told_apart():
    t = jnp.linspace(0.01, 0.99, 99)
    wrong_twin = SiD2(2.1)(RectifiedFlow(), t)
    assert not np.allclose(wrong_twin, generic_sid2_on_velocity(RectifiedFlow(), 2.0, t), rtol=1e-2)


def test_sid2_on_rectified_flow_has_its_closed_form_and_maximum():
    t = jnp.linspace(0.0, 1.0, 10_001)
    odds = np.exp(2.0)
    closed = 2 * odds * t * (1 - t) / ((1 - t) ** 2 + odds * t**2)
    weights = SiD2(2.0)(RectifiedFlow(), t)
    np.testing.assert_allclose(weights, closed, rtol=1e-5, atol=1e-7)
    assert weights[0] == 0
    assert weights[-1] == 0
    np.testing.assert_allclose(jnp.max(weights), np.e, rtol=1e-5)
    np.testing.assert_allclose(t[jnp.argmax(weights)], 1 / (1 + np.e), atol=1e-3)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=named)
def test_fisher_weight_makes_velocity_errors_score_errors(schedule):
    key, other_key, time_key = jr.split(jr.key(0), 3)
    t = jr.uniform(time_key, (4, 4), minval=0.05, maxval=0.95)
    z = jr.normal(key, (4, 4, 1))
    one = Prediction.from_velocity(schedule, z, t, jr.normal(other_key, (4, 4, 1)))
    other = Prediction.from_velocity(schedule, z, t, jnp.zeros((4, 4, 1)))
    score_error = (one.score(schedule, t) - other.score(schedule, t)) ** 2
    velocity_error = (one.velocity(schedule, t) - other.velocity(schedule, t)) ** 2
    weighted = FisherDivergence()(schedule, t)[..., None] * velocity_error
    np.testing.assert_allclose(weighted, score_error, rtol=1e-3, atol=1e-4)


class Shrunk(AbstractDenoiser):
    """A wrong twin: its velocity is off by a constant factor."""

    denoiser: AbstractDenoiser
    schedule: AbstractNoiseSchedule
    factor: float

    num_classes = None

    def __call__(self, z, t, label):
        exact = self.denoiser(z, t, label)
        return Prediction.from_velocity(self.schedule, z, t, self.factor * exact.velocity(self.schedule, t))


@pytest.mark.parametrize("schedule", [RectifiedFlow(), Cosine()], ids=named)
@pytest.mark.parametrize("weighting", [Plain(), SiD2()], ids=named)
def test_exact_denoiser_minimises_the_loss(weighting, schedule):
    """On 4,096 common draws the exact denoiser beats twins 10% off; odds of a false alarm are below 1e-6 (30 s.e.)."""
    exact = GaussianDenoiser(jnp.full((2, 2, 1), 0.3), 0.5 * jnp.eye(4), schedule)

    @eqx.filter_jit
    def mean_loss(denoiser):
        data_key, time_key, noise_key = jr.split(jr.key(1), 3)
        data = 0.3 + jnp.sqrt(0.5) * jr.normal(data_key, (4096, 2, 2, 1))
        t = jr.uniform(time_key, (4096, 2, 2))
        noise = jr.normal(noise_key, (4096, 2, 2, 1))
        label = jnp.asarray(NULL_LABEL)
        loss = jax.vmap(lambda x, t, eps: denoising_loss(denoiser, weighting, x, t, eps, label))
        return jnp.mean(loss(data, t, noise))

    best = mean_loss(exact)
    assert best < mean_loss(Shrunk(exact, schedule, 0.9))
    assert best < mean_loss(Shrunk(exact, schedule, 1.1))
