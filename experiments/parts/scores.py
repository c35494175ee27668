"""Generation and inpainting of a checkpoint, scored: images in batches from the sampler, figures from the judges."""

import dataclasses
import math
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float

from asyncpatch import pictures
from asyncpatch.data import open_once, to_float, to_uint8
from asyncpatch.masks import mask_hash, mask_set
from asyncpatch.metrics import (
    AbstractFeatureNetwork,
    Classifier,
    Estimate,
    Features,
    FeatureStatistics,
    class_accuracy,
    collect_features,
    collect_statistics,
    frechet_distance,
    frechet_name,
    hash_images,
    kernel_distance,
    load_reference,
    measure_reference,
    merge_across_processes,
    precision_and_recall,
    psnr,
    save_reference,
    ssim,
)
from asyncpatch.metrics.kernel import FEWEST
from asyncpatch.metrics.networks import Lpips
from asyncpatch.paths import raster
from asyncpatch.plans import FixedPlan, Task, shifted, staged, synchronous
from asyncpatch.process import AbstractDenoiser
from asyncpatch.runs import guide, labels_in_turn, step_rule
from asyncpatch.sampling import DDIM, repaint, repaint_times, sample
from experiments.parts.judges import BATCH, Images, Labels, OfPixels, in_batches, read_batches, read_images
from experiments.parts.medium import AbstractMedium, Known
from experiments.parts.rows import Generation, Inpainting, Patches, RePaint, Replacement, Steps, Together, Trailing

KEPT = 5000
"""Images that are kept in memory for all scores but the Frechet distance, which streams."""

USUAL_GENERATED, USUAL_COMPLETED = 1000, 256
"""Images of a task that does not say how many."""

FEWEST_GENERATED, FEWEST_COMPLETED = 4, 2
"""Images that have the three neighbours of precision and recall, and that have a covariance."""

SHOWN = 8
"""Images in a row of a grid."""

ROUNDING_PSNR = 10 * math.log10(12 * 255**2)
"""Of an image and its rounding to 8 bits: 58.9 dB. No higher one is counted, so that a part that comes out exactly as
it was, for which PSNR is infinite, does not make a mean infinite."""


@dataclasses.dataclass(frozen=True)
class Results:
    """What a task gave. `calls` counts network calls per image."""

    values: dict[str, Estimate]
    calls: int
    data_hash: str
    mask_hash: str | None
    sheet: pictures.Pixels


def settle(
    task: Generation | Inpainting, how: Steps, medium: AbstractMedium, reference: Path | None
) -> Generation | Inpainting:
    """The task with its number of images, after all that can be known of it before anything is computed.

    Raises `ValueError` if the data holds out fewer images than are asked for, or too few to say anything.
    """
    held_out = len(open_once(medium.pixels.data.held_out))
    generating = isinstance(task, Generation)
    usual, fewest = (USUAL_GENERATED, FEWEST_GENERATED) if generating else (USUAL_COMPLETED, FEWEST_COMPLETED)
    free = generating and reference is not None  # the reference is the training images, however many are made
    # As many as are kept for the scores are compared, however many are made.
    most = math.inf if free or (generating and held_out >= KEPT) else held_out
    count = min(usual, most) if task.count is None else task.count
    if held_out < fewest:
        raise ValueError(f"the data holds out {held_out} images, too few to judge by: hold out {fewest} or more")
    if not fewest <= count <= most:
        raise ValueError(
            f"asked for {count} images, and the data holds out {held_out} to compare them with; ask for {fewest} to "
            f"{min(most, held_out)}, or leave the count out for as many as there are"
        )
    order = task.order if isinstance(task, Generation) else task.method
    if isinstance(order, RePaint):
        repaint_times(how.steps, order.jump_length, order.resamplings)
        if how.rule != "ddim" or how.shift != 1:
            raise ValueError(
                f"RePaint has a rule and times of its own, got rule {how.rule} and shift {how.shift:g}; leave them out"
            )
    else:
        _plan(order, how, *medium.experiment.data.shape[:2])
    if isinstance(order, Trailing | Replacement | RePaint) and how.input_guidance != 0:
        raise ValueError(
            f"guidance by the input acts by clean pixels, and {type(order).__name__} keeps the known ones noisy; set "
            "input_guidance to 0, or make the hidden part together or in patches"
        )
    if isinstance(task, Inpainting):
        mask_set(task.masks, 1, *medium.pixels.data.shape[:2], task.mask_seed)
    return dataclasses.replace(task, count=int(count))


def _count(task: Generation | Inpainting) -> int:
    if task.count is None:
        raise ValueError("the task has no number of images yet; pass it through settle first")
    return task.count


def generation(
    denoiser: AbstractDenoiser,
    medium: AbstractMedium,
    task: Generation,
    how: Steps,
    judge: AbstractFeatureNetwork,
    reference: Path | None,
) -> Results:
    """Generate, and compare with real images. Memory does not grow with the count beyond `KEPT` images."""
    kept: list[Images] = []

    def watched() -> Iterator[Images]:
        for images in generated_batches(denoiser, medium, task, how):
            if len(kept) * BATCH < KEPT:
                kept.append(images)
            # Every process judges its share of the images that all of them made.
            if len(share := images[jax.process_index() :: jax.process_count()]):
                yield share

    statistics = merge_across_processes(collect_statistics(judge, watched()))
    made = np.concatenate(kept)
    pixels = medium.pixels
    held_out = len(open_once(pixels.data.held_out))
    real, _ = read_images(pixels, pixels.data.held_out, min(_count(task), KEPT, held_out))
    theirs = collect_features(judge, in_batches(real))
    if reference is None:
        real_statistics, data_hash = FeatureStatistics.of(theirs), hash_images([real])
    else:
        real_statistics, data_hash = training_statistics(pixels, judge, reference)
    ours = collect_features(judge, in_batches(made))
    overlap = precision_and_recall(ours, theirs)
    labels = np.asarray(labels_in_turn(len(made), medium.experiment.network.num_classes))
    values = {
        frechet_name(judge): Estimate(frechet_distance(statistics, real_statistics)),
        **_kernel_distances(ours, theirs, labels),
        "precision": Estimate(overlap.precision),
        "recall": Estimate(overlap.recall),
    }
    if isinstance(judge, Classifier):
        values["class accuracy"] = class_accuracy(judge, in_batches(made), labels)
    return Results(values, how.calls, data_hash, None, pictures.grid(made[: 4 * SHOWN], SHOWN))


