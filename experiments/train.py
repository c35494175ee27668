"""Train a denoiser whose every pixel has its own noise time.

    python -m experiments.train runs/digits                                     # 8x8 digits, minutes on a laptop
    python -m experiments.train --help

It writes checkpoints, `metrics.jsonl`, TensorBoard events and grids of samples. Run the same command again after an
interruption: it goes on where it stopped, to the same numbers.
"""

from pathlib import Path
from typing import Annotated

import tyro

from asyncpatch.data import ArrayRecords, Digits, IdxFiles, ImageFolder
from asyncpatch.losses import FisherDivergence, Plain, SiD2
from asyncpatch.noise_schedule import Cosine, LogLinear, RectifiedFlow
from asyncpatch.runs import SamplingConfig, configure, train_run
from asyncpatch.train import MuonConfig, OptimizerConfig, RunConfig
from experiments.parts.command import run_command
from experiments.parts.laws import LAWS


def main(
    folder: Annotated[Path, tyro.conf.arg(metavar="FOLDER")],
    /,
    data: Digits | IdxFiles | ImageFolder | ArrayRecords = Digits(),
    timesteps: tyro.extras.subcommand_type_from_defaults(LAWS) = LAWS["async-patch"],  # type: ignore
    schedule: RectifiedFlow | Cosine | LogLinear = RectifiedFlow(),
    weighting: SiD2 | Plain | FisherDivergence = SiD2(),
    optimizer: OptimizerConfig | MuonConfig = OptimizerConfig(learning_rate=1e-3, warmup_steps=100),
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
        preset: the network's shape: digits, fashion, miniature, 60m or 600m, the last three also with -transformer.
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
    train_run(folder, experiment, run_config, sampling=sampling, workers=workers, fsdp=fsdp)


if __name__ == "__main__":
    run_command(main)
