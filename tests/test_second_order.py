"""Second-order step rules where tokens pause, start late, and take uneven steps; each with the twin that goes wrong.

The truth is the exact flow of a Gaussian along the very plan that the rule follows.
"""

from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from gaussian_truth import FLOW, SIDE, check_slope, error, exact_flow, gaussian, run, start

from asyncpatch.noise_schedule import Cosine, LogLinear, Truncated
from asyncpatch.plans import AbstractPlan, FixedPlan, Task
from asyncpatch.process import OnSchedule, Prediction
from asyncpatch.sampling import AbstractStepRule, Heun, Multistep, sample_with_history
from asyncpatch.sampling.multistep import Moves, mean_fall, noise_share
from asyncpatch.shapes import NULL_LABEL

COUNTS = [16, 64]
EVEN = jnp.asarray((np.indices((SIDE, SIDE)).sum(0) % 2) == 0)
SECOND_ORDER = {"multistep": Multistep(), "Heun": Heun()}


def _halves(first: np.ndarray, second: np.ndarray) -> FixedPlan:
    """One token of two, like the squares of a chessboard, takes the first times, the others take the second."""
    times = np.where(np.asarray(EVEN), first[:, None, None], second[:, None, None])
    return FixedPlan(jnp.asarray(times, jnp.float32))


