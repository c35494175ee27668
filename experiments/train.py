"""Train a denoiser whose every pixel has its own noise time.

    python -m experiments.train runs/digits                                     # 8x8 digits, minutes on a laptop
    python -m experiments.train runs/latents --preset fashion \\
        data:latents-of --data.autoencoder photographs --data.folder data/latents    # of an autoencoder's photographs
    python -m experiments.train --help

It writes checkpoints, `metrics.jsonl`, TensorBoard events and grids of samples. Run the same command again after an
interruption: it goes on where it stopped, to the same numbers.
"""

import argparse
import functools
import inspect
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import tyro

from asyncpatch.data import ArrayRecords, Digits, IdxFiles, ImageFolder
from asyncpatch.losses import FisherDivergence, Plain, SiD2
from asyncpatch.noise_schedule import Cosine, LogLinear, RectifiedFlow
from asyncpatch.places import writable_folder
from asyncpatch.runs import RECIPES, SamplingConfig, configure, latent_view, recipe, train_run, with_cooldown
from asyncpatch.runs.cache import cache_folder
from asyncpatch.runs.evaluating import evaluation as frechet_evaluation
from asyncpatch.train import MuonConfig, OptimizerConfig, RunConfig
from experiments.parts.command import run_command
from experiments.parts.judges import AnyJudge, OwnClassifier
from experiments.parts.latents_of import LatentsOf
from experiments.parts.laws import LAWS


def main(
    folder: Annotated[str, tyro.conf.arg(metavar="FOLDER")],
    /,
    data: Digits | IdxFiles | ImageFolder | ArrayRecords | LatentsOf = Digits(),
    held_out: Digits | IdxFiles | ImageFolder | ArrayRecords | None = None,
    timesteps: tyro.extras.subcommand_type_from_defaults(LAWS) = LAWS["async-patch"],  # type: ignore
    schedule: RectifiedFlow | Cosine | LogLinear = RectifiedFlow(),
    weighting: SiD2 | Plain | FisherDivergence = SiD2(),
    optimizer: tyro.conf.AvoidSubcommands[OptimizerConfig | MuonConfig | None] = None,
    run_config: Annotated[tyro.conf.AvoidSubcommands[RunConfig | None], tyro.conf.arg(name="run")] = None,
    sampling: SamplingConfig = SamplingConfig(),
    held_out_one_in: int | None = None,
    preset: str = "digits",
    pad_to: int | None = None,
    shrink: int = 1,
    flip: bool = False,
    batch_size: int | None = None,
    ema_decay: float | None = None,
    cooldown: float = 0.0,
    label_dropout: float = 0.1,
    accumulation: int = 1,
    compute_dtype: str | None = None,
    seed: int = 0,
    workers: int = 0,
    fsdp: int = 1,
    profile: int = 0,
    evaluate_every: int = 0,
    evaluate_images: int = 500,
    judge: AnyJudge = OwnClassifier(),
) -> None:
    """Train a denoiser, or go on with the run in FOLDER.

    Args:
        folder: where checkpoints, metrics and sample grids go, on a disk or in a bucket (gs://...).
        data: what to train on; latents-of are those of an autoencoder's images, encoded once.
        held_out: what to validate on; if not given, images of data that are not trained on.
        timesteps: the law of training times.
        schedule: the noise schedule.
        weighting: the weight of the velocity error by time.
        optimizer: Adam or Muon, as in the recipe, with warm-up and clipping.
        run_config: how long, and how often to report, sample and save.
        sampling: how sample grids are drawn.
        held_out_one_in: one image of data in so many is held out, ten if neither this nor held_out is given.
        preset: the network's shape, whose recipe gives the defaults: digits, fashion, miniature, 60m or 600m, the last
            three also with -transformer.
        pad_to: side to which smaller images are padded with black.
        shrink: pixels a side of the squares that are averaged to one, after padding.
        flip: mirror half of the training images.
        batch_size: images of a step, over all devices.
        ema_decay: of the moving average of the weights that is sampled from.
        cooldown: the share of the steps, at the end, over which the learning rate falls to 0, say 0.125 of a long run;
            one that is prolonged goes on from where it began.
        label_dropout: share of images whose label is hidden, for classifier-free guidance.
        accumulation: microbatches that a batch is worked off in, to save memory.
        compute_dtype: float32 or bfloat16; the preset's own if not given.
        seed: of weights, batches and noise.
        workers: processes that prepare batches; 0 uses threads.
        fsdp: devices that share one copy of the weights.
        profile: steps to trace, once those that compile are over; the trace lies in FOLDER/profile.
        evaluate_every: steps between two measurements of the Frechet distance, by which the best checkpoints are then
            kept; 0 measures none.
        evaluate_images: images that it is measured on, generated and held out; compare figures of one number alone.
        judge: the network whose features the distance rests on.
    """
    if isinstance(data, LatentsOf):
        if held_out is not None or held_out_one_in is not None or evaluate_every:
            raise ValueError(
                "an autoencoder says which of its images are held out, and a Frechet distance is one of images: leave "
                "held_out, held_out_one_in and evaluate_every out, and evaluate afterwards (experiments.evaluate)"
            )
        opened, source, validating = data.open()
    else:
        opened, source, validating = None, data, held_out
    experiment = configure(
        source,
        preset,
        timesteps,
        held_out=validating,
        held_out_one_in=held_out_one_in,
        pad_to=pad_to,
        shrink=shrink,
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
    evaluation = None
    if evaluate_every:
        network = judge.load(experiment, _folder_for_judges(folder))
        evaluation = frechet_evaluation(experiment, network, sampling, evaluate_every, evaluate_images)
    run_config = run_config or recipe(preset).run
    experiment = with_cooldown(experiment, run_config.steps, cooldown)
    train_run(
        folder,
        experiment,
        run_config,
        sampling=sampling,
        view=None if opened is None else latent_view(opened, experiment),
        evaluation=evaluation,
        workers=workers,
        fsdp=fsdp,
        traced=profile,
    )


def _folder_for_judges(folder: str) -> Path:
    """Where a classifier is kept: in the run's folder, or in the one for compiled programs if that is in a bucket."""
    where = writable_folder(folder)
    kept = where if isinstance(where, Path) else cache_folder() or Path(tempfile.gettempdir())
    kept.mkdir(parents=True, exist_ok=True)
    return kept


def with_recipe(arguments: list[str]) -> Callable[..., None]:
    """The command with the recipe of the preset on its command line as defaults, so that `--help` shows them."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--preset", nargs="?", default=inspect.signature(main).parameters["preset"].default)
    name = parser.parse_known_args(arguments)[0].preset
    if name not in RECIPES:
        return main
    usual = RECIPES[name]
    return functools.partial(
        main,
        optimizer=usual.optimizer,
        run_config=usual.run,
        batch_size=usual.batch_size,
        ema_decay=usual.ema_decay,
    )


if __name__ == "__main__":
    run_command(with_recipe(sys.argv[1:]))
