"""Generation and inpainting of a checkpoint, scored: figures from the judges of what `made` makes."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from asyncpatch import pictures
from asyncpatch.data import open_once
from asyncpatch.masks import mask_hash, mask_set
from asyncpatch.metrics import (
    AbstractFeatureNetwork,
    Classifier,
    Estimate,
    Features,
    FeatureStatistics,
    NetworkIdentity,
    class_accuracy,
    collect_features,
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
from asyncpatch.process import AbstractDenoiser
from asyncpatch.runs import labels_in_turn
from asyncpatch.sampling import repaint_times
from experiments.parts.judges import BATCH, Images, Labels, OfPixels, in_batches, read_batches, read_images
from experiments.parts.made import completed_images, count_of, generated_batches, plan_of
from experiments.parts.medium import AbstractMedium, Known
from experiments.parts.rows import Generation, Inpainting, RePaint, Replacement, Steps, Trailing

KEPT = 5000
"""Images that are kept in memory for all scores but the Frechet distance, which streams."""

MOST_REMEMBERED = 4
"""Sets of features of real images."""

USUAL_GENERATED, USUAL_COMPLETED = 1000, 256
"""Images of a task that does not say how many."""

FEWEST_GENERATED, FEWEST_COMPLETED = 4, 2
"""Images that have the three neighbours of precision and recall, and that have a covariance."""

SMALLEST_OF_LPIPS = 31
"""Pixels a side, below which AlexNet has nothing left to look at."""

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
        plan_of(order, how, *medium.experiment.data.shape[:2])
    if isinstance(order, Trailing | Replacement | RePaint) and how.input_guidance != 0:
        raise ValueError(
            f"guidance by the input acts by clean pixels, and {type(order).__name__} keeps the known ones noisy; set "
            "input_guidance to 0, or make the hidden part together or in patches"
        )
    if isinstance(task, Inpainting):
        mask_set(task.masks, 1, *medium.pixels.data.shape[:2], task.mask_seed)
    return dataclasses.replace(task, count=int(count))


def generation(
    denoiser: AbstractDenoiser,
    medium: AbstractMedium,
    task: Generation,
    how: Steps,
    judges: Sequence[AbstractFeatureNetwork],
    reference: Path | None,
) -> Results:
    """Generate, and compare with real images. Memory does not grow with the count beyond `KEPT` images.

    The first of the judges counts precision and recall; `reference` is of its features.
    """
    kept: list[Images] = []
    features: list[list[Features]] = [[] for _ in judges]
    collected = [FeatureStatistics.empty(NetworkIdentity.of(judge)) for judge in judges]
    for images in generated_batches(denoiser, medium, task, how):
        # Of the images that all processes made each counts its share, and looks at no other that it need not keep.
        share = slice(jax.process_index(), None, jax.process_count())
        if keep := len(kept) * BATCH < KEPT:
            kept.append(images)
        elif not len(images := images[share]):
            continue
        for number, judge in enumerate(judges):
            found = collect_features(judge, [images])
            if keep:
                features[number].append(found)
                found = Features(found.network, found.values[share])
            if len(found):
                collected[number] = collected[number].merge(FeatureStatistics.of(found))
    made, pixels = np.concatenate(kept), medium.pixels
    held_out = len(open_once(pixels.data.held_out))
    real, _ = read_images(pixels, pixels.data.held_out, min(count_of(task), KEPT, held_out))
    labels = np.asarray(labels_in_turn(len(made), medium.experiment.network.num_classes))
    values: dict[str, Estimate] = {}
    data_hash = hash_images([real])
    for number, (judge, one) in enumerate(zip(judges, collected, strict=True)):
        ours = Features(NetworkIdentity.of(judge), np.concatenate([found.values for found in features[number]]))
        theirs = features_of_real(judge, real)
        real_statistics = FeatureStatistics.of(theirs)
        if number == 0 and reference is not None:
            real_statistics, data_hash = training_statistics(pixels, judge, reference)
        values[frechet_name(judge)] = Estimate(frechet_distance(merge_across_processes(one), real_statistics))
        values |= _kernel_distances(ours, theirs, labels)
        if number == 0:
            overlap = precision_and_recall(ours, theirs)
            values |= {"precision": Estimate(overlap.precision), "recall": Estimate(overlap.recall)}
        if isinstance(judge, Classifier):
            values["class accuracy"] = class_accuracy(judge, in_batches(made), labels)
    return Results(values, how.calls, data_hash, None, pictures.grid(made[: 4 * SHOWN], SHOWN))


_of_real: dict[tuple[NetworkIdentity, str], Features] = {}


def features_of_real(judge: AbstractFeatureNetwork, images: Images) -> Features:
    """The features of real images, which are computed once: all rows of a table are compared with the same ones."""
    named = NetworkIdentity.of(judge), hash_images([images])
    if named not in _of_real:
        if len(_of_real) == MOST_REMEMBERED:
            _of_real.clear()
        _of_real[named] = collect_features(judge, in_batches(images))
    return _of_real[named]


def _kernel_distances(ours: Features, theirs: Features, classes: Labels) -> dict[str, Estimate]:
    """The kernel distance by its name, if there are images enough; ours are drawn class by class, theirs are not."""
    _, counts = np.unique(classes, return_counts=True)
    least = min(int(np.min(counts)), len(theirs))
    if least < FEWEST:
        print(f"no kernel distance: it needs {FEWEST} generated images of every class, got {least}", flush=True)
        return {}
    return {f"KD-{ours.network.name}": kernel_distance(ours, theirs, classes)}


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
    judges: Sequence[AbstractFeatureNetwork],
    lpips: Lpips | None,
) -> Results:
    """Complete held-out images, and compare with the originals, image by image and as a set."""
    real, labels = read_images(medium.pixels, medium.pixels.data.held_out, count_of(task))
    known = mask_set(task.masks, count_of(task), *real.shape[1:3], task.mask_seed)
    made, calls = completed_images(denoiser, medium, task, how, real, labels, known)
    forms = medium.forms(made, real, known)
    values = {
        name + form: value
        for form, images in forms.items()
        for name, value in compared(images, real, known, judges, lpips).items()
    }
    shown = next(iter(forms.values()))
    sheet = pictures.each_before_and_after(real[:SHOWN], known[:SHOWN], shown[:SHOWN])
    return Results(values, calls, hash_images([real]), mask_hash(known), sheet)


def compared(
    made: Images, real: Images, known: Known, judges: Sequence[AbstractFeatureNetwork], lpips: Lpips | None
) -> dict[str, Estimate]:
    """Images against their originals, one by one where these are hidden, and as a set."""
    each = list(zip(made, real, known, strict=True))
    values: dict[str, Estimate] = {}
    for judge in judges:
        ours, theirs = collect_features(judge, in_batches(made)), features_of_real(judge, real)
        values[frechet_name(judge)] = Estimate(frechet_distance(*map(FeatureStatistics.of, (ours, theirs))))
    values |= {
        "PSNR": _mean([min(psnr(*one), ROUNDING_PSNR) for one in each]),
        "SSIM": _mean([ssim(*one) for one in each]),
    }
    if lpips is not None:
        # A network of colours sees grey as three equal channels, and small images enlarged: the name then says to what.
        side = min(real.shape[1:3])
        factor = math.ceil(SMALLEST_OF_LPIPS / side)
        colours = [np.broadcast_to(part, (*part.shape[:3], 3)) for part in (made, real)]
        larger = [part.repeat(factor, axis=1).repeat(factor, axis=2) for part in colours]
        pairs = zip(*(in_batches(part) for part in larger), strict=True)
        name = "LPIPS" if factor == 1 else f"LPIPS@{factor * side}"
        values[name] = _mean([float(d) for pair in pairs for d in lpips(*map(jnp.asarray, pair))])
    return values


def _mean(values: list[float]) -> Estimate:
    return Estimate.mean_of(np.asarray(values))
