"""The sampling loop: one scan over the steps of a plan, inside one `vmap` over the batch.

Generation, inpainting, outpainting, autoregression and soft strengths differ in their plan alone. The plan's first
time field `t_0` says how an image starts: tokens at 0 are the given image, tokens at 1 are pure noise, tokens between
are noised to that strength.

**Known tokens that trail.** A network that was seldom shown clean tokens beside pure noise completes better if the
known ones are only *less* noisy than the others (`inpaint` with a `trail`). `sample` is then told which they are: their
given values stand in for their prediction, so that they move along their own exact posterior and end where they began.

Invariant: tokens with `t_0 = 0`, and all known ones, come out equal to the bit. All plans, masks, guidance weights,
step coefficients and labels of one shape share one compiled program, and a plan that the batch shares is not copied
per image.
"""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from asyncpatch.noise_schedule import AbstractNoiseSchedule
from asyncpatch.plans import AbstractPlan
from asyncpatch.process import AbstractDenoiser, Prediction, corrupt
from asyncpatch.sampling.base import AbstractStepRule
from asyncpatch.sampling.check import check_inputs, check_known_of
from asyncpatch.shapes import Image, Known, Label


class History(eqx.Module):
    """What the denoiser was shown and what it made of it, at some steps of a generation."""

    times: Float[Array, "batch frames height width"]
    data: Float[Array, "batch frames height width channel"]


def sample(
    key: PRNGKeyArray,
    denoiser: AbstractDenoiser,
    plan: AbstractPlan,
    image: Float[Array, "batch height width channel"],
    label: Int[Array, " batch"],
    schedule: AbstractNoiseSchedule,
    rule: AbstractStepRule,
    *,
    plan_axes: Literal[0] | None = None,
    known: Bool[Array, "known_batch known_height known_width"] | None = None,
) -> Float[Array, "batch height width channel"]:
    """Generate a batch of images along a plan.

    `image` holds the known pixels, and zeros (or anything finite) where nothing is known; `label` may hold
    `NULL_LABEL`. `plan_axes` is an axis as for `jax.vmap`: None shares one plan, 0 reads a plan per image from the
    leading axis of the plan's arrays. `known` is needed only where known tokens trail; those that a plan holds at 0
    stay without it. Raises `ValueError` or `TypeError` for inputs that do not fit, before compute.
    """
    check_inputs(denoiser, plan, image, label, plan_axes)
    check_known_of(known, image)
    return _images(plan_axes, key, denoiser, plan, image, label, schedule, rule, known)


def sample_with_history(
    key: PRNGKeyArray,
    denoiser: AbstractDenoiser,
    plan: AbstractPlan,
    image: Float[Array, "batch height width channel"],
    label: Int[Array, " batch"],
    schedule: AbstractNoiseSchedule,
    rule: AbstractStepRule,
    *,
    frames: int,
    plan_axes: Literal[0] | None = None,
) -> tuple[Float[Array, "batch height width channel"], History]:
    """As `sample`, with the same images, and the history at `frames` evenly spaced steps, first and last included.

    Needs memory for every step of the plan. Raises `ValueError` if there are fewer steps than frames.
    """
    check_inputs(denoiser, plan, image, label, plan_axes)
    if not 1 <= frames <= plan.steps:
        raise ValueError(f"a plan of {plan.steps} steps has no {frames} frames; ask for 1 to {plan.steps}")
    picks = jnp.asarray(np.linspace(0, plan.steps - 1, frames).round().astype(np.int32))
    return _images_and_frames(picks, plan_axes, key, denoiser, plan, image, label, schedule, rule, None)


@eqx.filter_jit
def _images(plan_axes: Literal[0] | None, *inputs: PyTree) -> Float[Array, "batch height width channel"]:
    return _batch(plan_axes, *inputs)[0]


@eqx.filter_jit
def _images_and_frames(
    picks: Int[Array, " frames"], plan_axes: Literal[0] | None, *inputs: PyTree
) -> tuple[Float[Array, "batch height width channel"], History]:
    images, (times, data) = _batch(plan_axes, *inputs)
    return images, History(times[:, picks], data[:, picks])


def _batch(
    plan_axes: Literal[0] | None,
    key: PRNGKeyArray,
    denoiser: AbstractDenoiser,
    plan: AbstractPlan,
    image: Float[Array, "batch height width channel"],
    *inputs: PyTree,
) -> PyTree:
    keys = jr.split(key, image.shape[0])
    axis = None if plan_axes is None else eqx.if_array(plan_axes)
    generate = eqx.filter_vmap(_generate, in_axes=(0, None, axis, 0, 0, None, None, 0))
    return generate(keys, denoiser, plan, image, *inputs)


def _generate(
    key: PRNGKeyArray,
    denoiser: AbstractDenoiser,
    plan: AbstractPlan,
    image: Image,
    label: Label,
    schedule: AbstractNoiseSchedule,
    rule: AbstractStepRule,
    known: Known | None,
) -> tuple[Image, tuple[Float[Array, "steps height width"], Float[Array, "steps height width channel"]]]:
    """One image; the time field and the data estimate of every step."""
    start_key, steps_key = jr.split(key)
    height, width, _ = image.shape
    plan_state, t = plan.init(height, width)
    noised = corrupt(schedule, image, t, jr.normal(start_key, image.shape, image.dtype))
    z = jnp.where((t == 0)[..., None], image, noised)

    def step(carry, _):
        z, t, plan_state, rule_state, key = carry
        key, rule_key = jr.split(key)
        prediction = _with_known(denoiser(z, t, label), schedule, z, t, image, known)
        plan_state, s = plan.next(plan_state, t, prediction)
        z, rule_state = rule(schedule, z, prediction, t, s, rule_state, rule_key)
        return (z, s, plan_state, rule_state, key), (t, prediction.data)

    carry = (z, t, plan_state, rule.init(z), steps_key)
    (z, *_), history = jax.lax.scan(step, carry, None, length=plan.steps)
    return z if known is None else jnp.where(known[..., None], image, z), history


def _with_known(
    prediction: Prediction,
    schedule: AbstractNoiseSchedule,
    z: Image,
    t: Float[Array, "height width"],
    image: Image,
    known: Known | None,
) -> Prediction:
    """The prediction, with the truth about known tokens."""
    if known is None:
        return prediction
    truth = Prediction.from_data(schedule, z, t, image)
    return jax.tree.map(lambda true, guess: jnp.where(known[..., None], true, guess), truth, prediction)
