"""Plans on a path: a path through the time hypercube rises from all-0 to all-1; walked backwards it generates.

A grid may be uneven in two ways. `on_grid` walks the same path at chosen values of its parameter. `shifted` warps the
times themselves, so that a token of an asynchronous plan spends its steps as one of the synchronous plan does:

    t -> t / (t + (1 - t) / shift)

which lowers the log-SNR of every rectified-flow time by `2 log(shift)`: above 1 there are more steps at high noise.
Source of the shift: Esser et al. (arXiv 2403.03206), §5.3.2.

Invariant: plans end at all-0; all but those on a grid of the caller's start at all-1.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from asyncpatch.paths import AbstractPath, Staged, StagedPath, SynchronousPath, raster
from asyncpatch.plans.fixed import FixedPlan


def from_path(path: AbstractPath, steps: int) -> FixedPlan:
    """Walk `path` from noise to image in `steps` even steps. Raises `ValueError` for fewer than one step.

    A law of paths gives a plan per image under `jax.vmap`: `from_path(law.sample(key, height, width), steps)`.
    """
    if steps < 1:
        raise ValueError(f"a plan needs at least one step, got steps={steps}; give a positive number")
    return on_grid(path, jnp.linspace(1.0, 0.0, steps + 1))


def on_grid(path: AbstractPath, grid: Float[Array, "..."]) -> FixedPlan:
    """Walk `path` at these values of its parameter; a grid that starts below 1 starts from an image that is given.

    Raises `ValueError` unless the grid is a row of at least two numbers of [0, 1] that never rise and end at 0.
    """
    _check_grid(grid)
    # A path never falls, but its float32 values may, by a rounding error that a plan must not turn into noise.
    return FixedPlan(jax.lax.cummin(jax.vmap(path)(grid), axis=0))


def shifted(plan: FixedPlan, shift: ArrayLike) -> FixedPlan:
    """The same plan with all times moved towards noise (`shift > 1`) or image (`shift < 1`); 0 and 1 stay.

    Raises `ValueError` for a shift that is not finite and above 0.
    """
    if not isinstance(shift, Tracer) and not 0 < float(np.asarray(shift)) < float("inf"):
        raise ValueError(f"shift must be finite and above 0, got {shift}; 1 leaves the times as they are")
    times = plan.times / (plan.times + (1 - plan.times) / shift)
    return FixedPlan(jax.lax.cummin(times, axis=times.ndim - 3))


def synchronous(steps: int, height: int, width: int) -> FixedPlan:
    """All tokens together, evenly from 1 to 0: the ordinary diffusion sampler."""
    return from_path(SynchronousPath(height, width), steps)


def staged(groups: ArrayLike, steps: int, overlap: ArrayLike = 0.0) -> FixedPlan:
    """One group of tokens after another, group 0 first; `asyncpatch.paths` has raster, spiral and random orders.

    Neighbouring groups share the fraction `overlap` of their steps. Raises as `asyncpatch.paths.Staged` does.
    """
    law = Staged(groups, overlap)
    return from_path(StagedPath(law.groups, law.overlap), steps)


def autoregressive(height: int, width: int, patch: int, steps_per_patch: int) -> FixedPlan:
    """Patches in raster order, strictly one after another, each from noise to image in `steps_per_patch` steps.

    Raises `ValueError` for a patch larger than the image, and for fewer than one step. Source: paper §5.
    """
    if steps_per_patch < 1:
        raise ValueError(f"a patch needs at least one step, got steps_per_patch={steps_per_patch}")
    order = np.asarray(raster(height, width, patch))
    # Counted in whole steps, so that no patch begins a rounding error before the one ahead of it ends.
    left = steps_per_patch * (order + 1) - np.arange((order.max() + 1) * steps_per_patch + 1)[:, None, None]
    return FixedPlan(jnp.asarray(np.clip(left / steps_per_patch, 0, 1), jnp.float32))


def _check_grid(grid: Float[Array, "..."]) -> None:
    if grid.ndim != 1 or len(grid) < 2:
        raise ValueError(
            f"a grid is a row of at least two numbers, the steps' ends, got shape {grid.shape}; give steps + 1 of them"
        )
    if isinstance(grid, Tracer):
        return
    values = np.asarray(grid)
    inside, falls = (values >= 0) & (values <= 1), np.append(True, values[1:] <= values[:-1])
    if not inside.all():
        at = int(np.argmin(inside))
        raise ValueError(f"the grid leaves [0, 1] at point {at}, with {values[at]:g}; give values from 1 down to 0")
    if not falls.all():
        at = int(np.argmin(falls))
        raise ValueError(f"the grid rises at point {at}, from {values[at - 1]:g} to {values[at]:g}; sort it downwards")
    if values[-1] != 0:
        raise ValueError(f"the grid ends at {values[-1]:g} and not at 0; finish the image: append a 0")
