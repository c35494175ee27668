"""Train on Fashion-MNIST at 32x32 and sample four ways, in ten minutes on two CPU cores.

    apt-get install dataset-fashion-mnist
    python -m experiments.fashion

Any folder with the four IDX files serves: `--data FOLDER`.
"""

import dataclasses
from pathlib import Path

from asyncpatch.runs import SamplingConfig, configure, recipe
from asyncpatch.timesteps import AsyncPatch
from experiments.parts.command import run_command
from experiments.parts.fashion_mnist import DEBIAN_FOLDER, fashion_mnist
from experiments.parts.show import train_and_show


def fashion(
    folder: Path = Path("runs/fashion"),
    data: Path = DEBIAN_FOLDER,
    steps: int = recipe("fashion-small").run.steps,
    sampling: SamplingConfig = SamplingConfig(patch=8),
    seed: int = 0,
) -> Path:
    """Train for `steps` steps, sample, and write the page. Returns its path.

    Args:
        folder: where everything goes; start again with the same folder to go on with a run.
        data: folder of the IDX files, gzipped.
        steps: of training, 16 images each.
        sampling: how samples are drawn.
        seed: of weights, batches and noise.
    """
    experiment = configure(
        fashion_mnist(data),
        "fashion-small",
        AsyncPatch((1, 2, 4, 8, 16, 32)),
        pad_to=32,
        seed=seed,
    )
    return train_and_show(
        "asyncpatch on Fashion-MNIST",
        "python -m experiments.fashion",
        folder,
        experiment,
        dataclasses.replace(recipe("fashion-small").run, steps=steps),
        sampling,
    )


if __name__ == "__main__":
    run_command(fashion)
