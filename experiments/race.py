"""Validation loss against seconds of training: our networks, and diffusers' UNet in torch where that is installed.

    python -m experiments.race runs/race                        # a quarter of an hour on two cores
    python -m experiments.race runs/race --seconds 600          # goes on with the same runs
    python -m experiments.race runs/race --only miniature

All see the same images in the same order, one time an image (the synchronous law, as diffusers' network knows no
other), under the same loss, and are judged by the average of their weights on the same noisy versions of the same
held-out images. Each has the batch, the optimiser and the rate that are best for it; diffusers' has Adam, as its own
training scripts have. For all, the rate falls to 0 over the last part of the seconds, so that the last loss is what
these seconds buy, and those before it are not yet. Ours are trained by the trainer itself, so its costs count;
compiling and validating do not, for nobody. Rows go to `FOLDER/rows.jsonl`, the plot to `FOLDER/race.png`.
"""

import dataclasses
import importlib.util
import json
import math
import os
from pathlib import Path
from typing import Annotated

import jax
import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import tyro
from matplotlib.ticker import LogLocator, NullFormatter

from asyncpatch.config import to_json
from asyncpatch.data import AbstractSource, Digits, IdxFiles
from asyncpatch.runs import COOLDOWN, Experiment, configure, recipe, train_run, with_cooldown
from asyncpatch.timesteps import Synchronous
from asyncpatch.train import MuonConfig, OptimizerConfig, RunConfig, commit, read_metrics
from experiments.parts.command import run_command
from experiments.parts.fashion_mnist import fashion_mnist
from experiments.parts.rows import read_rows

SIDE = 32
"""Images are padded to this many pixels."""

JUDGED = 1024
"""Held-out images that a network is judged on."""

PROBE = 60
"""Steps after which the speed of a network is known, and with it how many steps its seconds buy."""

LOOKS = 8
"""Validations of a race."""


@dataclasses.dataclass(frozen=True)
class Runner:
    """A network with the batch, rate and average that it runs best with."""

    preset: str
    batch: int
    optimizer: OptimizerConfig | MuonConfig
    average: float = 0.998


def usual(name: str) -> Runner:
    """A preset as its recipe trains it."""
    return Runner(name, recipe(name).batch_size, recipe(name).optimizer, recipe(name).ema_decay)


RUNNERS = {
    "fashion-small": usual("fashion-small"),
    "fashion": usual("fashion"),
    "fashion, Adam": Runner("fashion", 16, OptimizerConfig(1e-3, 100)),
    "miniature": Runner("miniature", 16, MuonConfig(5e-3, 100)),
    "miniature, Adam": Runner("miniature", 16, OptimizerConfig(1.5e-3, 100)),
    "transformer": Runner("miniature-transformer", 32, MuonConfig(3e-3, 100)),
}
"""Ours, by the name that they have in the plot."""

PEER = "diffusers"
"""The UNet of diffusers, of base 32 with attention on its lowest level."""

PEER_RUNNER = Runner("fashion", 16, OptimizerConfig(1e-3, 100))
"""Its batch, its rate under Adam, and its average. The preset is not used but for its data."""


def configuration(runner: Runner, source: AbstractSource, seed: int) -> Experiment:
    """The config of one network's training."""
    return configure(
        source,
        runner.preset,
        Synchronous(),
        pad_to=SIDE,
        optimizer=runner.optimizer,
        batch_size=runner.batch,
        ema_decay=runner.average,
        seed=seed,
    )


