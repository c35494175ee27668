"""The laws of plans. To enrol a plan, add a line to `PLANS`."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jaxtyping
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import Array, Float

from asyncpatch.paths import StagedPath, Window, random_order, raster, spiral
from asyncpatch.plans import AbstractPlan, FixedPlan, check_plan, from_path, inpaint, staged, synchronous
from asyncpatch.process import Prediction
from asyncpatch.shapes import TimeField

HEIGHT, WIDTH, STEPS = 4, 6, 12
KNOWN = jnp.zeros((HEIGHT, WIDTH), bool).at[:, :2].set(True)


class _HardestLast(AbstractPlan):
    """A plan with state that looks at predictions: tokens of a small estimate take longer steps."""

    calls: int = eqx.field(static=True)

    @property
    def steps(self) -> int:
        return self.calls

    def init(self, height: int, width: int) -> tuple[Float[Array, ""], TimeField]:
        return jnp.zeros(()), jnp.ones((height, width))

    def next(self, state: Float[Array, ""], t: TimeField, prediction: Prediction) -> tuple[Float[Array, ""], TimeField]:
        size = jnp.abs(prediction.data).mean(axis=-1)
        faster = t - (1 + 1 / (1 + size)) / self.steps
        state = state + 1
        return state, jnp.where(state == self.steps, 0.0, jnp.maximum(faster, 0.0))


PLANS = {
    "synchronous": synchronous(STEPS, HEIGHT, WIDTH),
    "raster": staged(raster(HEIGHT, WIDTH, 2), STEPS),
    "raster, overlapping": staged(raster(HEIGHT, WIDTH, 1), STEPS, overlap=0.7),
    "spiral": staged(spiral(HEIGHT, WIDTH, 2), STEPS),
    "random order": staged(random_order(jr.key(0), HEIGHT, WIDTH, 1), STEPS, overlap=0.5),
    "window": from_path(Window((1, 2)).sample(jr.key(1), HEIGHT, WIDTH), STEPS),
    "inpainting": inpaint(synchronous(STEPS, HEIGHT, WIDTH), KNOWN),
    "trailing": inpaint(synchronous(STEPS, HEIGHT, WIDTH), KNOWN, 0.5),
    "outpainting in a spiral": inpaint(staged(spiral(HEIGHT, WIDTH, 1), STEPS), ~KNOWN),
    "by prediction": _HardestLast(STEPS),
}


@eqx.filter_jit
def _walk(plan: AbstractPlan) -> Float[Array, "steps_plus_1 height width"]:
    """All time fields of a plan, under predictions that change at every step."""
    state, t = plan.init(HEIGHT, WIDTH)

    def step(carry, index):
        data = jr.normal(jr.fold_in(jr.key(0), index), (HEIGHT, WIDTH, 1))
        state, t = plan.next(*carry, Prediction(data, data))
        return (state, t), t

    _, later = jax.lax.scan(step, (state, t), jnp.arange(plan.steps))
    return jnp.concatenate([t[None], later])


def check_never_rises(plan: AbstractPlan) -> None:
    assert (jnp.diff(_walk(plan), axis=0) <= 0).all()


def check_stays_in_the_unit_interval(plan: AbstractPlan) -> None:
    times = _walk(plan)
    assert ((times >= 0) & (times <= 1)).all()


def check_ends_at_zero(plan: AbstractPlan) -> None:
    assert (_walk(plan)[-1] == 0).all()


def check_leaves_finished_tokens_alone(plan: AbstractPlan) -> None:
    times = _walk(plan)
    assert (times[1:][times[:-1] == 0] == 0).all()


LAWS = [check_never_rises, check_stays_in_the_unit_interval, check_ends_at_zero, check_leaves_finished_tokens_alone]


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("name", PLANS)
def test_law(name, law):
    law(PLANS[name])


class _Crooked(AbstractPlan):
    """Goes to 0 half way, then wakes its tokens up again, beyond 1 and for good."""

    calls: int = eqx.field(static=True)

    @property
    def steps(self) -> int:
        return self.calls

    def init(self, height: int, width: int) -> tuple[Float[Array, ""], TimeField]:
        return jnp.zeros(()), jnp.ones((height, width))

    def next(self, state: Float[Array, ""], t: TimeField, prediction: Prediction) -> tuple[Float[Array, ""], TimeField]:
        return state + 1, jnp.full_like(t, 2.2 / self.steps * jnp.abs(state + 1 - self.steps // 2))


@pytest.mark.parametrize("law", LAWS)
def test_law_rejects_wrong_twin(law):
    with pytest.raises(AssertionError):
        law(_Crooked(STEPS))


# --- what each builder promises ---


def test_synchronous_plan_is_an_even_grid():
    plan = synchronous(4, HEIGHT, WIDTH)
    assert plan.steps == 4
    assert (plan.times[:, 1, 2] == jnp.array([1.0, 0.75, 0.5, 0.25, 0.0])).all()


def test_staged_plan_finishes_a_group_before_the_next_starts():
    groups = raster(HEIGHT, WIDTH, 2)
    times = staged(groups, 24).times
    for group in range(5):
        started = (times < 1).any(axis=(1, 2), where=groups == group + 1)
        assert (times[started][:, groups == group] == 0).all()


def test_full_overlap_is_synchronous():
    times = staged(raster(HEIGHT, WIDTH, 2), STEPS, overlap=1.0).times
    np.testing.assert_allclose(times, PLANS["synchronous"].times, atol=1e-6)


@given(seed=st.integers(0, 2**31 - 1))
def test_plan_on_a_path_is_the_path_backwards(seed):
    path = Window((1, 2)).sample(jr.key(seed), HEIGHT, WIDTH)
    times = from_path(path, STEPS).times
    assert (times[0] == 1).all()
    np.testing.assert_allclose(times[3], path(jnp.asarray(1 - 3 / STEPS)), atol=1e-6)


def test_inpainting_holds_the_known_and_moves_the_rest_along_the_plan():
    plan = PLANS["raster"]
    times = inpaint(plan, KNOWN).times
    assert (times[:, :, :2] == 0).all()
    assert (times[:, :, 2:] == plan.times[:, :, 2:]).all()


def test_known_tokens_trail_at_a_share_of_the_plans_times():
    plan = PLANS["raster"]
    times = inpaint(plan, KNOWN, 0.25).times
    np.testing.assert_allclose(times[:, :, :2], 0.25 * plan.times[:, :, :2], rtol=1e-6)
    assert (times[:, :, 2:] == plan.times[:, :, 2:]).all()


def test_plans_are_built_per_image_under_vmap():
    known = jnp.stack([KNOWN, ~KNOWN])
    plans = jax.vmap(inpaint, in_axes=(None, 0))(PLANS["synchronous"], known)
    assert plans.times.shape == (2, STEPS + 1, HEIGHT, WIDTH)
    assert plans.steps == STEPS
    assert (plans.times[1] == inpaint(PLANS["synchronous"], ~KNOWN).times).all()
    orders = jnp.stack([raster(HEIGHT, WIDTH, 1), spiral(HEIGHT, WIDTH, 1)])
    plans = jax.vmap(lambda groups: from_path(StagedPath(groups, jnp.asarray(0.5)), STEPS))(orders)
    assert (plans.times[0] == staged(orders[0], STEPS, 0.5).times).all()


# --- bad input ---


@pytest.fixture
def as_users_run_it():
    """Without the run-time type checks, so that the package's own messages are seen."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


