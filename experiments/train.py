"""Train a denoiser whose every pixel has its own noise time.

    python -m experiments.train runs/digits                                     # 8x8 digits, minutes on a laptop
    python -m experiments.train --help

Run the same command again after an interruption: it goes on where it stopped, to the same numbers.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax.experimental import multihost_utils

from asyncpatch.data import (
    AbstractSource,
    AbstractTransform,
    ArrayRecords,
    Batches,
    Digits,
    IdxFiles,
    ImageFolder,
    PadTo,
    RandomFlip,
    hold_out,
)
from asyncpatch.losses import AbstractWeighting, FisherDivergence, Plain, SiD2
from asyncpatch.masks import Square
from asyncpatch.nn import NetworkDenoiser, preset
from asyncpatch.noise_schedule import AbstractNoiseSchedule, Cosine, LogLinear, RectifiedFlow
from asyncpatch.paths import Environment as EnvironmentLaw
from asyncpatch.paths import Window
from asyncpatch.timesteps import (
    AbstractTimestepSampler,
    AsyncPatch,
    Environment,
    Independent,
    Masked,
    MeanBeta,
    OnPath,
    PatchForcing,
    Patchwise,
    Perlin,
    Synchronous,
)
from asyncpatch.train import OptimizerConfig, RunConfig, TrainConfig, TrainState, Validation, make_mesh
from asyncpatch.train import train as run_training
from experiments import pictures
from experiments.setup import DataConfig, Experiment, open_batches
from experiments.tasks import SamplingConfig, as_numpy, four_tasks, labels_in_turn, run_task

PATCHES = (1, 2, 4, 8)
"""Patch sizes of the training laws on the command line, unless others are given."""

LAWS = {
    "async-patch": AsyncPatch(PATCHES),
    "synchronous": Synchronous(),
    "independent": Independent(),
    "patchwise": Patchwise(PATCHES),
    "perlin": Perlin(),
    "mean-beta": MeanBeta(),
    "patch-forcing": PatchForcing(PATCHES),
    "masked-square": Masked(Square()),
    "window-path": OnPath(Window(PATCHES)),
    "environment": Environment(EnvironmentLaw(PATCHES, spread=(0.0, 3.0))),
}
"""The laws of training times by the name that the command line gives them."""

GRID_COLUMNS = 8
"""Columns of a grid of samples."""


def configure(
    source: AbstractSource,
    preset_name: str,
    timesteps: AbstractTimestepSampler,
    *,
    held_out_one_in: int = 10,
    pad_to: int | None = None,
    flip: bool = False,
    schedule: AbstractNoiseSchedule | None = None,
    weighting: AbstractWeighting | None = None,
    optimizer: OptimizerConfig | None = None,
    batch_size: int = 64,
    ema_decay: float = 0.999,
    label_dropout: float = 0.1,
    accumulation: int = 1,
    compute_dtype: str | None = None,
    seed: int = 0,
) -> Experiment:
    """The config of a run on `source`, whose shape and classes are read off the data.

    Raises `ValueError` for an unknown preset or for images that it cannot take.
    """
    records = source.open()
    height, width, channels = records.shape if pad_to is None else (pad_to, pad_to, records.shape[2])
    num_classes = len(records.class_names)
    network = preset(preset_name, channels, num_classes)
    network.check_image(height, width, channels)
    training, held_out = hold_out(source, held_out_one_in)
    transforms: tuple[AbstractTransform, ...] = () if pad_to is None else (PadTo(pad_to, pad_to),)
    return Experiment(
        data=DataConfig(
            source=training,
            held_out=held_out,
            transforms=transforms,
            augmentations=(RandomFlip(),) if flip else (),
            shape=(height, width, channels),
            batch_size=batch_size,
        ),
        network=network if compute_dtype is None else dataclasses.replace(network, compute_dtype=compute_dtype),
        schedule=schedule or RectifiedFlow(),
        timesteps=timesteps,
        weighting=weighting or SiD2(),
        training=TrainConfig(
            num_classes=num_classes,
            optimizer=optimizer or OptimizerConfig(),
            ema_decay=ema_decay,
            label_dropout=label_dropout,
            accumulation=accumulation,
            seed=seed,
        ),
    )


def run(
    folder: Path,
    experiment: Experiment,
    config: RunConfig,
    *,
    sampling: SamplingConfig | None = None,
    workers: int = 0,
    fsdp: int = 1,
) -> TrainState:
    """Train, or go on training, in `folder`.

    With `sampling`, the four ways of sampling are drawn every `config.sample_every` steps and at the end.
    """
    training, held_out = open_batches(experiment, workers)
    return run_training(
        folder,
        experiment,
        experiment.training,
        config,
        experiment.make_denoiser,
        experiment.training_loss,
        training,
        make_mesh(jax.device_count() // fsdp, fsdp),
        Validation(held_out, experiment.image_loss),
        None if sampling is None else draw_grids(folder / "samples", experiment, held_out, sampling),
    )


def draw_grids(
    folder: Path, experiment: Experiment, held_out: Batches, config: SamplingConfig
) -> Callable[[int, NetworkDenoiser], None]:
    """A callback that draws one row of samples a task, of held-out images where pixels are known.

    With several processes the first draws alone, from a copy of the weights that all of them bring together.
    """
    height, width, _ = experiment.data.shape
    tasks = four_tasks(config, height, width)
    labels = labels_in_turn(GRID_COLUMNS, experiment.network.num_classes)

    def draw(step: int, denoiser: NetworkDenoiser) -> None:
        if jax.process_count() > 1:
            denoiser = multihost_utils.process_allgather(denoiser, tiled=True)
        if jax.process_index() > 0:
            return
        folder.mkdir(exist_ok=True)
        batch = held_out.batch(0)
        count = min(GRID_COLUMNS, len(batch["image"]))
        image, given_labels = batch["image"][:count], batch["label"][:count]
        rows = []
        for task in tasks.values():
            wanted = np.asarray(given_labels) if np.any(task.known) else np.asarray(labels[:count])
            made = as_numpy(run_task(denoiser, task, config, jnp.asarray(image), jnp.asarray(wanted))[0])
            rows.append([pictures.colour(picture) for picture in made])
        pictures.save(pictures.tile(rows), folder / f"step_{step:07d}.png")

    return draw


def main(
    folder: Annotated[Path, tyro.conf.arg(metavar="FOLDER")],
    /,
    data: Digits | IdxFiles | ImageFolder | ArrayRecords = Digits(),
    timesteps: tyro.extras.subcommand_type_from_defaults(LAWS) = LAWS["async-patch"],  # type: ignore
    schedule: RectifiedFlow | Cosine | LogLinear = RectifiedFlow(),
    weighting: SiD2 | Plain | FisherDivergence = SiD2(),
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=1e-3, warmup_steps=100),
    run_config: Annotated[RunConfig, tyro.conf.arg(name="run")] = RunConfig(
        steps=1500, checkpoint_every=500, sample_every=500
    ),
    sampling: SamplingConfig = SamplingConfig(),
    preset: str = "digits",
    pad_to: int | None = None,
    flip: bool = False,
    batch_size: int = 64,
    ema_decay: float = 0.99,
    label_dropout: float = 0.1,
    accumulation: int = 1,
    compute_dtype: str | None = None,
    seed: int = 0,
    workers: int = 0,
    fsdp: int = 1,
) -> None:
    """Train a denoiser, or go on with the run in FOLDER.

    Args:
        folder: where checkpoints, metrics and sample grids go.
        data: what to train on; one image in ten is held out.
        timesteps: the law of training times.
        schedule: the noise schedule.
        weighting: the weight of the velocity error by time.
        optimizer: Adam with warm-up and clipping.
        run_config: how long, and how often to report, sample and save.
        sampling: how sample grids are drawn.
        preset: the network's size: digits, fashion, miniature, 60m or 600m.
        pad_to: side to which smaller images are padded with black.
        flip: mirror half of the training images.
        batch_size: images of a step, over all devices.
        ema_decay: of the moving average of the weights that is sampled from.
        label_dropout: share of images whose label is hidden, for classifier-free guidance.
        accumulation: microbatches that a batch is worked off in, to save memory.
        compute_dtype: float32 or bfloat16; the preset's own if not given.
        seed: of weights, batches and noise.
        workers: processes that prepare batches; 0 uses threads.
        fsdp: devices that share one copy of the weights.
    """
    experiment = configure(
        data,
        preset,
        timesteps,
        pad_to=pad_to,
        flip=flip,
        schedule=schedule,
        weighting=weighting,
        optimizer=optimizer,
        batch_size=batch_size,
        ema_decay=ema_decay,
        label_dropout=label_dropout,
        accumulation=accumulation,
        compute_dtype=compute_dtype,
        seed=seed,
    )
    run(folder, experiment, run_config, sampling=sampling, workers=workers, fsdp=fsdp)


if __name__ == "__main__":
    tyro.cli(main)
