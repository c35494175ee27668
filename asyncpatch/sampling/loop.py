"""The sampling loop: one scan over the steps of a plan, inside one `vmap` over the batch.

Generation, inpainting, outpainting, autoregression and soft strengths differ in their `Task` alone. Its first time
field `t_0` says how an image starts: tokens at 0 are the given image, tokens at 1 are pure noise, tokens between are
noised to that strength. The given values of known tokens stand in for their prediction, so that they move along their
own exact posterior and end where they began.

Invariant: tokens with `t_0 = 0`, and all known ones, come out equal to the bit. All tasks, guidance weights, step
coefficients and labels of one shape share one compiled program, and a plan that the batch shares is not copied per
image. Where weights lie on several devices, these share the batch (`asyncpatch.sampling.spread`).
"""

from functools import partial
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from asyncpatch.noise_schedule import AbstractNoiseSchedule
from asyncpatch.plans import AbstractPlan, Task
from asyncpatch.process import AbstractDenoiser, Prediction, corrupt
from asyncpatch.sampling.base import AbstractStepRule
from asyncpatch.sampling.check import check_inputs
from asyncpatch.sampling.faults import Fault, fault_at_end, fault_at_start, fault_of_step, raise_fault
from asyncpatch.sampling.spread import run_spread
from asyncpatch.shapes import Image, Known, Label, TimeField


class History(eqx.Module):
    """What the denoiser was shown and what it made of it, at some steps of a generation."""

    times: Float[Array, "batch frames height width"]
    noisy: Float[Array, "batch frames height width channel"]
    """The noisy image at these times."""
    data: Float[Array, "batch frames height width channel"]
    """The estimate of the image that the denoiser made of it."""


def sample(
    key: PRNGKeyArray,
    denoiser: AbstractDenoiser,
    task: Task,
    image: Float[Array, "batch height width channel"],
    label: Int[Array, " batch"],
    rule: AbstractStepRule,
    *,
    plan_axes: Literal[0] | None = None,
) -> Float[Array, "batch height width channel"]:
    """Generate a batch of images.

    `image` holds the known pixels, and zeros (or anything finite) where nothing is known; `label` may hold
    `NULL_LABEL`. `plan_axes` is an axis as for `jax.vmap`: None shares one plan, 0 reads a plan per image from the
    leading axis of the plan's arrays. Raises `ValueError` or `TypeError` for inputs that do not fit, before compute,
    and `SamplingError` if the sample stops being finite or a plan turns out to be none (`asyncpatch.sampling.faults`).
    """
    check_inputs(denoiser, task, image, label, plan_axes)
    images, faults = run_spread(_images, *_inputs(key, denoiser, task, image, label, rule, plan_axes))
    raise_fault(faults, task.plan.steps)
    return images


def sample_with_history(
    key: PRNGKeyArray,
    denoiser: AbstractDenoiser,
    task: Task,
    image: Float[Array, "batch height width channel"],
    label: Int[Array, " batch"],
    rule: AbstractStepRule,
    *,
    frames: int,
    plan_axes: Literal[0] | None = None,
) -> tuple[Float[Array, "batch height width channel"], History]:
    """As `sample`, with the same images, and the history at `frames` evenly spaced steps, first and last included.

    Needs memory for every step of the plan. Raises `ValueError` if there are fewer steps than frames.
    """
    check_inputs(denoiser, task, image, label, plan_axes)
    steps = task.plan.steps
    if not 1 <= frames <= steps:
        raise ValueError(f"a plan of {steps} steps has no {frames} frames; ask for 1 to {steps}")
    picks = jnp.asarray(np.linspace(0, steps - 1, frames).round().astype(np.int32))
    inputs = _inputs(key, denoiser, task, image, label, rule, plan_axes)
    images, faults, history = run_spread(partial(_images_and_frames, picks), *inputs)
    raise_fault(faults, steps)
    return images, history


