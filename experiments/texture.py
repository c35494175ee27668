"""Textures.

python -m experiments.texture runs/texture
"""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from asyncpatch.runs import Experiment, configure, recipe, train_run
from asyncpatch.timesteps import AsyncPatch
from experiments.parts.command import run_command
from experiments.parts.textures import HELD_OUT, TRAINED_ON, TextureCrops


def configuration(seed: int) -> Experiment:
    """The config of the network's training."""
    return configure(
        TextureCrops(TRAINED_ON),
        "fashion",
        AsyncPatch((1, 2, 4, 8, 16, 32)),
        held_out=TextureCrops(HELD_OUT),
        flip=True,
        seed=seed,
    )


def main(
    folder: Annotated[Path, tyro.conf.arg(metavar="FOLDER")],
    /,
    steps: int = recipe("fashion").run.steps,
    seed: int = 0,
) -> None:
    run = dataclasses.replace(recipe("fashion").run, steps=steps, checkpoint_every=500, sample_every=10**9)
    train_run(folder / "run", configuration(seed), run)


if __name__ == "__main__":
    run_command(main)