def run_ours(name: str, folder: Path, source: AbstractSource, seconds: float, seed: int) -> list[dict]:
    """Train one of our networks, or go on, and return what was seen at each validation."""
    runner = RUNNERS[name]
    experiment, trained = configuration(runner, source, seed), folder / f"{name.replace(', ', '-').replace(' ', '-')}"
    config = RunConfig(steps=PROBE, log_every=20, sample_every=10**9, validation_batches=JUDGED // runner.batch)
    if not (trained / "metrics.jsonl").is_file():
        train_run(trained, experiment, dataclasses.replace(config, checkpoint_every=PROBE))
    speed = [line["images_per_second"] for line in read_metrics(trained) if "images_per_second" in line][-1]
    least = math.ceil(PROBE / (1 - COOLDOWN)) + LOOKS
    steps = max(least, int(seconds * speed / runner.batch))
    experiment = with_cooldown(experiment, steps, COOLDOWN)
    train_run(trained, experiment, dataclasses.replace(config, steps=steps, checkpoint_every=max(20, steps // LOOKS)))
    return [look for look in _seen(read_metrics(trained), runner.batch) if look["images"] > PROBE * runner.batch]


def _seen(lines: list[dict], batch: int) -> list[dict]:
    """Seconds of training, images and loss at every validation, from the lines of a run's metrics."""
    seen, seconds, last = [], 0.0, 0
    for line in lines:
        if "images_per_second" in line:
            seconds += (line["step"] - last) * batch / line["images_per_second"]
            last = line["step"]
        if "validation_loss" in line:
            seen.append({"seconds": round(seconds, 1), "images": line["step"] * batch, "loss": line["validation_loss"]})
    return seen


def draw(rows: list[dict], path: Path) -> Path:
    """Loss over seconds, a line a network."""
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for row in rows:
        points = [(point["seconds"], point["loss"]) for point in row["seen"]]
        name = row["network"] if "batch" in row["network"] else f"{row['network']}, batch {row['batch']}"
        axes.plot(*zip(*points, strict=True), marker=".", label=name)
    axes.set(xlabel="seconds of training", ylabel="validation loss", xscale="log", yscale="log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 3.0, 5.0)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    axes.set_title(f"Fashion-MNIST {SIDE}x{SIDE}, synchronous times, {rows[0]['device']}", fontsize=9)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def main(
    folder: Annotated[Path, tyro.conf.arg(metavar="FOLDER")],
    /,
    seconds: float = 240.0,
    data: IdxFiles | Digits = fashion_mnist(),
    only: tuple[str, ...] = (),
    seed: int = 0,
) -> list[dict]:
    """Let every network train for as many seconds, and draw how far it came.

    Args:
        folder: where runs, rows and the plot go.
        seconds: of training, for each network.
        data: images and labels; one image in ten is held out.
        only: names of networks that shall run; all, and diffusers' if it is installed, if not given.
        seed: of weights, batches and noise.
    """
    installed = all(importlib.util.find_spec(name) is not None for name in ("torch", "diffusers"))
    known = (*RUNNERS, *((PEER,) if installed else ()))
    unknown = [name for name in only if name not in known]
    if unknown or not seconds > 0:
        names = ", ".join(map(repr, known))
        raise ValueError(f"networks are called {names} and run for some seconds; got {unknown or seconds}")
    folder.mkdir(parents=True, exist_ok=True)
    device = f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores, jax {jax.__version__}"
    rows = {row["network"]: row for row in read_rows(folder / "rows.jsonl")}
    for name in only or known:
        print(f"{name}: {seconds:g} s of training", flush=True)
        if name == PEER:
            from experiments.parts.race_torch import run_peer

            runner = PEER_RUNNER
            experiment = configuration(runner, data, seed)
            seen = run_peer(experiment, runner.average, seconds, COOLDOWN, JUDGED, LOOKS)
        else:
            runner, seen = RUNNERS[name], run_ours(name, folder, data, seconds, seed)
        rows[name] = {
            "network": name,
            "seen": seen,
            "preset": runner.preset,
            "batch": runner.batch,
            "optimizer": to_json(runner.optimizer),
            "average": runner.average,
            "cooldown": COOLDOWN,
            "seed": seed,
            "judged": JUDGED,
            "commit": commit(),
            "device": device,
        }
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows.values()), encoding="utf-8")
        print(f"{name}: loss {seen[-1]['loss']:.4f} after {seen[-1]['images']:,} images", flush=True)
    print(f"Open {draw(list(rows.values()), folder / 'race.png').resolve()}", flush=True)
    return list(rows.values())


if __name__ == "__main__":
    run_command(main)