def _inputs(
    key: PRNGKeyArray,
    denoiser: AbstractDenoiser,
    task: Task,
    image: Float[Array, "batch height width channel"],
    label: Int[Array, " batch"],
    rule: AbstractStepRule,
    plan_axes: Literal[0] | None,
) -> tuple[tuple, tuple]:
    """What all images share, and what each has for itself: the plan is in one of the two.

    Every image has a known region, so that one program serves tasks that know something and those that do not.
    """
    known = jnp.broadcast_to(jnp.zeros((), bool) if task.known is None else task.known, image.shape[:3])
    common, own = (task.plan, None) if plan_axes is None else (None, task.plan)
    return (key, denoiser, common, task.trail, rule), (known, image, label, own)


@eqx.filter_jit
def _images(shared: tuple, each: tuple) -> tuple[Float[Array, "batch height width channel"], Fault]:
    images, faults, _ = _batch(shared, each)
    return images, faults


@eqx.filter_jit
def _images_and_frames(
    picks: Int[Array, " frames"], shared: tuple, each: tuple
) -> tuple[Float[Array, "batch height width channel"], Fault, History]:
    images, faults, history = _batch(shared, each)
    return images, faults, History(*(every_step[:, picks] for every_step in history))


def _batch(shared: tuple, each: tuple) -> PyTree:
    (key, denoiser, common, trail, rule), (known, image, label, own) = shared, each

    def generate(key: PRNGKeyArray, known: Known, image: Image, label: Label, own: AbstractPlan | None) -> PyTree:
        return _generate(key, denoiser, common if own is None else own, trail, known, image, label, rule)

    return eqx.filter_vmap(generate)(jr.split(key, len(known)), known, image, label, own)


def _generate(
    key: PRNGKeyArray,
    denoiser: AbstractDenoiser,
    plan: AbstractPlan,
    trail: Float[Array, ""],
    known: Known,
    image: Image,
    label: Label,
    rule: AbstractStepRule,
) -> tuple[Image, Fault, tuple[Array, Array, Array]]:
    """One image; what went wrong first; time field, noisy image and data estimate of every step."""
    schedule = denoiser.schedule
    start_key, steps_key = jr.split(key)

    def field(planned: TimeField) -> TimeField:
        return jnp.where(known, trail * planned, planned)

    def denoise(z: Image, t: TimeField) -> Prediction:
        return _with_known(denoiser(z, t, label), schedule, z, t, image, known)

    plan_state, planned = plan.init(*image.shape[:2])
    t = field(planned)
    noised = corrupt(schedule, image, t, jr.normal(start_key, image.shape, image.dtype))
    z = jnp.where((t == 0)[..., None], image, noised)

    def step(carry, number):
        z, planned, plan_state, rule_state, key, fault = carry
        key, rule_key = jr.split(key)
        t = field(planned)
        prediction = denoise(z, t)
        plan_state, following = plan.next(plan_state, planned, prediction)
        seen = (t, z, prediction.data)
        z, rule_state = rule(schedule, z, prediction, t, field(following), rule_state, rule_key, denoise)
        fault = fault_of_step(fault, number, z, planned, following)
        return (z, following, plan_state, rule_state, key, fault), seen

    numbers = jnp.arange(1, plan.steps + 1, dtype=jnp.int32)
    carry = (z, planned, plan_state, rule.init(z), steps_key, fault_at_start(planned))
    (z, planned, *_, fault), history = jax.lax.scan(step, carry, numbers)
    return jnp.where(known[..., None], image, z), fault_at_end(fault, plan.steps, planned), history


def _with_known(
    prediction: Prediction, schedule: AbstractNoiseSchedule, z: Image, t: TimeField, image: Image, known: Known
) -> Prediction:
    """The prediction, with the truth about known tokens."""
    truth = Prediction.from_data(schedule, z, t, image)
    data = jnp.where(known[..., None], truth.data, prediction.data)
    noise = jnp.where(known[..., None], truth.noise, prediction.noise)
    expected = None if prediction.log_error is None else jnp.where(known, -jnp.inf, prediction.log_error)
    return Prediction(data, noise, expected)
