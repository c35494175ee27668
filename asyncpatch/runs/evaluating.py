"""The Frechet distance of a few generated images to held-out ones, measured while a run trains.

It is biased by the number of images, and by the network whose features it rests on, so its name tells both:
`FD-classifier/500-images-1a2b3c4d` ends with the hash of the network's weights. It compares checkpoints of one run; for
a table, evaluate the checkpoint afterwards on as many images as the table has.

Invariant: the figure does not depend on the number of processes, but for the rounding of sums.
"""

import dataclasses
import math
from collections.abc import Iterator

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Float, Int32

from asyncpatch.data import AbstractSource, latents_of, open_once, to_float, to_network, to_uint8
from asyncpatch.metrics import (
    AbstractFeatureNetwork,
    FeatureStatistics,
    NetworkIdentity,
    collect_statistics,
    frechet_distance,
    frechet_name,
    merge_across_processes,
)
from asyncpatch.process import AbstractDenoiser
from asyncpatch.runs.autoencoder import AutoencoderExperiment
from asyncpatch.runs.experiment import Experiment
from asyncpatch.runs.sampling import SamplingConfig, as_numpy, four_tasks, labels_in_turn, run_task
from asyncpatch.train import Evaluation

BATCH = 64
"""Images sampled, and judged, at a time."""

Images = Float[np.ndarray, "images height width channel"]
Labels = Int32[np.ndarray, " images"]
OfPixels = Experiment | AutoencoderExperiment
"""What has the data that images come from: a run's own config, or that of the autoencoder of its latents."""


def evaluation(
    experiment: Experiment, network: AbstractFeatureNetwork, sampling: SamplingConfig, every: int, images: int
) -> Evaluation:
    """What `train` is given to measure it every so many steps. The held-out images are looked at here and now.

    Raises `ValueError` if fewer than `images`, or fewer than two, are held out, and for a run on latents.
    """
    if latents_of(experiment.data.held_out) is not None:
        raise ValueError(
            "the distance is one of images, and the run is on latents; train without evaluation, and evaluate its "
            "checkpoints with their autoencoder"
        )
    if images < 2:
        raise ValueError(f"evaluate_images must be at least 2 to have a covariance, got {images}; give a few hundred")
    real = collect_statistics(
        network, (batch for batch, _ in read_batches(experiment, experiment.data.held_out, images))
    )

    def measure(step: int, denoiser: AbstractDenoiser) -> float:
        made, failure = FeatureStatistics.empty(NetworkIdentity.of(network)), None
        whole = _whole(denoiser)
        try:
            made = collect_statistics(network, _generated(experiment, whole, sampling, images))
        except Exception as error:
            failure = error
        # All processes give up together: one that waited for another's features would wait for ever.
        if jax.process_count() > 1 and multihost_utils.process_allgather(np.array(failure is not None)).any():
            failure = failure or RuntimeError("the evaluation failed in another process")
        if failure is not None:
            raise failure
        distance = frechet_distance(merge_across_processes(made), real)
        if not math.isfinite(distance):
            raise ValueError(f"the Frechet distance at step {step} is {distance}")
        return distance

    return Evaluation(f"{frechet_name(network)}/{images}-images-{network.hash[:8]}", every, measure)


def _whole(denoiser: AbstractDenoiser) -> AbstractDenoiser:
    """A denoiser that this process can use without the others."""
    if jax.process_count() == 1:
        return denoiser
    arrays, rest = eqx.partition(denoiser, eqx.is_array)
    return eqx.combine(multihost_utils.process_allgather(arrays, tiled=True), rest)


def _generated(
    experiment: Experiment, denoiser: AbstractDenoiser, sampling: SamplingConfig, images: int
) -> Iterator[Images]:
    """This process's share of the images, rounded to what a file holds. Batches are dealt to processes in turn."""
    height, width, channels = experiment.data.shape
    task = four_tasks(sampling, height, width)["generation"]
    labels = labels_in_turn(images + BATCH, experiment.network.num_classes)
    blank = jnp.zeros((BATCH, height, width, channels))
    for number in range(jax.process_index(), math.ceil(images / BATCH), jax.process_count()):
        start = number * BATCH
        drawn = dataclasses.replace(sampling, seed=(sampling.seed + number) % 2**32)
        made, _ = run_task(denoiser, task, drawn, blank, labels[start : start + BATCH])
        yield to_float(to_uint8(as_numpy(made)))[: images - start]


def read_batches(
    experiment: OfPixels, source: AbstractSource, count: int | None = None
) -> Iterator[tuple[Images, Labels]]:
    """The first `count` images of a source (all of them if not given), in its order, as the network sees them.

    Raises `ValueError` if there are fewer.
    """
    records = open_once(source)
    wanted = len(records) if count is None else count
    if not 1 <= wanted <= len(records):
        raise ValueError(f"asked for {wanted} images, the data holds {len(records)}; ask for 1 to {len(records)}")
    rng = np.random.default_rng(0)
    for start in range(0, wanted, BATCH):
        chosen = [records[index] for index in range(start, min(start + BATCH, wanted))]
        pixels = []
        for record in chosen:
            image = record["image"]
            for transform in experiment.data.transforms:
                image = transform(image, rng)
            pixels.append(image)
        yield to_network(np.stack(pixels)), np.asarray([record["label"] for record in chosen], np.int32)
