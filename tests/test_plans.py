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

from asyncpatch.noise_schedule import RectifiedFlow
from asyncpatch.paths import StagedPath, Window, outwards, random_order, raster, spiral
from asyncpatch.plans import (
    AbstractPlan,
    Adaptive,
    ByDifficulty,
    DualSpeed,
    FixedPlan,
    Task,
    autoregressive,
    check_plan,
    from_path,
    on_grid,
    shifted,
    staged,
    synchronous,
    with_strength,
)
from asyncpatch.process import Prediction
from asyncpatch.shapes import TimeField

HEIGHT, WIDTH, STEPS = 4, 6, 12
STRENGTH = jnp.linspace(0, 1, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
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
    "outwards": staged(outwards(KNOWN, 1), STEPS, overlap=0.5),
    "window": from_path(Window((1, 2)).sample(jr.key(1), HEIGHT, WIDTH), STEPS),
    "uneven grid": on_grid(Window((1, 2)).sample(jr.key(1), HEIGHT, WIDTH), jnp.linspace(1, 0, STEPS + 1) ** 3),
    "raster, shifted": shifted(staged(raster(HEIGHT, WIDTH, 1), STEPS, overlap=0.7), 3.0),
    "by prediction": _HardestLast(STEPS),
    "autoregressive": autoregressive(HEIGHT, WIDTH, 2, STEPS // 6),
    "strengths": with_strength(
        synchronous(STEPS, HEIGHT, WIDTH), jnp.linspace(0, 1, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
    ),
    "adaptive": Adaptive(STEPS, 0.5),
    "adaptive, full strength": Adaptive(STEPS, 1.0),
    "by difficulty": ByDifficulty(STEPS, 2, 0.3),
    "by difficulty, patches cut off": ByDifficulty(STEPS, 4, 0.8),
    "dual speed": DualSpeed(STEPS, 5),
}


@eqx.filter_jit
def _walk(plan: AbstractPlan) -> Float[Array, "steps_plus_1 height width"]:
    """All time fields of a plan, under predictions that change at every step."""
    state, t = plan.init(HEIGHT, WIDTH)

    def step(carry, index):
        data = jr.normal(jr.fold_in(jr.key(0), index), (HEIGHT, WIDTH, 1))
        state, t = plan.next(*carry, Prediction(data, data, 3 * data[..., 0]))
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


ORDERS = jnp.stack([raster(HEIGHT, WIDTH, 1), spiral(HEIGHT, WIDTH, 1)])


def _plan_per_order():
    return jax.vmap(lambda groups: from_path(StagedPath(groups, jnp.asarray(0.5)), STEPS))(ORDERS)


def test_plans_are_built_per_image_under_vmap():
    plans = _plan_per_order()
    assert plans.times.shape == (2, STEPS + 1, HEIGHT, WIDTH)
    assert plans.steps == STEPS
    for times, order in zip(plans.times, ORDERS, strict=True):
        assert (times == staged(order, STEPS, 0.5).times).all()


def test_autoregression_gives_every_patch_its_steps_alone():
    """Of 2x2 patches in a 4x6 image six, left to right and top to bottom."""
    times = np.asarray(autoregressive(HEIGHT, WIDTH, 2, 3).times)
    assert len(times) == 6 * 3 + 1
    moves = (np.diff(times, axis=0) < 0).reshape(6, 3, 2, 2, 3, 2)
    for number, (row, column) in enumerate(np.ndindex(2, 3)):
        patch = moves[number, :, row, :, column]
        assert patch.all()
        assert moves[number].sum() == patch.sum()


def test_strengths_scale_a_plan():
    plan, strength = PLANS["raster"], jnp.linspace(0, 1, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
    np.testing.assert_array_equal(with_strength(plan, strength).times, plan.times * strength[None])
    np.testing.assert_array_equal(with_strength(plan, 0.5).times, plan.times / 2)
    np.testing.assert_array_equal(
        jax.jit(lambda s: with_strength(plan, s).times)(strength), plan.times * strength[None]
    )


@pytest.mark.parametrize(
    ("strength", "message"),
    [
        (1.5, r"a strength is in \[0, 1\], got 1.5; 0 keeps"),
        (float("nan"), r"got nan"),
        (jnp.full((HEIGHT, WIDTH), -0.25), "got -0.25"),
        (jnp.ones((WIDTH, HEIGHT)), r"plan's size, \(4, 6\), got \(6, 4\)"),
        (jnp.ones(WIDTH), r"plan's size, \(4, 6\), got \(6,\)"),
    ],
)
def test_bad_strengths_are_refused(strength, message):
    with pytest.raises(ValueError, match=message):
        with_strength(PLANS["synchronous"], strength)


# --- plans that follow the expected error ---

HALVES = jnp.zeros((HEIGHT, WIDTH)).at[:, : WIDTH // 2].set(-6.0)
"""Logarithms of expected errors: the left half of the image is easy."""

ADAPTIVE = {"adaptive": Adaptive(STEPS), "by difficulty": ByDifficulty(STEPS, 1), "dual speed": DualSpeed(STEPS)}
every_adaptive_plan = pytest.mark.parametrize("plan", ADAPTIVE.values(), ids=ADAPTIVE)


@eqx.filter_jit
def _follow(plan: AbstractPlan, log_error: TimeField) -> Float[Array, "steps_plus_1 height width"]:
    """All time fields of a plan, under one statement of difficulty."""
    start = plan.init(HEIGHT, WIDTH)
    nothing = jnp.zeros((HEIGHT, WIDTH, 1))

    def step(carry, _):
        following = plan.next(*carry, Prediction(nothing, nothing, log_error))
        return following, following[1]

    return jnp.concatenate([start[1][None], jax.lax.scan(step, start, length=plan.steps)[1]])


def check_strength_0_is_synchronous(plan: Adaptive) -> None:
    np.testing.assert_allclose(_follow(plan, HALVES), PLANS["synchronous"].times, atol=1e-6)


def test_without_strength_or_differences_all_tokens_move_together():
    check_strength_0_is_synchronous(Adaptive(STEPS, 0.0))
    with pytest.raises(AssertionError):
        check_strength_0_is_synchronous(Adaptive(STEPS, 0.01))
    np.testing.assert_allclose(_follow(Adaptive(STEPS, 1.0), 0 * HALVES - 3), PLANS["synchronous"].times, atol=1e-6)


def check_easy_tokens_lead(times: Float[Array, "steps_plus_1 height width"], easy: Array) -> None:
    """They are never behind, and somewhere on the way well ahead."""
    gaps = times[:, ~easy].min(axis=1) - times[:, easy].max(axis=1)
    assert (gaps >= 0).all()
    assert gaps.max() > 0.15


@pytest.mark.parametrize(
    "plan", [Adaptive(STEPS), ByDifficulty(STEPS, 3), DualSpeed(STEPS)], ids=lambda p: type(p).__name__
)
def test_easy_tokens_lead(plan):
    easy = np.asarray(HALVES) < -1
    check_easy_tokens_lead(_follow(plan, HALVES), easy)
    with pytest.raises(AssertionError):
        check_easy_tokens_lead(_follow(plan, -HALVES), easy)


def test_the_lead_is_the_relative_difference_to_the_mean_error():
    """Against the formula, half way: errors of 1/9 and 9 around a mean of 1, so leads of 4/5 of the strength."""
    errors = jnp.where(HALVES < -1, 1 / 9, 9.0)
    half = _follow(Adaptive(STEPS, 0.5), jnp.log(errors))[STEPS // 2]
    np.testing.assert_allclose(half, np.where(HALVES < -1, 0.5 - 0.5 * 0.5 * 0.8, 0.5 + 0.5 * 0.5 * 0.8), atol=1e-6)


@pytest.mark.parametrize(
    "plan", [Adaptive(STEPS), ByDifficulty(STEPS, 2), DualSpeed(STEPS)], ids=lambda p: type(p).__name__
)
def test_known_tokens_do_not_count(plan):
    """Whether the easy left columns are known or the image ends there: the others follow the same times."""
    steps = jnp.linspace(-3.0, 0.0, WIDTH)[None] + jnp.arange(HEIGHT)[:, None] / 7
    known = _follow(plan, jnp.where(KNOWN, -jnp.inf, steps))
    nothing = jnp.zeros((HEIGHT, WIDTH - 2, 1))
    alone = plan.init(HEIGHT, WIDTH - 2)
    for expected in known[1:, :, 2:]:
        alone = eqx.filter_jit(plan.next)(*alone, Prediction(nothing, nothing, steps[:, 2:]))
        np.testing.assert_allclose(expected, alone[1], atol=1e-6)


def test_the_order_follows_what_is_expected_now():
    """Patches that have started keep their turn; of the others the easiest is next, however late it became so."""
    plan = ByDifficulty(6, 2, 0.0)
    first = jnp.arange(6.0).reshape(2, 3).repeat(2, axis=0).repeat(2, axis=1)
    state, t = plan.init(HEIGHT, WIDTH)
    nothing = jnp.zeros((HEIGHT, WIDTH, 1))
    finished = []
    for log_error in (first, first, -first, -first, -first, -first):
        state, s = plan.next(state, t, Prediction(nothing, nothing, log_error))
        finished.append(int(first[(s == 0) & (t > 0)][0]))
        t = s
    assert finished == [0, 1, 5, 4, 3, 2]


@pytest.mark.parametrize(
    "plan", [Adaptive(STEPS), ByDifficulty(STEPS, 2), DualSpeed(STEPS)], ids=lambda p: type(p).__name__
)
def test_a_denoiser_that_says_nothing_is_refused(plan):
    nothing = jnp.zeros((HEIGHT, WIDTH, 1))
    with pytest.raises(ValueError, match="give a SelfAssessingDenoiser"):
        jax.eval_shape(lambda: plan.next(*plan.init(HEIGHT, WIDTH), Prediction(nothing, nothing)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Adaptive(0), "budget must be at least 1, got 0"),
        (lambda: ByDifficulty(-1, 2), "budget must be at least 1, got -1"),
        (lambda: DualSpeed(0), "budget must be at least 1, got 0"),
        (lambda: DualSpeed(5, 0), "inner must be at least 1, got 0"),
        (lambda: ByDifficulty(5, 0), "patch must be at least 1, got 0"),
        (lambda: Adaptive(5, -0.1), r"strength must be in \[0, 1\], got -0.1"),
        (lambda: Adaptive(5, float("nan")), r"strength must be finite and in \[0, 1\], got nan"),
        (lambda: Adaptive(5, float("inf")), r"strength must be finite and in \[0, 1\], got inf"),
        (lambda: ByDifficulty(5, 2, 1.5), r"overlap must be in \[0, 1\], got 1.5"),
        (lambda: DualSpeed(5, 2, 2.0), r"share must be in \[0, 1\], got 2"),
    ],
)
def test_bad_settings_of_adaptive_plans_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# --- tasks ---


def test_a_task_leaves_its_plan_as_it_is():
    """What the known region changes is up to the sampling loop: see tests/test_trailing.py."""
    for plan in PLANS.values():
        assert Task(plan, KNOWN, 0.25).plan is plan
        assert Task(plan).plan is plan


@pytest.mark.parametrize(
    ("known", "something"),
    [(None, False), (jnp.zeros_like(KNOWN), False), (KNOWN, True), (jnp.stack([jnp.zeros_like(KNOWN), KNOWN]), True)],
    ids=["none", "no token", "one region", "a region per image"],
)
def test_a_task_says_whether_anything_is_known(known, something):
    assert Task(PLANS["raster"], known).knows_something() is something


def test_a_task_takes_one_region_or_one_per_image_and_one_plan_or_one_per_image():
    for plan in (PLANS["raster"], _plan_per_order()):
        for known in (KNOWN, jnp.stack([KNOWN, ~KNOWN])):
            assert Task(plan, known).known is known


def test_the_trail_is_an_array_and_may_be_traced():
    """So that one compiled program serves all trails, and a task can be built inside `jax.jit`."""
    for task in (Task(PLANS["raster"]), Task(PLANS["raster"], KNOWN, 1), Task(PLANS["raster"], KNOWN, 0.5)):
        assert eqx.is_array(task.trail)
        assert task.trail.dtype == jnp.float32
    halved = jax.jit(lambda trail: Task(PLANS["raster"], KNOWN, trail / 2).trail)
    assert halved(jnp.asarray(0.5)) == 0.25


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
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.int32, jnp.uint8])
@pytest.mark.parametrize("plan", ["synchronous", "by prediction"])
def test_known_must_be_boolean(plan, dtype):
    message = f"known must be boolean, True where a token is observed, got dtype {jnp.dtype(dtype)}; compare it"
    with pytest.raises(TypeError, match=message):
        Task(PLANS[plan], KNOWN.astype(dtype))


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize(
    ("known", "shape"),
    [
        (KNOWN.T, r"\(6, 4\)"),
        (KNOWN[0], r"\(6,\)"),
        (KNOWN[None].mT, r"\(1, 6, 4\)"),
        (KNOWN[..., None], r"\(4, 6, 1\)"),
    ],
    ids=["transposed", "row", "transposed, per image", "with a channel"],
)
def test_known_must_have_the_plans_shape(known, shape):
    """A plan that is no array cannot tell its shape: there the sampling loop looks."""
    with pytest.raises(ValueError, match=rf"known is {shape}, the plan's time fields are \(4, 6\); make them equal"):
        Task(PLANS["synchronous"], known)
    with pytest.raises(ValueError, match=rf"known is {shape}, the plan's time fields are \(4, 6\); make them equal"):
        Task(_plan_per_order(), known)
    Task(PLANS["by prediction"], known)


@pytest.mark.parametrize("trail", [-0.25, 1.5, float("nan"), float("inf")])
@pytest.mark.parametrize("known", [None, KNOWN], ids=["nothing known", "something known"])
def test_a_trail_is_a_share(known, trail):
    with pytest.raises(ValueError, match=f"others' times, in .*, got {trail}; 0 holds them clean"):
        Task(PLANS["synchronous"], known, trail)


@pytest.mark.parametrize("steps", [0, -3])
def test_a_plan_without_steps_is_refused(steps):
    with pytest.raises(ValueError, match=f"at least one step, got steps={steps}"):
        synchronous(steps, HEIGHT, WIDTH)


def test_a_grid_is_where_the_path_is_walked():
    path, grid = Window((1, 2)).sample(jr.key(1), HEIGHT, WIDTH), jnp.array([0.9, 0.4, 0.4, 0.0])
    np.testing.assert_array_equal(on_grid(path, grid).times, jnp.stack([path(r) for r in grid]))
    assert eqx.tree_equal(on_grid(path, jnp.linspace(1.0, 0.0, 6)), from_path(path, 5))


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ([1.0, 0.5, 0.6, 0.0], r"rises at point 2, from 0.5 to 0.6; sort"),
        ([1.5, 0.5, 0.0], r"leaves \[0, 1\] at point 0, with 1.5"),
        ([1.0, float("nan"), 0.0], r"leaves \[0, 1\] at point 1, with nan"),
        ([1.0, 0.5], "ends at 0.5 and not at 0; .* append a 0"),
        ([0.0], r"at least two numbers, .* got shape \(1,\)"),
        ([[1.0, 0.0]], r"at least two numbers, .* got shape \(1, 2\)"),
    ],
)
def test_bad_grid_is_refused(grid, message):
    with pytest.raises(ValueError, match=message):
        on_grid(Window((1,)).sample(jr.key(1), HEIGHT, WIDTH), jnp.asarray(grid))


@pytest.mark.parametrize("shift", [0.25, 3.0])
def test_a_shift_moves_the_log_snr_of_every_time(shift):
    plan, flow = synchronous(STEPS, HEIGHT, WIDTH), RectifiedFlow()
    before, after = (flow.log_snr(times[1:-1]) for times in (plan.times, shifted(plan, shift).times))
    np.testing.assert_allclose(before - after, 2 * np.log(shift), rtol=1e-4)
    assert (shifted(plan, shift).times[0] == 1).all()
    np.testing.assert_allclose(shifted(plan, 1.0).times, plan.times, rtol=1e-6)
    per_image = jax.vmap(lambda shift: shifted(plan, shift))(jnp.array([shift, 1.0]))
    np.testing.assert_allclose(per_image.times[0], shifted(plan, shift).times, rtol=1e-6)


@pytest.mark.parametrize("shift", [0.0, -1.0, float("nan"), float("inf")])
def test_bad_shift_is_refused(shift):
    with pytest.raises(ValueError, match=f"shift must be finite and above 0, got {shift}"):
        shifted(synchronous(2, HEIGHT, WIDTH), shift)