def _kernel_distances(ours: Features, theirs: Features, classes: Labels) -> dict[str, Estimate]:
    """The kernel distance by its name, if there are images enough; ours are drawn class by class, theirs are not."""
    _, counts = np.unique(classes, return_counts=True)
    least = min(int(np.min(counts)), len(theirs))
    if least < FEWEST:
        print(f"no kernel distance: it needs {FEWEST} generated images of every class, got {least}", flush=True)
        return {}
    return {f"KD-{ours.network.name}": kernel_distance(ours, theirs, classes)}


def generated_batches(
    denoiser: AbstractDenoiser, medium: AbstractMedium, task: Generation, how: Steps
) -> Iterator[Images]:
    """Generated images, a batch at a time, rounded to what a file holds."""
    height, width, channels = medium.experiment.data.shape
    plan, guided, rule = _plan(task.order, how, height, width), _guided(denoiser, how), step_rule(how.rule, how.eta)
    count = _count(task)
    labels = labels_in_turn(count + BATCH, medium.experiment.network.num_classes)
    key, blank = jr.key(how.seed), jnp.zeros((BATCH, height, width, channels))
    for start in _progress(count):
        some = labels[start : start + BATCH]
        made = sample(jr.fold_in(key, start), guided, Task(plan), blank, some, rule)
        yield _as_stored(medium.view.images(made))[: count - start]


def training_statistics(
    experiment: OfPixels, judge: AbstractFeatureNetwork, file: Path
) -> tuple[FeatureStatistics, str]:
    """Statistics of all training images and their hash, from the file or measured for it."""

    def images() -> Iterator[Images]:
        return (images for images, _ in read_batches(experiment, experiment.data.source))

    if not file.is_file():
        print(f"measuring all training images for {file}", flush=True)
        save_reference(file, measure_reference(judge, images()))
    found = load_reference(file, judge, hash_images(images()))
    return found.statistics, found.data_hash


def inpainting(
    denoiser: AbstractDenoiser,
    medium: AbstractMedium,
    task: Inpainting,
    how: Steps,
    judge: AbstractFeatureNetwork,
    lpips: Lpips | None,
) -> Results:
    """Complete held-out images, and compare with the originals, image by image and as a set."""
    real, labels = read_images(medium.pixels, medium.pixels.data.held_out, _count(task))
    known = mask_set(task.masks, _count(task), *real.shape[1:3], task.mask_seed)
    made, calls = completed_images(denoiser, medium, task, how, real, labels, known)
    forms = medium.forms(made, real, known)
    values = {
        name + form: value
        for form, images in forms.items()
        for name, value in compared(images, real, known, judge, lpips).items()
    }
    shown = next(iter(forms.values()))
    sheet = pictures.each_before_and_after(real[:SHOWN], known[:SHOWN], shown[:SHOWN])
    return Results(values, calls, hash_images([real]), mask_hash(known), sheet)


def compared(
    made: Images, real: Images, known: Known, judge: AbstractFeatureNetwork, lpips: Lpips | None
) -> dict[str, Estimate]:
    """Images against their originals, one by one where these are hidden, and as a set."""
    each = list(zip(made, real, known, strict=True))
    ours, theirs = (FeatureStatistics.of(collect_features(judge, in_batches(part))) for part in (made, real))
    values = {
        frechet_name(judge): Estimate(frechet_distance(ours, theirs)),
        "PSNR": _mean([min(psnr(*one), ROUNDING_PSNR) for one in each]),
        "SSIM": _mean([ssim(*one) for one in each]),
    }
    if lpips is not None:
        # A network of colours sees grey as three equal channels.
        colours = [np.broadcast_to(part, (*part.shape[:3], 3)) for part in (made, real)]
        pairs = zip(*(in_batches(part) for part in colours), strict=True)
        values["LPIPS"] = _mean([float(d) for pair in pairs for d in lpips(*map(jnp.asarray, pair))])
    return values


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
            told = Task(_plan(task.method, how, *given.shape[1:3]), seen, _trail(task.method))
            made = sample(batch_key, guided, told, given, some, rule)
        parts.append(_as_stored(medium.view.images(made)))
    return np.concatenate(parts)[: len(images)], calls


def _plan(order: Together | Trailing | Patches | Replacement, how: Steps, height: int, width: int) -> FixedPlan:
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


def _mean(values: list[float]) -> Estimate:
    return Estimate.mean_of(np.asarray(values))


def _progress(count: int) -> Iterator[int]:
    """The first image of each batch, with a line after each."""
    begun = time.monotonic()
    for start in range(0, count, BATCH):
        yield start
        done = min(start + BATCH, count)
        left = (time.monotonic() - begun) * (count - done) / done
        print(f"{done}/{count} images, {left:.0f} s left", flush=True)
