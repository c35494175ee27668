"""A run from its first word to its last: the config made from a data set and a few choices, and the training itself."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from asyncpatch import pictures
from asyncpatch.data import (
    AbstractSource,
    AbstractTransform,
    AbstractView,
    Batches,
    PadTo,
    RandomFlip,
    Shrink,
    changed_shape,
    hold_out,
    open_once,
)
from asyncpatch.losses import AbstractWeighting, SiD2
from asyncpatch.nn import NetworkDenoiser, preset
from asyncpatch.noise_schedule import AbstractNoiseSchedule, RectifiedFlow
from asyncpatch.places import Place, place, writable_folder
from asyncpatch.ranges import check_counts, check_number
from asyncpatch.runs.cache import keep_compiled
from asyncpatch.runs.experiment import DataConfig, Experiment, check_batch_size, open_batches
from asyncpatch.runs.latents import usual_view
from asyncpatch.runs.recipes import recipe
from asyncpatch.runs.rehearsal import rehearse_sampling, rehearse_training
from asyncpatch.runs.sampling import SamplingConfig, four_tasks, labels_in_turn, run_task
from asyncpatch.timesteps import AbstractTimestepSampler
from asyncpatch.train import (
    AbstractOptimizerConfig,
    Cooldown,
    Evaluation,
    RunConfig,
    TrainConfig,
    TrainState,
    Validation,
    make_mesh,
    train,
)

GRID_COLUMNS = 8
"""Columns of a grid of samples."""

USUAL_ONE_IN = 10
"""One image in so many is held out, unless told otherwise."""


def configure(
    source: AbstractSource,
    preset_name: str,
    timesteps: AbstractTimestepSampler,
    *,
    held_out: AbstractSource | None = None,
    held_out_one_in: int | None = None,
    pad_to: int | None = None,
    shrink: int = 1,
    flip: bool = False,
    schedule: AbstractNoiseSchedule | None = None,
    weighting: AbstractWeighting | None = None,
    optimizer: AbstractOptimizerConfig | None = None,
    batch_size: int | None = None,
    ema_decay: float | None = None,
    label_dropout: float = 0.1,
    accumulation: int = 1,
    compute_dtype: str | None = None,
    seed: int = 0,
) -> Experiment:
    """The config of a run on `source`, whose shape and classes are read off the data.

    Validation is on the images of `held_out`; if it is not given, on one in `held_out_one_in` (ten) of `source`, which
    is not trained on. Optimiser, batch size and average are those of the preset's `recipe` unless given.

    Raises `ValueError` for an unknown preset, for images that it cannot take, for latents that are to be padded or
    flipped, and for a weighting that cannot be used on the schedule.
    """
    usual = recipe(preset_name)
    batch_size = usual.batch_size if batch_size is None else batch_size
    check_counts(batch_size=batch_size, shrink=shrink, **({} if pad_to is None else {"pad_to": pad_to}))
    if held_out is not None and held_out_one_in is not None:
        raise ValueError(
            f"got held-out images and held_out_one_in={held_out_one_in}; give held_out to validate on images of their "
            "own, or held_out_one_in to hold out a share of those to train on"
        )
    # What is wrong with a number is said before the data is opened, which may take long, or is blamed.
    trainer = TrainConfig(
        num_classes=0,
        optimizer=optimizer or usual.optimizer,
        ema_decay=usual.ema_decay if ema_decay is None else ema_decay,
        label_dropout=label_dropout,
        accumulation=accumulation,
        seed=seed,
    )
    weighting, schedule = weighting or SiD2(), schedule or RectifiedFlow()
    weighting.check(schedule)
    one_in = USUAL_ONE_IN if held_out_one_in is None else held_out_one_in
    training, validating = hold_out(source, one_in) if held_out is None else (source, held_out)
    records = open_once(source)
    padding: tuple[AbstractTransform, ...] = () if pad_to is None else (PadTo(pad_to, pad_to),)
    transforms = padding + (() if shrink == 1 else (Shrink(shrink),))
    augmentations = (RandomFlip(),) if flip else ()
    changed = transforms + augmentations
    height, width, channels = changed_shape(records, changed) if changed else records.shape
    num_classes = len(records.class_names)
    network = preset(preset_name, channels, num_classes)
    network.check_image(height, width, channels)
    return Experiment(
        data=DataConfig(
            source=training,
            held_out=validating,
            transforms=transforms,
            augmentations=augmentations,
            shape=(height, width, channels),
            batch_size=batch_size,
        ),
        network=network if compute_dtype is None else dataclasses.replace(network, compute_dtype=compute_dtype),
        schedule=schedule,
        timesteps=timesteps,
        weighting=weighting,
        training=dataclasses.replace(trainer, num_classes=num_classes),
    )


def with_cooldown(experiment: Experiment, steps: int, share: float) -> Experiment:
    """The same, trained for `steps` steps with a learning rate that falls to 0 over the last `share` of them.

    Trained for more steps later, in the same folder, it goes on from where the cooldown began. Raises `ValueError` for
    a share outside [0, 1).
    """
    check_counts(steps=steps)
    check_number("cooldown", share, lambda x: 0 <= x < 1, "in [0, 1)")
    falling = round(share * steps)
    cooldown = Cooldown(steps - falling, falling) if falling else None
    return dataclasses.replace(experiment, training=dataclasses.replace(experiment.training, cooldown=cooldown))


def train_run(
    folder: str | Place,
    experiment: Experiment,
    config: RunConfig,
    *,
    sampling: SamplingConfig | None = None,
    view: AbstractView | None = None,
    evaluation: Evaluation | None = None,
    workers: int = 0,
    fsdp: int = 1,
    traced: int = 0,
) -> TrainState:
    """Train, or go on training, in `folder`. Compiled programs are kept on disk (`asyncpatch.runs.cache`).

    With `sampling`, the four ways of sampling are drawn every `config.sample_every` steps and at the end, as `view`
    shows them: if it is not given, latents are shown as colours (`latent_view` decodes them). With `evaluation`, its
    figure is measured, and the best checkpoints are kept by it. `traced` steps are traced. What can be known to go
    wrong is raised before anything is computed; what goes wrong later with pictures or validation is logged, and does
    not end the run.
    """
    check_number("workers", workers, lambda count: count >= 0, "at least 0")
    check_number("traced", traced, lambda count: count >= 0, "at least 0")
    check_number(
        "fsdp", fsdp, lambda parts: parts >= 1 and jax.device_count() % parts == 0, f"a divisor of {jax.device_count()}"
    )
    check_batch_size(experiment.data, experiment.training)
    keep_compiled()
    rehearse_training(experiment)
    if sampling is not None:
        rehearse_sampling(experiment, sampling)
    training, held_out = open_batches(experiment, workers)
    return train(
        folder,
        experiment,
        experiment.training,
        config,
        experiment.learner,
        training,
        make_mesh(jax.device_count() // fsdp, fsdp),
        Validation(held_out, experiment.image_errors),
        None if sampling is None else draw_grids(place(folder) / "samples", experiment, held_out, sampling, view),
        evaluation,
        traced,
    )


def draw_grids(
    folder: Place,
    experiment: Experiment,
    held_out: Batches,
    config: SamplingConfig,
    view: AbstractView | None = None,
) -> Callable[[int, NetworkDenoiser], pictures.Pixels | None]:
    """A callback that draws a sheet, one row of samples a task, of held-out images where pixels are known.

    All devices share the images, the weights stay where they are, and the first process writes. Raises `OSError` if
    pictures cannot be written to `folder`.
    """
    folder = writable_folder(folder)
    view = view or usual_view(experiment)
    height, width, _ = experiment.data.shape
    tasks = four_tasks(config, height, width)
    labelled = experiment.network.num_classes > 0
    labels = labels_in_turn(GRID_COLUMNS, experiment.network.num_classes)

    def draw(step: int, denoiser: NetworkDenoiser) -> pictures.Pixels | None:
        batch = held_out.batch(0)
        image, given_labels = (_of_all_processes(batch[part])[:GRID_COLUMNS] for part in ("image", "label"))
        count = len(image)
        rows = []
        for task in tasks.values():
            wanted = np.asarray(given_labels if labelled and task.knows_something() else labels[:count])
            made, _ = run_task(denoiser, task, config, jnp.asarray(image), jnp.asarray(wanted))
            rows.append([pictures.colour(picture) for picture in jax.device_get(view.images(made))])
        if jax.process_index() > 0:
            return None
        sheet = pictures.tile(rows)
        pictures.save(sheet, folder / f"step_{step:07d}.png")
        return sheet

    return draw


def _of_all_processes(part: np.ndarray) -> np.ndarray:
    """The blocks of a global batch joined in the order of the processes."""
    return part if jax.process_count() == 1 else np.asarray(multihost_utils.process_allgather(part, tiled=True))
