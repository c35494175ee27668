"""Train on 8x8 digits and sample four ways, in a few minutes on two CPU cores.

    python -m experiments.quickstart

Leaves a folder with the trained run, and in its `report` the grids of the four ways of sampling, strips of the time
field, the loss curve, config and numbers, and a page, `index.html`, that shows them.
"""

from pathlib import Path

from asyncpatch.data import Digits
from asyncpatch.runs import SamplingConfig, configure, recipe
from asyncpatch.timesteps import AsyncPatch
from asyncpatch.train import RunConfig
from experiments.parts.command import run_command
from experiments.parts.show import train_and_show


def quickstart(
    folder: Path = Path("runs/quickstart"),
    steps: int = recipe("digits").run.steps,
    sampling: SamplingConfig = SamplingConfig(patch=2),
    seed: int = 0,
) -> Path:
    """Train for `steps` steps, sample, and write the page. Returns its path.

    Args:
        folder: where everything goes; start again with the same folder to go on with a run.
        steps: of training, 64 images each.
        sampling: how samples are drawn.
        seed: of weights, batches and noise.
    """
    experiment = configure(Digits(), "digits", AsyncPatch((1, 2, 4, 8)), seed=seed)
    third = max(1, steps // 3)
    print(f"Training {steps} steps on 8x8 digits; the first step takes a while to compile.", flush=True)
    return train_and_show(
        "asyncpatch on 8x8 digits",
        "python -m experiments.quickstart",
        folder,
        experiment,
        RunConfig(steps=steps, log_every=min(20, steps), sample_every=third, checkpoint_every=third),
        sampling,
    )


if __name__ == "__main__":
    run_command(quickstart)
