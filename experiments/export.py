"""Write a run as one file to give away: averaged weights and config as safetensors. A few seconds.

    python -m experiments.export runs/fashion fashion.safetensors
    python -m experiments.export runs/fashion fashion.safetensors --stored float16 --examples 10
    python -m experiments.export runs/fashion fashion.safetensors --measured rows.jsonl

The third command puts what `experiments.evaluate` measured of this checkpoint into the header. The file opens with
`asyncpatch.runs.open_run("fashion.safetensors")`, which runs no code that is in it.
"""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import jax.numpy as jnp
import numpy as np
import tyro

from asyncpatch.config import to_json
from asyncpatch.runs import Examples, Run, open_run, write_file
from experiments.parts.command import run_command
from experiments.parts.judges import read_images
from experiments.parts.rows import read_rows
from experiments.parts.tables import task_name


def export(
    run: Annotated[Path, tyro.conf.arg(metavar="RUN")],
    file: Annotated[Path, tyro.conf.arg(metavar="FILE")],
    /,
    step: int | None = None,
    stored: Literal["float32", "float16"] = "float32",
    examples: int = 0,
    class_names: tuple[str, ...] = (),
    measured: Path | None = None,
) -> Run:
    """Write the run in folder RUN to FILE, and read it back.

    Args:
        run: the folder that training wrote to.
        file: where the run goes; replaced if it is there.
        step: the checkpoint; the newest that is whole if not given.
        stored: the type of the weights in the file; float16 halves it.
        examples: held-out images to put into the file, the classes in turn. They are given away with it.
        class_names: a name for each class.
        measured: rows of evaluations, whose distances and LPIPS of this checkpoint the file is to state.
    """
    opened = open_run(run, step)
    if class_names and len(class_names) != opened.num_classes:
        raise ValueError(f"the run has {opened.num_classes} classes, got {len(class_names)} names; give one for each")
    opened = dataclasses.replace(
        opened,
        class_names=class_names or opened.class_names,
        examples=held_out_examples(opened, examples),
        measured=opened.measured if measured is None else figures(opened, measured),
    )
    found = open_run(write_file(opened, file, stored))
    print(f"{found}\n{file.stat().st_size:,} bytes", flush=True)
    return found


def held_out_examples(run: Run, count: int) -> Examples:
    """The first `count` held-out images, the classes in turn. Raises `ValueError` if there are not as many."""
    if count == 0:
        return run.examples
    images, labels = read_images(run.experiment, run.experiment.data.held_out)
    if len(labels) < count:
        raise ValueError(f"asked for {count} examples, the data holds out {len(labels)} images; ask for fewer")
    classes = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    turns = range(max(map(len, classes)))
    chosen = [members[turn] for turn in turns for members in classes if turn < len(members)][:count]
    return Examples(jnp.asarray(images[chosen]), jnp.asarray(labels[chosen]))


def figures(run: Run, rows: Path) -> dict[str, float]:
    """By metric and task, what rows say of this checkpoint: Frechet distances of generation, and LPIPS of inpainting.

    Raises `ValueError` if they say nothing.
    """
    config, found = to_json(run.experiment), {}
    for row in read_rows(rows):
        if row.get("experiment") == config and row["step"] == run.step:
            name = f"{task_name(row)}, {row['task']['count']:,} images, {row['calls_per_image']} calls"
            wanted = "LPIPS" if "masks" in row["task"] else ("FD", "FID")
            values = {key: value["value"] for key, value in row["values"].items() if key.startswith(wanted)}
            found |= {f"{key}, {name}": value for key, value in values.items()}
    if not found:
        raise ValueError(
            f"{rows} has no distance and no LPIPS of this config at step {run.step}; measure them with "
            "experiments.evaluate, or leave measured out"
        )
    return found


if __name__ == "__main__":
    run_command(export)
