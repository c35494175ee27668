"""Images in batches from the sampler: generated, or completed from what is known of real ones."""

import time
from collections.abc import Iterator

import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float

from asyncpatch.data import to_float, to_uint8
from asyncpatch.paths import raster
from asyncpatch.plans import FixedPlan, Task, shifted, staged, synchronous
from asyncpatch.process import AbstractDenoiser
from asyncpatch.runs import guide, labels_in_turn, step_rule
from asyncpatch.sampling import DDIM, repaint, repaint_times, sample
from experiments.parts.judges import BATCH, Images, Labels
from experiments.parts.medium import AbstractMedium, Known
from experiments.parts.rows import Generation, Inpainting, Patches, RePaint, Replacement, Steps, Together, Trailing


def generated_batches(
    denoiser: AbstractDenoiser, medium: AbstractMedium, task: Generation, how: Steps
) -> Iterator[Images]:
    """Generated images, a batch at a time, rounded to what a file holds."""
    height, width, channels = medium.experiment.data.shape
    plan, guided, rule = plan_of(task.order, how, height, width), _guided(denoiser, how), step_rule(how.rule, how.eta)
    count = count_of(task)
    labels = labels_in_turn(count + BATCH, medium.experiment.network.num_classes)
    key, blank = jr.key(how.seed), jnp.zeros((BATCH, height, width, channels))
    for start in _progress(count):
        some = labels[start : start + BATCH]
        made = sample(jr.fold_in(key, start), guided, Task(plan), blank, some, rule)
        yield _as_stored(medium.view.images(made))[: count - start]


def completed_images(
    denoiser: AbstractDenoiser,
    medium: AbstractMedium,
    task: Inpainting,
    how: Steps,
    images: Images,
    labels: Labels,
    known: Known,
) -> tuple[Images, int]:
    """The images with their hidden parts made anew, and network calls per image."""
    key, guided, rule = jr.key(how.seed), _guided(denoiser, how), step_rule(how.rule, how.eta)
    calls, parts = how.calls, []
    for start in _progress(len(images)):
        index = np.arange(start, start + BATCH) % len(images)  # the last batch is filled up
        (given, seen), some = medium.given(images[index], known[index]), jnp.asarray(labels[index])
        batch_key = jr.fold_in(key, start)
        if isinstance(task.method, RePaint):
            times = repaint_times(how.steps, task.method.jump_length, task.method.resamplings)
            calls = len(times.before) * how.branches
            made = repaint(batch_key, guided, times, given, seen, some, DDIM(eta=1.0))
        else:
            told = Task(plan_of(task.method, how, *given.shape[1:3]), seen, _trail(task.method))
            made = sample(batch_key, guided, told, given, some, rule)
        parts.append(_as_stored(medium.view.images(made)))
    return np.concatenate(parts)[: len(images)], calls


def count_of(task: Generation | Inpainting) -> int:
    """The number of images of a task. Raises `ValueError` for one that does not say it yet."""
    if task.count is None:
        raise ValueError("the task has no number of images yet; pass it through settle first")
    return task.count


def plan_of(order: Together | Trailing | Patches | Replacement, how: Steps, height: int, width: int) -> FixedPlan:
    """The plan of an order, or of a method of inpainting."""
    if isinstance(order, Patches):
        return shifted(staged(raster(height, width, order.patch), how.steps, order.overlap), how.shift)
    return shifted(synchronous(how.steps, height, width), how.shift)


def _trail(method: Together | Trailing | Patches | Replacement) -> float:
    """Times of known pixels as a share of those that are made."""
    if isinstance(method, Trailing):
        return method.share
    return 1.0 if isinstance(method, Replacement) else 0.0


def _guided(denoiser: AbstractDenoiser, how: Steps) -> AbstractDenoiser:
    return guide(denoiser, how.guidance, how.input_guidance, how.noisier, how.seed)


def _as_stored(images: Float[Array, "batch height width channel"]) -> Images:
    return to_float(to_uint8(np.asarray(images)))


def _progress(count: int) -> Iterator[int]:
    """The first image of each batch, with a line after each."""
    begun = time.monotonic()
    for start in range(0, count, BATCH):
        yield start
        done = min(start + BATCH, count)
        left = (time.monotonic() - begun) * (count - done) / done
        print(f"{done}/{count} images, {left:.0f} s left", flush=True)
