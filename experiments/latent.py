"""Latent diffusion by one time or by times of their own: generation and inpainting of whole pictures, in miniature.

    python -m experiments.latent runs/latent runs/autoencoder                    # what is missing of the tables
    python -m experiments.latent runs/tables2-4 runs/autoencoder-256 --preset paper \\
        --reference statistics.npz judge:inception --judge.weights FILE          # the paper's Tables 2 to 4

The images are those of the autoencoder in the second folder (`experiments.autoencoder`): they are encoded once, and
networks of their latents are trained for equal steps on the same batches, two seeds each: AsyncPatch, synchronous, and
the supervised inpainter, which is told the known latents in channels of their own and was trained on square, thin and
wide masks; extrema it has never seen. Then all are judged by the pixels that the autoencoder held out: generation, and
inpainting under the four mask families, where the synchronous network completes images by RePaint. Scores of inpainting
are of images whose known pixels were given back to the bit, and once more `as decoded`, without. The first table says
what the autoencoder alone makes of the same images: no network of its latents can be told to be better.

Distances rest on EfficientNet-Lite0, whose features cost a fortieth of VGG16's. `--lpips FILE` measures LPIPS too.
Calls are counted in `rows.jsonl`. A killed run goes on where it stopped, and rows that are done are not done again. The
miniature is of 64x64 pixels, 16x16 latent sites: AsyncPatch against synchronous at equal steps is what it can tell, and
what RePaint costs; not what either reaches at the paper's size, nor which is ahead after longer training.
"""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from asyncpatch.config import to_json
from asyncpatch.data import Latents, to_float, to_uint8
from asyncpatch.masks import OfSites, OneOf, Square, Thin, Wide
from asyncpatch.metrics import NetworkIdentity
from asyncpatch.metrics.networks import Lpips
from asyncpatch.nn import supervised_inpainter
from asyncpatch.runs import (
    Experiment,
    OpenedAutoencoder,
    SamplingConfig,
    configure,
    encode_data,
    open_autoencoder,
    recipe,
    train_run,
)
from asyncpatch.timesteps import AsyncPatch, Masked, Synchronous
from asyncpatch.train import RunConfig
from experiments.evaluate import judge_run
from experiments.parts.command import run_command
from experiments.parts.filling import Wanted, fill
from experiments.parts.judges import EfficientNet, Judging, read_images
from experiments.parts.law_table import FRESHLY, MASKS, REPAINT, Scale, completions
from experiments.parts.medium import AbstractMedium, medium_of
from experiments.parts.rows import Generation, Inpainting, RePaint, Steps, Together, Trailing, read_rows
from experiments.parts.scores import compared, settle
from experiments.parts.tables import Finding, summary
from experiments.report import write_report

SMALL, LARGE = recipe("fashion"), recipe("600m")

SCALES = {
    "miniature": Scale(
        preset="fashion",
        side=16,
        steps=5000,
        batch_size=2 * SMALL.batch_size,
        ema_decay=SMALL.ema_decay,
        optimizer=SMALL.optimizer,
        generated=1000,
        completed=256,
        generating=Steps(steps=40),
        completing=((Together(), FRESHLY), (Trailing(), FRESHLY)),
        baselines=((RePaint(), Steps(steps=30)),),
    ),
    "paper": Scale(
        preset="600m",
        side=64,
        steps=1_000_000,
        batch_size=LARGE.batch_size,
        ema_decay=LARGE.ema_decay,
        optimizer=LARGE.optimizer,
        generated=50_000,
        completed=10_000,
        generating=Steps(steps=250),
        completing=((Together(), Steps(steps=250)), (Trailing(), Steps(steps=250))),
        baselines=((RePaint(), Steps(steps=250)),),
    ),
}
"""The tables on a laptop, and the paper's; `side` counts latent sites. Steps of training and batches of `paper` are
those of its pixel networks."""

SEEDS = (0, 1)

NETWORKS = ("synchronous", "async-patch", "supervised")
"""What is trained; the supervised one does nothing but complete images."""


def configuration(
    scale: Scale, data: tuple[Latents, Latents], opened: OpenedAutoencoder, name: str, seed: int
) -> Experiment:
    """The config of one training: equal for all networks but for the law, and what the supervised one is told."""
    taught = Masked(OfSites(OneOf((Square(), Thin(), Wide())), opened.autoencoder.config.factor))
    patches = tuple(2**power for power in range(scale.side.bit_length()))
    law = {"synchronous": Synchronous(), "async-patch": AsyncPatch(patches), "supervised": taught}[name]
    training, held_out = data
    experiment = configure(
        training,
        scale.preset,
        law,
        held_out=held_out,
        optimizer=scale.optimizer,
        batch_size=scale.batch_size,
        ema_decay=scale.ema_decay,
        seed=seed,
    )
    height, width, _ = experiment.data.shape
    if (height, width) != (scale.side, scale.side):
        raise ValueError(
            f"the preset is for {scale.side}x{scale.side} latent sites, this autoencoder gives {height}x{width}; "
            "choose another preset, or an autoencoder of images of another size"
        )
    if name == "supervised":
        return dataclasses.replace(experiment, network=supervised_inpainter(experiment.network))
    return experiment


