"""Plans on a path: a path through the time hypercube rises from all-0 to all-1; walked backwards it generates.

Invariant: the grid is even in the path's own parameter, starts at all-1 and ends at all-0.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from asyncpatch.paths import AbstractPath, Staged, StagedPath, SynchronousPath, raster
from asyncpatch.plans.fixed import FixedPlan


def from_path(path: AbstractPath, steps: int) -> FixedPlan:
    """Walk `path` from noise to image in `steps` even steps. Raises `ValueError` for fewer than one step.

    A law of paths gives a plan per image under `jax.vmap`: `from_path(law.sample(key, height, width), steps)`.
    """
    if steps < 1:
        raise ValueError(f"a plan needs at least one step, got steps={steps}; give a positive number")
    fields = jax.vmap(path)(jnp.linspace(1.0, 0.0, steps + 1))
    # A path never falls, but its float32 values may, by a rounding error that a plan must not turn into noise.
    return FixedPlan(jax.lax.cummin(fields, axis=0))


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