def taking_turns(steps: int) -> FixedPlan:
    """In every step half of the tokens moves, and the other half pauses."""
    done = np.arange(steps + 1)
    return _halves(1 - (done + 1) // 2 * 2 / steps, 1 - done // 2 * 2 / steps)


def resting(steps: int) -> FixedPlan:
    """Half of the tokens rests at 1/2 until the others, which start late, are clean."""
    r = np.linspace(1, 0, steps + 1)
    return _halves(np.interp(r, [0, 0.25, 0.75, 1], [0, 0.5, 0.5, 1]), np.interp(r, [0.25, 0.75], [0, 1]))


def limping(steps: int) -> FixedPlan:
    """Two short steps, two long ones, and so on; all tokens together."""
    lengths = np.tile([1.0, 1.0, 3.0, 3.0], steps // 4)
    times = np.append(1 - np.cumsum(np.append(0.0, lengths[:-1])) / lengths.sum(), 0.0)
    return _halves(times, times)


PLANS = {"taking turns": taking_turns, "resting": resting, "limping": limping}


def check_second_order(rule: AbstractStepRule, plan_of) -> None:
    plans = [plan_of(count) for count in COUNTS]
    check_slope(COUNTS, [error(plan, rule, exact_flow(plan.times, start())) for plan in plans], 2)


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("name", SECOND_ORDER)
def test_rules_stay_of_second_order(name, plan):
    check_second_order(SECOND_ORDER[name], PLANS[plan])


class _Twin(AbstractStepRule):
    """The multistep rule with its memory tampered with, before each step and after it."""

    before: Callable = eqx.field(static=True, default=lambda state, schedule, t, s: state)
    after: Callable = eqx.field(static=True, default=lambda state, former, t, s: state)

    calls: ClassVar[int] = 1

    def init(self, z):
        return Multistep().init(z)

    def __call__(self, schedule, z, prediction, t, s, state, key, denoise):
        given = self.before(state, schedule, t, s)
        z, following = Multistep()(schedule, z, prediction, t, s, given, key, denoise)
        return z, self.after(following, state, t, s)


def _as_if_steps_were_even(state: Moves, schedule, t, s) -> Moves:
    even = 2 * mean_fall(noise_share(schedule, t), noise_share(schedule, s))
    return Moves(state.data, jnp.where(state.fallen > 0, even, 0.0), state.change, even)


def _forgetting_in_a_pause(state: Moves, schedule, t, s) -> Moves:
    return Moves(state.data, state.fallen, state.change, jnp.where(state.fallen > 0, state.fall, 0.0))


def _as_if_there_was_no_pause(state: Moves, former: Moves, t, s) -> Moves:
    data = jnp.where((s == t)[..., None], former.data, state.data)
    return Moves(data, jnp.where(s == t, former.fallen, state.fallen), state.change, state.fall)


TWINS = {
    "forgets the ratio of steps": (_Twin(before=_as_if_steps_were_even), "limping"),
    "starts anew after each pause": (_Twin(before=_forgetting_in_a_pause), "taking turns"),
    "does not notice a pause": (_Twin(after=_as_if_there_was_no_pause), "resting"),
}


@pytest.mark.parametrize("name", TWINS)
def test_order_rejects_a_twin_that(name):
    twin, plan = TWINS[name]
    with pytest.raises(AssertionError):
        check_second_order(twin, PLANS[plan])


class _Eager(AbstractPlan):
    """Tokens with a large estimate run ahead of the others, half way most of all."""

    calls: int = eqx.field(static=True)

    @property
    def steps(self) -> int:
        return self.calls

    def init(self, height, width):
        return jnp.ones(()), jnp.ones((height, width))

    def next(self, state, t, prediction):
        state = state - 1 / self.steps
        rest = jnp.where(state < 0.5 / self.steps, 0.0, state)
        return state, jnp.minimum(t, rest * (1 - (1 - rest) * jnp.tanh(prediction.data[..., 0]) / 2))


@pytest.mark.parametrize("name", SECOND_ORDER)
def test_rules_are_of_second_order_where_times_depend_on_predictions(name):
    """Each image is compared with the exact flow along the times that its own predictions led to."""
    errors, image, label = [], jnp.zeros((4, SIDE, SIDE, 1)), jnp.full(4, NULL_LABEL, jnp.int32)
    for count in COUNTS:
        images, history = sample_with_history(
            jr.key(0), gaussian(), Task(_Eager(count)), image, label, SECOND_ORDER[name], frames=count
        )
        times = np.concatenate([history.times, np.zeros((4, 1, SIDE, SIDE))], axis=1)
        assert np.std(times[:, count // 2]) > 0.05
        flows = [exact_flow(own, noise[None])[0] for own, noise in zip(times, start(), strict=True)]
        errors.append(np.abs(np.asarray(images).reshape(4, -1) - flows).max())
    check_slope(COUNTS, errors, 2)


SCHEDULES = {"cosine": Cosine(), "log-linear": LogLinear(20.0, -20.0), "truncated": Truncated(FLOW, 20.0, -20.0)}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", SECOND_ORDER)
def test_equal_log_snrs_give_equal_images_under_every_schedule(name, schedule):
    """Ends of finite log-SNR, which the flow does not have, leave a noise of deviation 5e-5."""
    other, plan = SCHEDULES[schedule], resting(16)
    inner = plan.times.clip(1e-4, 1 - 1e-4)
    shown = jnp.where((plan.times > 0) & (plan.times < 1), other.time(FLOW.log_snr(inner)).clip(0, 1), plan.times)
    rule = SECOND_ORDER[name]
    same = run(OnSchedule(gaussian(), other), FixedPlan(shown), rule)
    np.testing.assert_allclose(same, run(gaussian(), plan, rule), atol=2e-3)


def test_a_step_adds_no_more_than_twice_the_last_change():
    """After a move by next to nothing, during which neighbours changed the estimate, as at a late start."""
    t, s, still = (jnp.full((SIDE, SIDE), value) for value in (0.8, 0.4, 0.0))
    z, data = jr.normal(jr.key(0), (SIDE, SIDE, 1)), jr.normal(jr.key(1), (SIDE, SIDE, 1))
    prediction = Prediction.from_data(FLOW, z, t, data)

    def after(fallen: float):
        state = Moves(0 * data, jnp.full((SIDE, SIDE), fallen), 0 * data, still)
        return Multistep()(FLOW, z, prediction, t, s, state, jr.key(2), lambda z, t: prediction)[0]

    # The step weighs the estimate by alpha_s (1 - r) = 0.6 (1 - 1/6); W = 0.8 (1 - log 2).
    for fallen, share in ((0.0, 0.0), (1e-7, 2.0), (0.2, 4 * (1 - np.log(2))), (0.4, 2 * (1 - np.log(2)))):
        np.testing.assert_allclose(after(fallen) - after(0.0), 0.5 * share * data, atol=1e-5)
