"""Sampling that goes wrong says what, where and when, for every task and loop, and never returns a bad picture."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from asyncpatch.noise_schedule import RectifiedFlow
from asyncpatch.plans import AbstractPlan, FixedPlan, Task, synchronous
from asyncpatch.process import AbstractDenoiser, Prediction
from asyncpatch.sampling import DDIM, SamplingError, repaint, repaint_times, sample, sample_with_history

STEPS = 5
RULE = DDIM(0.5)


class Broken(AbstractDenoiser):
    """Predicts black, but for one bad value at one pixel once its time has come down to `until`."""

    until: jax.Array
    value: jax.Array
    schedule = RectifiedFlow()
    num_classes = 2

    def __call__(self, z, t, label):
        bad = (jnp.arange(16).reshape(4, 4) == 6) & (t <= self.until) & (label == 1)
        return Prediction.from_data(self.schedule, z, t, jnp.where(bad[..., None], self.value, jnp.zeros_like(z)))


class Told(AbstractPlan):
    """Times that no check can see: they come from a table at each step, as they might from a prediction."""

    table: jax.Array

    @property
    def steps(self):
        return self.table.shape[0] - 1

    def init(self, height, width):
        return jnp.zeros((), jnp.int32), jnp.broadcast_to(self.table[0], (height, width))

    def next(self, state, t, prediction):
        return state + 1, jnp.broadcast_to(self.table[state + 1], t.shape)


def draw(denoiser, task, frames=None, count=3):
    labels = (jnp.arange(count, dtype=jnp.int32) == 1).astype(jnp.int32)
    inputs = (jr.key(0), denoiser, task, jnp.zeros((count, 4, 4, 1)), labels, RULE)
    return sample(*inputs) if frames is None else sample_with_history(*inputs, frames=frames)[0]


WHOLE = Broken(jnp.float32(-1), jnp.float32(0))
TASKS = {
    "generation": Task(synchronous(STEPS, 4, 4)),
    "inpainting": Task(synchronous(STEPS, 4, 4), jnp.zeros((4, 4), bool).at[:1].set(True)),
    "trailing": Task(synchronous(STEPS, 4, 4), jnp.zeros((4, 4), bool).at[:1].set(True), 0.5),
    "told": Task(Told(jnp.linspace(1, 0, STEPS + 1))),
}


@pytest.mark.parametrize("frames", [None, 3], ids=["sample", "history"])
@pytest.mark.parametrize("value", [jnp.nan, jnp.inf, -jnp.inf])
@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_a_sample_that_stops_being_finite_says_where_it_began(task, value, frames):
    assert np.isfinite(draw(WHOLE, task, frames)).all()
    broken = Broken(jnp.float32(0.65), jnp.float32(value))  # the calls are at 1, 0.8, 0.6, ...
    with pytest.raises(SamplingError, match=r"not finite.* at step 3 of 5, image 1, pixel \(1, 2\)"):
        draw(broken, task, frames)


def test_what_the_network_says_of_known_pixels_does_not_matter():
    known = jnp.zeros((4, 4), bool).at[1, 2].set(True)
    assert np.isfinite(draw(Broken(jnp.float32(1), jnp.float32(jnp.nan)), Task(synchronous(STEPS, 4, 4), known))).all()


def test_repaint_says_it_too():
    times, known = repaint_times(STEPS, 2, 2), jnp.zeros((4, 4), bool).at[:1].set(True)
    inputs = (times, jnp.zeros((2, 4, 4, 1)), known, jnp.ones(2, jnp.int32), RULE)
    assert np.isfinite(repaint(jr.key(0), WHOLE, *inputs)).all()
    with pytest.raises(SamplingError, match=r"not finite.* at step \d of \d+, image 0, pixel \(1, 2\)"):
        repaint(jr.key(0), Broken(jnp.float32(0.65), jnp.float32(jnp.nan)), *inputs)


WRONG_PLANS = {
    "stays": ([1, 0.7, 0.7, 0.7], r"does not end at 0: it began at step 3 of 3, image 0, pixel \(0, 0\), at time 0.7"),
    "ends early": ([1, 0.5, 1e-6], "does not end at 0"),
    "rises": ([1, 0.4, 0.6, 0], r"rises: it began at step 2 of 3, .* from 0.4 to 0.6"),
    "starts above": ([1.5, 0.5, 0], r"leaves \[0, 1\]: it began at step 0 of 2"),
    "falls below": ([1, 0.5, -0.1, 0], r"leaves \[0, 1\]: it began at step 2 of 3"),
    "NaN": ([1, float("nan"), 0], r"leaves \[0, 1\]: it began at step 1 of 2"),
}


@pytest.mark.parametrize("frames", [None, 2], ids=["sample", "history"])
@pytest.mark.parametrize(("times", "message"), WRONG_PLANS.values(), ids=WRONG_PLANS)
def test_plans_that_show_themselves_at_each_step_are_checked(times, message, frames):
    with pytest.raises(SamplingError, match=message):
        draw(WHOLE, Task(Told(jnp.asarray(times, jnp.float32))), frames)


def test_plans_made_under_vmap_are_checked():
    """No value is at hand there, so nothing was looked at when they were built."""
    ends = jnp.array([0.0, 0.0, 0.3])
    plans = jax.vmap(lambda end: FixedPlan(jnp.broadcast_to(jnp.stack([1.0, end]), (4, 4, 2)).transpose(2, 0, 1)))(ends)
    inputs = (jnp.zeros((3, 4, 4, 1)), jnp.zeros(3, jnp.int32), RULE)
    with pytest.raises(SamplingError, match="does not end at 0: it began at step 1 of 1, image 2"):
        sample(jr.key(0), WHOLE, Task(plans), *inputs, plan_axes=0)


@pytest.mark.parametrize("loop", ["sample", "repaint"])
@pytest.mark.parametrize("scale", [255.0, 1e6, -255.0])
def test_known_pixels_of_another_scale_are_refused(scale, loop):
    known = jnp.zeros((4, 4), bool).at[2].set(True)
    image, label = jnp.zeros((2, 4, 4, 1)).at[1, 2, 3, 0].set(scale), jnp.zeros(2, jnp.int32)
    run = {
        "sample": lambda: sample(jr.key(0), WHOLE, Task(synchronous(STEPS, 4, 4), known), image, label, RULE),
        "repaint": lambda: repaint(jr.key(0), WHOLE, repaint_times(STEPS, 2, 1), image, known, label, RULE),
    }[loop]
    with pytest.raises(ValueError, match=r"in \[-1, 1\], .* = \(1, 2, 3, 0\); bring 0..255 to that range"):
        run()


def test_pixels_that_a_strength_starts_from_are_looked_at_and_others_are_not():
    start = jnp.ones((4, 4)).at[0].set(0.5)
    task, label = Task(FixedPlan(jnp.stack([start, jnp.zeros((4, 4))]))), jnp.zeros(1, jnp.int32)
    image = jnp.zeros((1, 4, 4, 1))
    sample(jr.key(0), WHOLE, task, image.at[0, 3, 0, 0].set(255.0), label, RULE)
    with pytest.raises(ValueError, match=r"\(0, 0, 3, 0\)"):
        sample(jr.key(0), WHOLE, task, image.at[0, 0, 3, 0].set(255.0), label, RULE)
