"""RePaint: inpainting with a network that only knows one time per image (arXiv 2201.09865). The baseline.

The unknown pixels take a step from `t` to `s`, the known ones are noised to `s` afresh, and the two are put together.
They do not know of each other, so every now and then the image is noised again by a whole jump and the stretch is
repeated, until known and unknown pixels agree better.

Levels fall `T, T-1, .., 0`, at times `level / T`. At level 1 and every jump length above it, while a jump up stays
below `T`, the image is noised up by one jump and denoised again, `resamplings - 1` times. This rises, so it is no plan,
and has its own loop. A jump is one Gaussian step, which needs no network: only the falling steps count as calls.

Invariant: known pixels come out equal to the bit. The exact conditional law is reached by no number of resamplings.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from asyncpatch.plans import Task, synchronous
from asyncpatch.process import AbstractDenoiser, Prediction, corrupt, noise_further
from asyncpatch.sampling.base import AbstractStepRule
from asyncpatch.sampling.check import check_inputs
from asyncpatch.sampling.faults import Fault, fault_at_start, not_finite, raise_fault
from asyncpatch.sampling.spread import run_spread
from asyncpatch.shapes import Image, Known, Label, TimeField


class RePaintTimes(eqx.Module):
    """For every network call: the time before it, the one after it, and the one that a jump then leads up to."""

    before: Float[Array, " calls"]
    after: Float[Array, " calls"]
    risen: Float[Array, " calls"]


def repaint_times(steps: int, jump_length: int = 10, resamplings: int = 10) -> RePaintTimes:
    """The times of RePaint with `steps` levels. Its paper has 250 levels, jumps of 10, 10 resamplings.

    Raises `ValueError` if `jump_length` is not in `1..steps` or `resamplings` is less than 1 (1 never jumps).
    """
    if not 1 <= jump_length <= steps or resamplings < 1:
        raise ValueError(
            f"RePaint needs 1 <= jump_length <= steps and at least one resampling, got {jump_length} of {steps} steps "
            f"and {resamplings} resamplings; the paper has 10, 250 and 10"
        )
    left = dict.fromkeys(range(1, steps - jump_length + 1, jump_length), resamplings - 1)
    moves, level = [], steps
    while level > 0:
        fallen = level - 1
        jumps = left.get(fallen, 0) > 0
        left[fallen] = left.get(fallen, 0) - 1
        risen = fallen + jump_length if jumps else fallen
        moves.append((level, fallen, risen))
        level = risen
    before, after, risen = (jnp.asarray(np.asarray(part) / steps, jnp.float32) for part in zip(*moves, strict=True))
    return RePaintTimes(before, after, risen)


def repaint(
    key: PRNGKeyArray,
    denoiser: AbstractDenoiser,
    times: RePaintTimes,
    image: Float[Array, "batch height width channel"],
    known: Bool[Array, "*known_batch known_height known_width"],
    label: Int[Array, " batch"],
    rule: AbstractStepRule,
) -> Float[Array, "batch height width channel"]:
    """Fill the unknown pixels of a batch of images, which share one known region or have one each.

    Raises `ValueError` or `TypeError` for inputs that do not fit, and `SamplingError` for images that are not finite.
    """
    check_inputs(denoiser, Task(synchronous(1, *image.shape[1:3]), known), image, label, None)
    each = jnp.broadcast_to(known, image.shape[:3]), image, label
    images, faults = run_spread(_batch, (key, denoiser, times, rule), each)
    raise_fault(faults, len(times.before))
    return images


@eqx.filter_jit
def _batch(shared: tuple, each: tuple) -> tuple[Float[Array, "batch height width channel"], Fault]:
    (key, denoiser, times, rule), (known, image, label) = shared, each
    fill = eqx.filter_vmap(_fill, in_axes=(0, None, None, 0, 0, 0, None))
    return fill(jr.split(key, len(image)), denoiser, times, image, known, label, rule)


def _fill(
    key: PRNGKeyArray,
    denoiser: AbstractDenoiser,
    times: RePaintTimes,
    image: Image,
    known: Known,
    label: Label,
    rule: AbstractStepRule,
) -> tuple[Image, Fault]:
    schedule = denoiser.schedule
    start_key, steps_key = jr.split(key)

    def denoise(z: Image, t: TimeField) -> Prediction:
        return denoiser(z, t, label)

    def step(carry, at):
        z, rule_state, key, fault = carry
        key, rule_key, known_key, jump_key = jr.split(key, 4)
        t, s, risen = (jnp.full(known.shape, time) for time in at[1:])
        moved, rule_state = rule(schedule, z, denoise(z, t), t, s, rule_state, rule_key, denoise)
        pasted = corrupt(schedule, image, s, jr.normal(known_key, image.shape, image.dtype))
        z = jnp.where(known[..., None], pasted, moved)
        jumped = noise_further(schedule, z, s, risen, jr.normal(jump_key, image.shape, image.dtype))
        z, fault = jumped, not_finite(fault, at[0], z, s)
        # What a rule remembers is of a falling stretch: after a jump it starts anew.
        rule_state = jax.tree.map(lambda kept, new: jnp.where(at[3] > at[2], new, kept), rule_state, rule.init(z))
        return (z, rule_state, key, fault), None

    t = jnp.full(known.shape, times.before[0])
    z = corrupt(schedule, image, t, jr.normal(start_key, image.shape, image.dtype))
    carry = (z, rule.init(z), steps_key, fault_at_start(t))
    calls = jnp.arange(1, len(times.before) + 1, dtype=jnp.int32)
    (z, *_, fault), _ = jax.lax.scan(step, carry, (calls, times.before, times.after, times.risen))
    return jnp.where(known[..., None], image, z), fault
