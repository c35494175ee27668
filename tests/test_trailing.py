"""Inpainting with known tokens that trail: they follow their own noisy versions and end as they were given."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jaxtyping import Array, Float, Int

from asyncpatch.noise_schedule import Cosine, LogLinear, RectifiedFlow, Truncated
from asyncpatch.paths import raster, spiral
from asyncpatch.plans import AbstractPlan, FixedPlan, Task, staged, synchronous
from asyncpatch.process import AbstractDenoiser, GaussianDenoiser, Prediction
from asyncpatch.sampling import DDIM, sample, sample_with_history
from asyncpatch.shapes import Image, Label, TimeField

SIDE, STEPS, IMAGES = 8, 12, 4
FLOW = RectifiedFlow()


class Neighbour(AbstractDenoiser):
    """Guesses that the right half of the image looks as noisy as the left half is now, and that the left half is 0."""

    schedule = FLOW
    num_classes = None

    def __call__(self, z: Image, t: TimeField, label: Label) -> Prediction:
        half = z.shape[1] // 2
        return Prediction.from_data(FLOW, z, t, jnp.zeros_like(z).at[:, half:].set(z[:, :half]))


LEFT_HALF = jnp.broadcast_to(jnp.arange(SIDE) < SIDE // 2, (SIDE, SIDE))


def complete(trail, times, eta, told=True, images=2000):
    """Complete the right half; the last call sees times `times[-2]`, and its guess is what the right half becomes.

    A sampler that is not told of the known tokens has their times in its plan.
    """
    image = jnp.full((images, SIDE, SIDE, 1), 2.0)
    plan = FixedPlan(jnp.broadcast_to(jnp.asarray(times)[:, None, None], (len(times), SIDE, SIDE)))
    trailing = FixedPlan(jnp.where(LEFT_HALF[None], trail, 1.0) * plan.times)
    task = Task(plan, LEFT_HALF, trail) if told else Task(trailing)
    made = sample(jr.key(3), Neighbour(), task, image, jnp.zeros(images, jnp.int32), DDIM(eta))
    return np.asarray(made[:, :, : SIDE // 2]), np.asarray(made[:, :, SIDE // 2 :])


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("trail", [0.5, 1.0])
def test_known_tokens_trail_along_their_own_noisy_versions(trail, eta):
    given, seen = complete(trail, [1.0, 0.7, 0.4, 0.0], eta)
    assert (given == 2).all(), "known tokens come out equal to the bit"
    time = 0.4 * trail
    assert abs(seen.mean() - 2 * (1 - time)) < 5 * time / np.sqrt(seen.size)
    assert abs(seen.std() / time - 1) < 5 / np.sqrt(2 * seen.size)


def test_law_rejects_trailing_tokens_that_the_sampler_was_not_told_of():
    given, seen = complete(0.5, [1.0, 0.7, 0.4, 0.0], 1.0, told=False)
    assert (given != 2).all()
    assert seen.mean() < 1.5


def test_known_tokens_without_a_trail_are_tokens_that_a_plan_holds_clean():
    told, untold = (complete(0.0, [1.0, 0.7, 0.4, 0.0], 0.5, told, images=8) for told in (True, False))
    assert all((one == other).all() for one, other in zip(told, untold, strict=True))


@pytest.mark.parametrize(("trail", "slope"), [(0.0, 0.9), (0.5, 0.852), (1.0, 0.629)])
def test_the_more_known_tokens_trail_the_less_the_others_depend_on_them(trail, slope):
    """Slopes of docs/theory.md section 5, on two tokens of correlation 0.9; deviation of a slope 0.005."""
    images, known = 10_000, jnp.array([[True, False]])
    denoiser = GaussianDenoiser(jnp.zeros((1, 2, 1)), jnp.array([[1.0, 0.9], [0.9, 1.0]]), FLOW)
    given = jr.normal(jr.key(1), (images, 1, 2, 1))
    task, label = Task(synchronous(200, 1, 2), known, trail), jnp.zeros(images, jnp.int32)
    made = sample(jr.key(0), denoiser, task, given, label, DDIM(1.0))
    one, other = np.asarray(made[:, 0, :, 0], np.float64).T
    assert abs((one @ other) / (one @ one) - slope) < 0.03


@pytest.mark.parametrize("trail", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("schedule", [Cosine(), LogLinear(4.0, -9.0), Truncated(FLOW, 4.0, -9.0)], ids=repr)
def test_known_tokens_come_out_equal_to_the_bit_under_every_schedule(schedule, trail):
    """Also where a clean token still has noise: at `t = 0` the last two leave a deviation of 0.13 or so."""
    denoiser = GaussianDenoiser(jnp.zeros((2, 2, 1)), 0.5 + 0.5 * jnp.eye(4), schedule)
    image, known = jr.normal(jr.key(1), (IMAGES, 2, 2, 1)), jnp.array([[True, False], [False, True]])
    task, label = Task(synchronous(STEPS, 2, 2), known, trail), jnp.zeros(IMAGES, jnp.int32)
    made = sample(jr.key(0), denoiser, task, image, label, DDIM(0.5))
    assert (made == image)[:, known].all()
    assert (made != image)[:, ~known].all()


# --- what the denoiser is shown ---

PLANS = {
    "synchronous": synchronous(STEPS, SIDE, SIDE),
    "raster": staged(raster(SIDE, SIDE, 2), STEPS),
    "spiral, overlapping": staged(spiral(SIDE, SIDE, 1), STEPS, overlap=0.7),
}
REGIONS = {
    "left half": LEFT_HALF,
    "all but the left half": ~LEFT_HALF,
    "scattered": jr.bernoulli(jr.key(4), shape=(SIDE, SIDE)),
}
GIVEN = jr.normal(jr.key(5), (IMAGES, SIDE, SIDE, 1))


def whole_history(task, eta=0.5):
    """The images of a task, and the history of all its steps."""
    label = jnp.zeros(IMAGES, jnp.int32)
    return sample_with_history(jr.key(6), Neighbour(), task, GIVEN, label, DDIM(eta), frames=STEPS)


def check_known_tokens_are_held_at_a_share(times, plan, known, trail) -> None:
    """Unknown tokens are where the plan says, to the bit; known ones at the share of it, so in order as well."""
    expected = jnp.broadcast_to(plan.times[:-1], times.shape)
    known = jnp.broadcast_to(known, times.shape)
    assert (times == expected)[~known].all()
    np.testing.assert_allclose(times[known], trail * expected[known], rtol=1e-6)


@pytest.mark.parametrize("trail", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("known", REGIONS)
@pytest.mark.parametrize("plan", PLANS)
def test_known_tokens_are_held_at_a_share_of_the_plans_times(plan, known, trail):
    plan, known = PLANS[plan], REGIONS[known]
    _, history = whole_history(Task(plan, known, trail))
    check_known_tokens_are_held_at_a_share(history.times, plan, known, trail)


@pytest.mark.parametrize(
    "twin",
    [Task(PLANS["raster"]), Task(PLANS["raster"], LEFT_HALF, 0.3), Task(PLANS["raster"], ~LEFT_HALF, 0.25)],
    ids=["nothing known", "another trail", "the other tokens"],
)
def test_law_rejects_fields_of_another_task(twin):
    _, history = whole_history(twin)
    with pytest.raises(AssertionError):
        check_known_tokens_are_held_at_a_share(history.times, PLANS["raster"], LEFT_HALF, 0.25)


@pytest.mark.parametrize("known", [LEFT_HALF, jr.bernoulli(jr.key(7), shape=(IMAGES, SIDE, SIDE))], ids=["one", "each"])
@pytest.mark.parametrize("trail", [0.0, 0.5, 1.0])
def test_a_history_with_known_tokens_is_of_the_same_images(known, trail):
    task = Task(PLANS["raster"], known, trail)
    images, history = whole_history(task)
    alone = sample(jr.key(6), Neighbour(), task, GIVEN, jnp.zeros(IMAGES, jnp.int32), DDIM(0.5))
    everywhere = jnp.broadcast_to(known, images.shape[:3])
    np.testing.assert_allclose(images, alone, atol=1e-5)
    for made in (images, alone):
        assert (made == GIVEN)[everywhere].all()
        assert (made != GIVEN)[~everywhere].all()
    # What a plan and a step rule are told of known tokens is the truth, at every step.
    assert (history.data == GIVEN[:, None])[jnp.broadcast_to(everywhere[:, None], history.times.shape)].all()


# --- plans that decide as they go ---


class ByPrediction(AbstractPlan):
    """Goes a share of the way that is left, every second step a longer one; tokens with a small estimate wait.

    So where a token goes depends on the state, and on the time and the estimate that the plan is told.
    """

    calls: int = eqx.field(static=True)

    @property
    def steps(self) -> int:
        return self.calls

    def init(self, height: int, width: int) -> tuple[Int[Array, ""], TimeField]:
        return jnp.zeros((), jnp.int32), jnp.ones((height, width))

    def next(self, state: Int[Array, ""], t: TimeField, prediction: Prediction) -> tuple[Int[Array, ""], TimeField]:
        rate = jnp.where(state % 2 == 0, 0.75, 0.5)
        moved = jnp.where(jnp.abs(prediction.data[..., 0]) > 1, rate * t, t)
        return state + 1, jnp.where(state + 1 == self.steps, 0.0, moved)


class ToldWhereTokensAre(AbstractPlan):
    """Wrong twin of the loop, as a plan: the plan is told where known tokens are, not where it had sent them."""

    plan: AbstractPlan
    known: Array
    trail: float

    @property
    def steps(self) -> int:
        return self.plan.steps

    def init(self, height: int, width: int) -> tuple[Int[Array, ""], TimeField]:
        return self.plan.init(height, width)

    def next(self, state: Int[Array, ""], t: TimeField, prediction: Prediction) -> tuple[Int[Array, ""], TimeField]:
        return self.plan.next(state, jnp.where(self.known, self.trail * t, t), prediction)


def check_a_plan_is_told_its_own_times(plan, known, trail) -> Float[np.ndarray, "images height width channel"]:
    """Replays the plan on the times that it gave and the estimates that the history shows; returns the images."""
    images, history = whole_history(Task(plan, known, trail))
    data = np.asarray(history.data[..., 0])
    own = np.ones((IMAGES, SIDE, SIDE), np.float32)
    for step in range(STEPS):
        shown = np.where(known, np.float32(trail) * own, own)
        np.testing.assert_allclose(history.times[:, step], shown, rtol=1e-5)
        own = np.where(np.abs(data[:, step]) > 1, (0.75 if step % 2 == 0 else 0.5) * own, own)
    return np.asarray(images)


@pytest.mark.parametrize("trail", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("known", [LEFT_HALF, jr.bernoulli(jr.key(7), shape=(IMAGES, SIDE, SIDE))], ids=["one", "each"])
def test_a_plan_that_looks_at_predictions_inpaints(known, trail):
    known = np.broadcast_to(known, (IMAGES, SIDE, SIDE))
    images = check_a_plan_is_told_its_own_times(ByPrediction(STEPS), jnp.asarray(known), trail)
    assert (images == GIVEN)[known].all()
    assert (images != GIVEN)[~known].all()


def test_law_rejects_a_plan_that_is_told_where_known_tokens_are():
    with pytest.raises(AssertionError):
        check_a_plan_is_told_its_own_times(ToldWhereTokensAre(ByPrediction(STEPS), LEFT_HALF, 0.5), LEFT_HALF, 0.5)
