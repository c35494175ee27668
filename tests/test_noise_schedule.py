"""The laws of noise schedules. To enrol a schedule, add a line to `SCHEDULES`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float

from asyncpatch.noise_schedule import (
    AbstractNoiseSchedule,
    Cosine,
    LogLinear,
    RectifiedFlow,
    Truncated,
    safe_divide,
)

SCHEDULES = {
    "rectified flow": RectifiedFlow(),
    "cosine": Cosine(),
    "log-linear": LogLinear(),
    "log-linear, lopsided": LogLinear(max_log_snr=7.0, min_log_snr=-3.0),
    "truncated rectified flow": Truncated(RectifiedFlow()),
    "truncated cosine": Truncated(Cosine(), max_log_snr=6.0, min_log_snr=-12.0),
}
# The ends, where some log-SNRs are infinite, are left to a test of their own.
INSIDE = jnp.linspace(0.0, 1.0, 1001)[1:-1]


def check_falling(schedule: AbstractNoiseSchedule) -> None:
    t = jnp.linspace(0.0, 1.0, 1001)
    assert (jnp.diff(schedule.log_snr(INSIDE)) < 0).all()
    assert (jnp.diff(schedule.alpha(t)) <= 0).all()
    assert (jnp.diff(schedule.sigma(t)) >= 0).all()


def check_log_snr_belongs_to_scales(schedule: AbstractNoiseSchedule) -> None:
    alpha, sigma = (np.asarray(scale(INSIDE), np.float64) for scale in (schedule.alpha, schedule.sigma))
    np.testing.assert_allclose(schedule.log_snr(INSIDE), 2 * np.log(alpha / sigma), atol=2e-4)


def check_inverse(schedule: AbstractNoiseSchedule) -> None:
    np.testing.assert_allclose(schedule.time(schedule.log_snr(INSIDE)), INSIDE, atol=2e-6)


def check_derivative(schedule: AbstractNoiseSchedule) -> None:
    t, h = jnp.linspace(0.05, 0.95, 91), 1e-2
    slope = jax.vmap(jax.grad(schedule.log_snr))(t)
    # Five points: an error of order h^4, so that rounding in float32 stays small beside the step.
    ahead, far = (schedule.log_snr(t + k * h) - schedule.log_snr(t - k * h) for k in (1, 2))
    np.testing.assert_allclose(slope, (8 * ahead - far) / (12 * h), rtol=5e-3)


def check_ends(schedule: AbstractNoiseSchedule) -> None:
    ends = jnp.array([0.0, 1.0])
    for scale in (schedule.alpha(ends), schedule.sigma(ends)):
        assert ((scale >= 0) & (scale <= 1)).all()
    assert not jnp.isnan(schedule.log_snr(ends)).any()
    np.testing.assert_allclose(schedule.time(schedule.log_snr(ends)), ends, atol=1e-6)


def check_velocity_determines_the_pair(schedule: AbstractNoiseSchedule) -> None:
    t = jnp.linspace(0.0, 1.0, 1001)
    on_data, on_noise = schedule.velocity_mix(t)
    np.testing.assert_allclose(schedule.alpha(t) * on_noise - schedule.sigma(t) * on_data, 1.0, atol=1e-5)


LAWS = [
    check_falling,
    check_log_snr_belongs_to_scales,
    check_inverse,
    check_derivative,
    check_ends,
    check_velocity_determines_the_pair,
]


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("name", SCHEDULES)
def test_law(name, law):
    law(SCHEDULES[name])


class _Crooked(AbstractNoiseSchedule):
    """Breaks every law: a bump in alpha, and methods that do not belong together."""

    def alpha(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return 1.5 - t + 0.2 * jnp.sin(20 * t)

    def sigma(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return t**2

    def log_snr(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        # Steps of 1/50: finite differences see a slope that the gradient does not.
        return 2 * jnp.log(self.alpha(t)) - 2 * jnp.log(t) + jnp.floor(50 * t)

    def time(self, log_snr: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return jax.nn.sigmoid(-log_snr)

    def velocity_mix(self, t: Float[Array, "*shape"]) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
        return jnp.zeros_like(t), jnp.ones_like(t)


@pytest.mark.parametrize("law", LAWS)
def test_law_rejects_wrong_twin(law):
    with pytest.raises(AssertionError):
        law(_Crooked())


@pytest.mark.parametrize("schedule", [RectifiedFlow(), Cosine()])
def test_clean_is_clean_and_noise_is_noise_to_the_bit(schedule):
    ends = jnp.array([0.0, 1.0])
    assert schedule.alpha(ends)[1] == 0
    assert schedule.sigma(ends)[0] == 0
    assert schedule.alpha(ends)[0] == schedule.sigma(ends)[1] == 1


@pytest.mark.parametrize("schedule", [Cosine(), LogLinear(), Truncated(Cosine())])
def test_variance_is_preserved(schedule):
    np.testing.assert_allclose(schedule.alpha(INSIDE) ** 2 + schedule.sigma(INSIDE) ** 2, 1.0, atol=1e-6)


@pytest.mark.parametrize("base", [RectifiedFlow(), Cosine(), LogLinear(14.0, -14.0)])
@pytest.mark.parametrize(("most", "least"), [(9.0, -9.0), (4.0, -11.0)])
def test_truncation_hits_the_requested_log_snrs(base, most, least):
    schedule = Truncated(base, max_log_snr=most, min_log_snr=least)
    np.testing.assert_allclose(schedule.log_snr(jnp.array([0.0, 1.0])), [most, least], atol=1e-3)


@pytest.mark.parametrize(("most", "least"), [(-1.0, 1.0), (2.0, 2.0), (float("inf"), 0.0), (0.0, float("nan"))])
def test_range_of_log_snr_is_checked(most, least):
    for make in (LogLinear, lambda *ends: Truncated(RectifiedFlow(), *ends)):
        with pytest.raises(ValueError, match="two finite ends, got max_log_snr="):
            make(most, least)


def test_safe_divide_is_zero_where_the_scale_vanishes_and_has_finite_gradients():
    numerator, denominator = jnp.array([1.0, 3.0, 0.0]), jnp.array([0.0, 2.0, 0.0])
    assert (safe_divide(numerator, denominator) == jnp.array([0.0, 1.5, 0.0])).all()
    for argument in (0, 1):
        gradient = jax.grad(lambda n, d: safe_divide(n, d).sum(), argument)(numerator, denominator)
        assert jnp.isfinite(gradient).all()
