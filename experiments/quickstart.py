"""Train on 8x8 digits and sample four ways, in a few minutes on two CPU cores.

    python -m experiments.quickstart

Leaves a folder with the trained run, grids of the four ways of sampling, strips of the time field, the loss curve,
config and numbers, and a page, `index.html`, that shows them.
"""

import json
import os
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import tyro

from asyncpatch.data import Digits
from asyncpatch.timesteps import AsyncPatch
from asyncpatch.train import OptimizerConfig, RunConfig, to_json
from experiments import pictures
from experiments.page import write_page
from experiments.provenance import commit
from experiments.sample import choose_labels, draw_tasks, open_denoiser
from experiments.setup import open_batches
from experiments.tasks import SamplingConfig, four_tasks
from experiments.train import configure, run

SAMPLES = 32
"""Images of each task."""


def quickstart(
    folder: Path = Path("runs/quickstart"),
    steps: int = 1200,
    sampling: SamplingConfig = SamplingConfig(patch=2),  # noqa: B008  (frozen, and tyro reads defaults)
    seed: int = 0,
) -> Path:
    """Train for `steps` steps, sample, and write the page. Returns its path.

    Args:
        folder: where everything goes; start again with the same folder to go on with a run.
        steps: of training, 64 images each.
        sampling: how samples are drawn.
        seed: of weights, batches and noise.
    """
    begun = time.monotonic()
    experiment = configure(
        Digits(),
        "digits",
        AsyncPatch((1, 2, 4, 8)),
        optimizer=OptimizerConfig(learning_rate=2e-3, warmup_steps=50),
        ema_decay=0.99,
        seed=seed,
    )
    every = max(1, steps // 3)
    print(f"Training {steps} steps on 8x8 digits; the first step takes a while to compile.", flush=True)
    run(
        folder,
        experiment,
        RunConfig(steps=steps, log_every=20, sample_every=steps, checkpoint_every=every),
        sampling=sampling,
    )
    trained = time.monotonic()
    pictures.loss_curve(folder / "metrics.jsonl", folder / "loss.png")

    _, denoiser = open_denoiser(folder)
    _, held_out = open_batches(experiment, 0)
    batch = held_out.batch(0)
    images, given_labels = jnp.asarray(batch["image"][:SAMPLES]), jnp.asarray(batch["label"][:SAMPLES])
    height, width, _ = experiment.data.shape
    tasks = draw_tasks(
        folder,
        experiment,
        denoiser,
        four_tasks(sampling, height, width),
        sampling,
        images,
        choose_labels((), SAMPLES, experiment.network.num_classes),
        given_labels,
    )
    last = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    numbers = {
        "training loss": f"{[r['loss'] for r in last if 'loss' in r][-1]:.4f}",
        "validation loss": f"{[r['validation_loss'] for r in last if 'validation_loss' in r][-1]:.4f}",
        "steps of 64 images": str(steps),
        "seconds of training": f"{trained - begun:.0f}",
        "seconds in all": f"{time.monotonic() - begun:.0f}",
        "seed": str(seed),
        "commit": commit(),
        "machine": f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores, jax {jax.__version__}",
    }
    (folder / "numbers.json").write_text(json.dumps(numbers | {"tasks": tasks}, indent=2) + "\n", encoding="utf-8")
    page = write_page(folder / "index.html", "asyncpatch on 8x8 digits", numbers, tasks, to_json(experiment))
    print(f"\nDone in {numbers['seconds in all']} s. Open {page.resolve()}", flush=True)
    return page


if __name__ == "__main__":
    tyro.cli(quickstart)
