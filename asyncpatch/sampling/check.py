"""Checks of what the sampling loop is given, on the host, before anything is compiled or computed."""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from asyncpatch.plans import AbstractPlan, FixedPlan, Task
from asyncpatch.process import AbstractDenoiser, check_labels

LARGEST = 8.0
"""Of a given value. Images lie in [-1, 1], latents and toy data within a few standard deviations of 1: beyond it is a
picture of 0..255 that nobody scaled."""


def check_inputs(
    denoiser: AbstractDenoiser,
    task: Task,
    image: Float[Array, "batch height width channel"],
    label: Int[Array, " batch"],
    plan_axes: Literal[0] | None,
) -> None:
    """Raises `ValueError` for shapes and values, and `TypeError` for number types, that cannot be sampled from."""
    _check_image(image)
    check_labels(label, image.shape[0], denoiser.num_classes)
    if task.known is not None and task.known.shape not in (image.shape[1:3], image.shape[:3]):
        raise ValueError(
            f"images of shape {image.shape} have a known region of {image.shape[1:3]}, or one each {image.shape[:3]}; "
            f"got {task.known.shape}"
        )
    plan = task.plan
    _check_given(image, task)
    _check_plan_axes(plan, image.shape[0], plan_axes)
    axis = None if plan_axes is None else eqx.if_array(plan_axes)
    # A plan of the wrong size says so in `init`; asking for its shape alone computes nothing.
    start = eqx.filter_vmap(lambda plan: plan.init(*image.shape[1:3]), in_axes=(axis,), axis_size=image.shape[0])
    eqx.filter_eval_shape(start, plan)


def _check_image(image: Array) -> None:
    if image.ndim != 4:
        raise ValueError(f"images are (batch, height, width, channel), got shape {image.shape}; add the batch axis")
    if not jnp.issubdtype(image.dtype, jnp.floating):
        raise TypeError(f"images are floats in [-1, 1], got dtype {image.dtype}; scale and convert them")
    if not isinstance(image, Tracer) and not np.isfinite(np.asarray(image)).all():
        where = tuple(int(index) for index in np.argwhere(~np.isfinite(np.asarray(image)))[0])
        raise ValueError(
            f"the image has the value {image[where]} at (batch, row, column, channel) = {where}; "
            "give finite values, and zeros where nothing is known"
        )


def _check_given(image: Array, task: Task) -> None:
    """Refuse pixels that are on another scale, where the sampler reads them."""
    read = np.zeros(image.shape[:3], bool)
    if task.known is not None and not isinstance(task.known, Tracer):
        read |= np.asarray(task.known)
    times = task.plan.times if isinstance(task.plan, FixedPlan) else None
    if times is not None and times.ndim == 3 and times.shape[1:] == image.shape[1:3] and not isinstance(times, Tracer):
        read |= np.asarray(times)[0] < 1  # not times[0] < 1: under `jax.jit` all of JAX is traced
    if isinstance(image, Tracer) or not read.any():
        return
    wrong = read[..., None] & (np.abs(np.asarray(image)) > LARGEST)
    if wrong.any():
        where = tuple(int(index) for index in np.argwhere(wrong)[0])
        raise ValueError(
            f"images are floats in [-1, 1], and the given one has the value {image[where]:.6g} at (batch, row, column, "
            f"channel) = {where}; bring 0..255 to that range with asyncpatch.data.to_float"
        )


def _check_plan_axes(plan: AbstractPlan, batch: int, plan_axes: int | None) -> None:
    if plan_axes not in (None, 0):
        raise ValueError(f"plan_axes is None (one plan for all) or 0 (a plan per image), got {plan_axes}")
    if plan_axes == 0:
        shapes = [leaf.shape for leaf in jax.tree.leaves(eqx.filter(plan, eqx.is_array))]
        if any(shape[:1] != (batch,) for shape in shapes):
            raise ValueError(
                f"plan_axes=0 needs plan arrays with a leading axis of {batch} images, got shapes {shapes}; "
                "build the plan under jax.vmap, or share one plan with plan_axes=None"
            )
