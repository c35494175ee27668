"""Train a head that says how wrong a trained network expects to be, and report how well it is calibrated.

    python -m experiments.train_difficulty fashion runs/fashion-head           # the model that comes with asyncpatch
    python -m experiments.adaptive fashion runs/fashion-head out/adaptive      # what adaptive plans make of it

The network is frozen; images, noise schedule and law of times are the run's own. Interrupt it and start the same
command again: it goes on to the bit. FOLDER then holds the head's checkpoints, which open beside the run alone
(`asyncpatch.runs.open_head`), and in `calibration` tables, a picture and the numbers: squared errors of the velocity,
stated and measured on held-out images, in ten bins of what is stated and by noise time.
"""

import dataclasses
import json
import time
from pathlib import Path
from typing import Annotated

import tyro

from asyncpatch.runs import configure_head, open_head, open_run, train_head
from asyncpatch.train import OptimizerConfig, RunConfig, commit
from experiments.parts.calibration import Calibration, calibrate, calibration_tables, draw_calibration
from experiments.parts.command import run_command
from experiments.parts.tables import finding_markdown

USUAL_RUN = RunConfig(steps=600, log_every=50, checkpoint_every=200, validation_batches=8)
"""A head has a few thousand weights and its network has done the work."""


def train_difficulty(
    run: Annotated[Path, tyro.conf.arg(metavar="RUN")],
    folder: Annotated[Path, tyro.conf.arg(metavar="FOLDER")],
    /,
    hidden: int = 32,
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=3e-3, warmup_steps=50),
    run_config: Annotated[RunConfig, tyro.conf.arg(name="run")] = USUAL_RUN,
    seed: int = 0,
    images: int = 512,
    step: int | None = None,
) -> Calibration:
    """Train a head on the network of RUN, or go on with the one in FOLDER, and calibrate it.

    Args:
        run: the folder that training wrote to, an exported file, or the name of a shipped model.
        folder: where the head's checkpoints, metrics and calibration go.
        hidden: channels of the head.
        optimizer: of the head.
        run_config: how long, and how often to report and save.
        seed: of the head's weights and noise.
        images: held-out images to calibrate on.
        step: the checkpoint of the run; the newest that is whole if not given.
    """
    opened = open_run(run, step)
    experiment = configure_head(opened, hidden, optimizer, seed=seed)
    begun = time.monotonic()
    train_head(folder, experiment, opened.denoiser, run_config)
    seconds = time.monotonic() - begun
    found = calibrate(open_head(folder, opened), opened.experiment, images, seed)
    output = folder / "calibration"
    output.mkdir(exist_ok=True)
    record = {
        "run": str(run),
        "run_step": opened.step,
        "network": experiment.network,
        "head_steps": run_config.steps,
        "training": f"{seconds:.0f} s in this call",
        "images": images,
        "commit": commit(),
    }
    record |= dataclasses.asdict(found)
    (output / "calibration.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    tables = "\n\n".join(finding_markdown(table) for table in calibration_tables(found, images)) + "\n"
    (output / "table.md").write_text(tables, encoding="utf-8")
    draw_calibration(found, output / "calibration.png")
    print(f"\n{tables}\nnumbers and picture are in {output}", flush=True)
    return found


if __name__ == "__main__":
    run_command(train_difficulty)
