"""What went wrong inside a compiled generation, and where it began.

A plan whose times depend on predictions, or that was built under `jax.vmap`, cannot be checked before it runs, and no
check tells beforehand that a network's output stays finite. So each step of a loop looks, the first fault of each image
is carried along as a few numbers, and the host raises the error.

Invariant: an image without a fault is finite, its times never rose or left [0, 1], and they ended at 0.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

from asyncpatch.shapes import Image, TimeField

NONE, NOT_FINITE, LEAVES, RISES, UNFINISHED = range(5)

SAID = {
    NOT_FINITE: "the sample is not finite any more",
    LEAVES: "the plan leaves [0, 1]",
    RISES: "the plan rises",
    UNFINISHED: "the plan does not end at 0",
}

ADVICE = {
    NOT_FINITE: "look at the network's weights and at the weight of guidance",
    LEAVES: "give times between 0 (clean) and 1 (noise)",
    RISES: "generation only removes noise: give times that never rise",
    UNFINISHED: "finish every token: let `next` return zeros at the last step",
}


class SamplingError(ValueError):
    """A generation that came to nothing: its plan is none, or its numbers are not finite."""


class Fault(eqx.Module):
    """The first fault of an image: what, after how many steps, and at which token; the times before and after it."""

    kind: Int[Array, "*batch"]
    step: Int[Array, "*batch"]
    row: Int[Array, "*batch"]
    column: Int[Array, "*batch"]
    before: Float[Array, "*batch"]
    after: Float[Array, "*batch"]


def fault_at_start(t: TimeField) -> Fault:
    """Of the first time field."""
    nothing, never = jnp.zeros((), jnp.int32), jnp.zeros(())
    fault = Fault(nothing, nothing, nothing, nothing, never, never)
    return _first(fault, LEAVES, ~((t >= 0) & (t <= 1)), nothing, t, t)


def fault_of_step(fault: Fault, step: Int[Array, ""], z: Image, t: TimeField, s: TimeField) -> Fault:
    """After the step from `t` to `s`, which led to `z`. A NaN among the times has left [0, 1]."""
    fault = _first(fault, LEAVES, ~((s >= 0) & (s <= 1)), step, t, s)
    fault = _first(fault, RISES, s > t, step, t, s)
    return not_finite(fault, step, z, s)


def not_finite(fault: Fault, step: Int[Array, ""], z: Image, s: TimeField) -> Fault:
    """After a step of a loop that follows no plan."""
    return _first(fault, NOT_FINITE, ~jnp.isfinite(z).all(-1), step, s, s)


def fault_at_end(fault: Fault, steps: int, t: TimeField) -> Fault:
    """Of the last time field."""
    return _first(fault, UNFINISHED, t != 0, jnp.asarray(steps, jnp.int32), t, t)


def raise_fault(faults: Fault, steps: int) -> None:
    """Raise `SamplingError` for the earliest fault of a batch. Under `jax.jit` and `jax.vmap` nothing is looked at."""
    if isinstance(faults.kind, Tracer):
        return
    found = jax.device_get(faults)
    if not found.kind.any():
        return
    wrong = np.flatnonzero(found.kind)
    image = int(wrong[np.argmin(found.step[wrong])])
    kind, step, row, column, before, after = (part[image].item() for part in jax.tree.leaves(found))
    times = f", from {before:.6g} to {after:.6g}" if before != after else f", at time {after:.6g}"
    others = f" ({len(wrong)} of {len(found.kind)} images have a fault)" if len(wrong) > 1 else ""
    raise SamplingError(
        f"{SAID[kind]}: it began at step {step} of {steps}, image {image}, pixel ({row}, {column}){times}{others}; "
        f"{ADVICE[kind]}"
    )


def _first(
    fault: Fault, kind: int, wrong: Bool[Array, "height width"], step: Int[Array, ""], t: TimeField, s: TimeField
) -> Fault:
    """The fault that there was, or else this one, if there is any token with it."""
    at = jnp.argmax(wrong).astype(jnp.int32)
    width = wrong.shape[1]
    found = Fault(jnp.asarray(kind, jnp.int32), step, at // width, at % width, t.ravel()[at], s.ravel()[at])
    new = wrong.any() & (fault.kind == NONE)
    return jax.tree.map(lambda ours, old: jnp.where(new, ours, old), found, fault)