GOOD = PLANS["synchronous"].times


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize(
    ("times", "message"),
    [
        (GOOD[:, :3], r"has shape \(steps \+ 1, 4, 6\) with at least one step, got \(13, 3, 6\)"),
        (GOOD[:, 0], r"at least one step, got \(13, 6\)"),
        (GOOD[-1:], r"at least one step, got \(1, 4, 6\)"),
        (GOOD.at[5, 2, 3].set(jnp.nan), r"leaves \[0, 1\] at step 5, token \(2, 3\), with time nan"),
        (GOOD.at[0, 0, 1].set(1.5), r"leaves \[0, 1\] at step 0, token \(0, 1\), with time 1.5;"),
        (GOOD.at[12, 0, 1].set(-0.5), r"leaves \[0, 1\] at step 12, token \(0, 1\), with time -0.5 after"),
        (GOOD.at[7, 3, 5].set(0.875), r"rises at step 7, token \(3, 5\), with time 0.875 after 0.5;"),
        (GOOD[:-3], r"does not end at 0 at step 9, token \(0, 0\), with time 0.25"),
    ],
)
def test_bad_plan_is_refused_by_name_of_step_and_token(times, message):
    with pytest.raises(ValueError, match=message):
        check_plan(times, HEIGHT, WIDTH)


@pytest.mark.usefixtures("as_users_run_it")
def test_fixed_plan_checks_itself():
    with pytest.raises(ValueError, match="rises at step 12"):
        FixedPlan(GOOD.at[12].set(1.0))
    with pytest.raises(ValueError, match=r"a plan is \(steps \+ 1, height, width\), got shape \(13,\)"):
        FixedPlan(GOOD[:, 0, 0])
    with pytest.raises(ValueError, match=r"a plan for 5x6 tokens .* got \(13, 4, 6\)"):
        FixedPlan(GOOD).init(5, 6)


@pytest.mark.usefixtures("as_users_run_it")
def test_known_must_be_boolean_and_of_the_plans_shape():
    with pytest.raises(TypeError, match="known must be boolean, True where a token is observed, got dtype float32"):
        inpaint(PLANS["synchronous"], KNOWN.astype(jnp.float32))
    with pytest.raises(ValueError, match=r"known is \(6, 4\), the plan's time fields are \(4, 6\)"):
        inpaint(PLANS["synchronous"], KNOWN.T)
    for trail in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match=f"others' times in .*, got {trail}; 0 holds them clean"):
            inpaint(PLANS["synchronous"], KNOWN, trail)


@pytest.mark.parametrize("steps", [0, -3])
def test_a_plan_without_steps_is_refused(steps):
    with pytest.raises(ValueError, match=f"at least one step, got steps={steps}"):
        synchronous(steps, HEIGHT, WIDTH)
