"""Write a run as one file to give away: averaged weights and config as safetensors. A few seconds.

    python -m experiments.export runs/fashion fashion.safetensors
    python -m experiments.export runs/fashion fashion.safetensors --stored float16 --examples 10

The file opens with `asyncpatch.runs.open_run("fashion.safetensors")`, which runs no code that is in it.
"""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import jax.numpy as jnp
import numpy as np
import tyro

from asyncpatch.runs import Examples, Run, open_run, write_file
from experiments.parts.command import run_command
from experiments.parts.judges import read_images


def export(
    run: Annotated[Path, tyro.conf.arg(metavar="RUN")],
    file: Annotated[Path, tyro.conf.arg(metavar="FILE")],
    /,
    step: int | None = None,
    stored: Literal["float32", "float16"] = "float32",
    examples: int = 0,
    class_names: tuple[str, ...] = (),
) -> Run:
    """Write the run in folder RUN to FILE, and read it back.

    Args:
        run: the folder that training wrote to.
        file: where the run goes; replaced if it is there.
        step: the checkpoint; the newest that is whole if not given.
        stored: the type of the weights in the file; float16 halves it.
        examples: held-out images to put into the file, the classes in turn. They are given away with it.
        class_names: a name for each class.
    """
    opened = open_run(run, step)
    if class_names and len(class_names) != opened.num_classes:
        raise ValueError(f"the run has {opened.num_classes} classes, got {len(class_names)} names; give one for each")
    opened = dataclasses.replace(
        opened, class_names=class_names or opened.class_names, examples=held_out_examples(opened, examples)
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


if __name__ == "__main__":
    run_command(export)
