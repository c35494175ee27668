"""Train a model, sample from it in all four ways, and write a report that shows both."""

import json
import os
import time
from pathlib import Path

import jax
import jax.numpy as jnp

from asyncpatch.config import to_json
from asyncpatch.runs import (
    COOLDOWN,
    Experiment,
    SamplingConfig,
    four_tasks,
    open_batches,
    open_run,
    train_run,
    with_cooldown,
)
from asyncpatch.train import RunConfig, commit, read_metrics
from experiments.parts.drawing import choose_labels, draw_tasks
from experiments.parts.loss_curve import loss_curve
from experiments.parts.page import write_page


def train_and_show(
    title: str, command: str, folder: Path, experiment: Experiment, config: RunConfig, sampling: SamplingConfig
) -> Path:
    """Train in `folder`, or go on there; write `folder/report` and return its page.

    The rate falls at the end, and a run that is prolonged goes on from where it began to.
    The report holds the grids and time-field strips of the four tasks, the loss curve, `config.json` and
    `numbers.json`. At most one batch of images is drawn a task.
    """
    report = folder / "report"
    report.mkdir(parents=True, exist_ok=True)
    made_by, begun = commit(), time.monotonic()
    experiment = with_cooldown(experiment, config.steps, COOLDOWN)
    train_run(folder, experiment, config, sampling=sampling)
    seconds = time.monotonic() - begun
    records = read_metrics(folder)
    loss_curve(records, report / "loss.png")

    denoiser = open_run(folder).denoiser
    tasks = draw_tasks(
        report, denoiser, four_tasks(sampling, *experiment.data.shape[:2]), sampling, *_held_out(experiment)
    )
    numbers = {
        "command": command,
        "training loss": _last(records, "loss"),
        "validation loss": _last(records, "validation_loss"),
        "steps": str(config.steps),
        "images a step": str(experiment.data.batch_size),
        "training": f"{seconds:.0f} s in this call",
        "seed": str(experiment.training.seed),
        "commit": made_by,
        "machine": f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores, jax {jax.__version__}",
    }
    written = to_json(experiment)
    (report / "numbers.json").write_text(json.dumps(numbers | {"tasks": tasks}, indent=2) + "\n", encoding="utf-8")
    (report / "config.json").write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
    page = write_page(report / "index.html", title, numbers, tasks, written)
    print(f"\nDone in {time.monotonic() - begun:.0f} s. Open {page.resolve()}", flush=True)
    return page


def _held_out(experiment: Experiment, most: int = 32):
    """Held-out images, the labels to make where nothing is known, and the images' own labels."""
    _, held_out = open_batches(experiment, 0)
    batch = held_out.batch(0)
    images, own = jnp.asarray(batch["image"][:most]), jnp.asarray(batch["label"][:most])
    return images, choose_labels((), len(images), experiment.network.num_classes), own


def _last(records: list[dict], name: str) -> str:
    """The last value of a metric, if it was ever measured."""
    values = [record[name] for record in records if name in record]
    return f"{values[-1]:.4f}" if values else "not measured"