def tasks(scale: Scale, name: str, seed: int) -> list[tuple[Generation | Inpainting, Steps]]:
    """All that a network is judged by."""
    found: list[tuple[Generation | Inpainting, Steps]] = []
    if name != "supervised":
        found.append((Generation(scale.generated), dataclasses.replace(scale.generating, seed=seed)))
    for method, how in completions(REPAINT if name == "synchronous" else name, scale):
        how = dataclasses.replace(how, seed=seed)
        found += [(Inpainting(masks, scale.completed, method=method), how) for masks in MASKS.values()]
    return found


def fill_rows(
    folder: Path, experiment: Experiment, medium: AbstractMedium, scale: Scale, name: str, by: Judging
) -> None:
    """Train one network, or go on, and evaluate it on every task."""
    seed = experiment.training.seed
    asked = tasks(scale, name, seed)
    for task, how in asked:
        settle(task, how, medium, by.reference)  # so that training is not followed by a refusal
    trained = folder / f"{name}-{seed}"
    settings = RunConfig(
        steps=scale.steps, log_every=20, sample_every=scale.steps, checkpoint_every=max(1, scale.steps // 3)
    )
    sampling = SamplingConfig(steps=scale.generating.steps, guidance=1.0)
    train_run(trained, experiment, settings, sampling=sampling, view=medium.view)
    judge_run(trained, medium, asked, folder / "rows.jsonl", by)


def autoencoder_alone(folder: Path, opened: OpenedAutoencoder, medium: AbstractMedium, count: int, by: Judging) -> dict:
    """The row of held-out images that were encoded whole and decoded."""

    def make() -> dict:
        judge = by.judge.load(medium.pixels, folder)
        real, _ = read_images(medium.pixels, medium.pixels.data.held_out, count)
        tokens, _ = medium.given(real, np.ones(real.shape[:3], bool))
        back = to_float(to_uint8(np.asarray(medium.view.images(tokens))))
        lpips = None if by.lpips is None else Lpips.alexnet(by.lpips)
        values = compared(back, real, np.zeros(real.shape[:3], bool), [judge], lpips)
        return {
            "values": {name: dataclasses.asdict(value) for name, value in values.items()},
            "network": dataclasses.asdict(NetworkIdentity.of(judge)),
        }

    settings = {
        "autoencoder": opened.fingerprint,
        "experiment": to_json(opened.experiment),
        "count": count,
        "judge": type(by.judge).__name__,
        "lpips": by.lpips is not None,
    }
    (row,) = fill(folder / "autoencoder.jsonl", [Wanted("the autoencoder alone", settings, make)])
    return row


def report(folder: Path, preset: str, alone: dict) -> Path:
    """Write what the rows of `folder` say so far into its `report`. Returns the page."""
    rows = [row for row in read_rows(folder / "rows.jsonl") if row["autoencoder"] == alone["autoencoder"]]
    values = {name: f"{summary([found['value']]).value:.4g}" for name, found in alone["values"].items()}
    note = (
        f"{alone['count']} held-out images, whole, there and back; the autoencoder's fingerprint is "
        f"{alone['autoencoder'][:12]}. The networks below make its latents. Masked is the supervised inpainter."
    )
    ceiling = Finding("The autoencoder alone", tuple(values), [tuple(values.values())], note)
    return write_report(rows, folder / "report", f"Latent diffusion, {preset}", findings=[ceiling])


def main(
    folder: Annotated[Path, tyro.conf.arg(metavar="FOLDER")],
    autoencoder: Annotated[str, tyro.conf.arg(metavar="AUTOENCODER")],
    /,
    preset: Literal["miniature", "paper"] = "miniature",
    network: Literal["synchronous", "async-patch", "supervised"] | None = None,
    seed: int | None = None,
    judging: Annotated[Judging, tyro.conf.arg(name="")] = Judging(EfficientNet()),
    scale: tyro.conf.Suppress[Scale | None] = None,
) -> Path:
    """Fill the missing rows of the tables in FOLDER, and write its report. Returns the page.

    Args:
        folder: where latents, runs, rows and the report go.
        autoencoder: its folder, a file, or the name of one that comes with the package; its images are encoded.
        preset: how large the tables are.
        network: fill rows of this network only.
        seed: fill rows of this seed only.
        judging: what rows are judged by.
        scale: another size than the preset's.
    """
    scale, opened = scale or SCALES[preset], open_autoencoder(autoencoder)
    data = encode_data(folder / f"latents-{opened.fingerprint[:12]}", opened)
    wanted = [(n, s) for s in SEEDS for n in NETWORKS if network in (None, n) and seed in (None, s)]
    if not wanted:
        raise ValueError(f"the tables have seeds {', '.join(map(str, SEEDS))}, got {seed}; choose one of these")
    page = folder
    for name, number in wanted:
        experiment = configuration(scale, data, opened, name, number)
        medium = medium_of(experiment, opened)
        alone = autoencoder_alone(folder, opened, medium, scale.completed, judging)
        fill_rows(folder, experiment, medium, scale, name, judging)
        page = report(folder, preset, alone)
    print(f"Open {page.resolve()}", flush=True)
    return page


if __name__ == "__main__":
    run_command(main)
