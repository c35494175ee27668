"""Train a VQ autoencoder whose known latents carry nothing of what is hidden, and measure it (paper §5.2).

    python -m experiments.prepare_data photographs --size 64 --output data/photographs64
    python -m experiments.autoencoder runs/autoencoder data:array-records --data.folder data/photographs64/train \\
        held-out:array-records --held-out.folder data/photographs64/val

With `--objective.whole 1` and another folder it is trained without masks, and `--beside` that folder puts the leaks of
both in one table.

Interrupt it and start the same command again: it goes on to the bit. FOLDER then holds checkpoints and metrics, and in
`quality` tables, numbers and pictures of held-out images: what is given back, whole and under each mask family, how
many codes are used, and what known latents tell of the hidden region.
"""

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Literal

import matplotlib

matplotlib.use("Agg")

import numpy as np
import tyro

from asyncpatch import pictures
from asyncpatch.config import to_json
from asyncpatch.data import ArrayRecords, IdxFiles, ImageFolder, TextureCrops
from asyncpatch.data.textures import HELD_OUT
from asyncpatch.losses import AutoencoderObjective
from asyncpatch.metrics.networks.lpips import Lpips
from asyncpatch.runs import (
    AutoencoderExperiment,
    LpipsOnAlexNet,
    LpipsOnVgg16,
    NoPerceptual,
    OpenedAutoencoder,
    configure_autoencoder,
    open_autoencoder,
    open_images,
    train_autoencoder,
)
from asyncpatch.train import MuonConfig, OptimizerConfig, RunConfig, commit
from experiments.parts.autoencoder_quality import (
    codebook_use,
    draw_leaks,
    draw_there_and_back,
    leak_table,
    leaks,
    qualities,
    quality_table,
    regions_of,
)
from experiments.parts.command import run_command
from experiments.parts.tables import finding_markdown

PERCEPTUAL = {"lpips-alexnet": LpipsOnAlexNet(), "lpips-vgg16": LpipsOnVgg16(), "none": NoPerceptual()}

SHOWN = 8
"""Images of a picture."""

USUAL_RUN = RunConfig(steps=6000, log_every=50, checkpoint_every=1000, sample_every=1000)
"""For a small machine; the paper's preset wants hundreds of thousands."""


def held_out_images(experiment: AutoencoderExperiment, count: int) -> np.ndarray:
    """The first held-out images, as the autoencoder takes them."""
    _, held_out = open_images(experiment.data, experiment.training, 0)
    per_batch = experiment.data.batch_size
    batches = [held_out.batch(step)["image"] for step in range(-(-count // per_batch))]
    return np.concatenate(batches)[:count]


def measure(folder: Path, opened: OpenedAutoencoder, beside: OpenedAutoencoder | None, images: np.ndarray) -> str:
    """Write tables, numbers and pictures to `folder`, and return the tables."""
    folder.mkdir(parents=True, exist_ok=True)
    known = regions_of(images)
    perceptual = None if isinstance(opened.experiment.perceptual, NoPerceptual) else Lpips.alexnet()
    # One that was trained without masks cannot be told of any.
    asked = known if opened.experiment.objective.whole < 1 else {"whole": known["whole"]}
    found = qualities(opened.autoencoder, images, asked, perceptual)
    use = codebook_use(opened.autoencoder, images)
    both = [one for one in (opened, beside) if one is not None]
    names = ("this", "beside")
    leaking = {
        name: leaks(one.autoencoder, images, one.experiment.objective.whole < 1)
        for name, one in zip(names, both, strict=False)
    }
    record = {
        "autoencoders": [
            {
                "name": name,
                "fingerprint": one.fingerprint,
                "step": one.saved.step,
                "trained_by": one.saved.commit,
                "experiment": to_json(one.experiment),
            }
            for name, one in zip(names, both, strict=False)
        ],
        "images": len(images),
        "perceptual_network": None if perceptual is None else perceptual.name,
        "commit": commit(),
        "quality": {name: dataclasses.asdict(one) for name, one in found.items()},
        "codes_used": use[0],
        "code_perplexity": use[1],
        "leaks": {name: [dataclasses.asdict(one) for one in every] for name, every in leaking.items()},
    }
    (folder / "quality.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    tables = "\n\n".join(finding_markdown(table) for table in (quality_table(found, use), leak_table(leaking))) + "\n"
    (folder / "table.md").write_text(tables, encoding="utf-8")
    draw_leaks(leaking, folder / "leak.png")
    for name in list(asked)[1:] or asked:
        sheet = draw_there_and_back(opened.autoencoder, images[:SHOWN], known[name][:SHOWN])
        pictures.save(sheet, folder / f"{name}.png")
    return tables


def autoencoder(
    folder: Annotated[Path, tyro.conf.arg(metavar="FOLDER")],
    /,
    data: ArrayRecords | ImageFolder | IdxFiles | TextureCrops = TextureCrops(),
    held_out: ArrayRecords | ImageFolder | IdxFiles | TextureCrops | None = None,
    objective: AutoencoderObjective = AutoencoderObjective(start=2000),
    optimizer: tyro.conf.AvoidSubcommands[OptimizerConfig | MuonConfig] = OptimizerConfig(1e-3, 100),
    run_config: Annotated[RunConfig, tyro.conf.arg(name="run")] = USUAL_RUN,
    preset: str = "photographs-64",
    perceptual: Literal["lpips-alexnet", "lpips-vgg16", "none"] = "lpips-alexnet",
    flip: bool = True,
    batch_size: int = 16,
    ema_decay: float = 0.99,
    accumulation: int = 1,
    seed: int = 0,
    workers: int = 0,
    images: int = 256,
    beside: str | None = None,
) -> OpenedAutoencoder:
    """Train an autoencoder, or go on with the one in FOLDER, and measure it on held-out images.

    Args:
        folder: where checkpoints, metrics, pictures and measurements go.
        data: what to train on.
        held_out: what to measure on; if not given, one in ten images of data, which are not trained on, or the held-out
            band of textures.
        objective: weights of the losses, and the share of images that are not masked.
        optimizer: of the autoencoder; the discriminator has its own.
        run_config: how long, and how often to report, draw and save.
        preset: photographs-64 or paper-256.
        perceptual: what says how different two images look; none trains without.
        flip: mirror half of the training images.
        batch_size: images of a step, over all devices.
        ema_decay: of the moving average of the weights that is opened again.
        accumulation: microbatches that a batch is worked off in, to save memory.
        seed: of weights, batches and masks.
        workers: processes that prepare batches; 0 uses threads.
        images: held-out images to measure on.
        beside: another autoencoder, as open_autoencoder takes it, whose leaks are measured on the same images.
    """
    other = None if beside is None else open_autoencoder(beside)
    if held_out is None and isinstance(data, TextureCrops):
        held_out = dataclasses.replace(data, bands=HELD_OUT)  # crops of one band overlap
    experiment = configure_autoencoder(
        data,
        preset,
        held_out=held_out,
        flip=flip,
        objective=objective,
        perceptual=PERCEPTUAL[perceptual],
        optimizer=optimizer,
        batch_size=batch_size,
        ema_decay=ema_decay,
        accumulation=accumulation,
        seed=seed,
    )
    train_autoencoder(folder, experiment, run_config, workers=workers)
    opened = open_autoencoder(folder)
    print(f"\n{measure(folder / 'quality', opened, other, held_out_images(experiment, images))}", flush=True)
    print(f"numbers and pictures are in {folder / 'quality'}", flush=True)
    return opened


if __name__ == "__main__":
    run_command(autoencoder)
