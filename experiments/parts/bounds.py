"""What the experiments on the likelihood bound share: a checkpoint as a likelihood model, its effort, its records.

A network trained under a schedule with infinite log-SNR is used on a log-linear one with two finite ends. There,
equal steps of time are equal steps of log-SNR, which spreads the error of the noise estimate, and so the variance of
the bound, evenly. What the diagonal path bounds depends on the ends alone.

Of a run on latents the bound is on the density of real-valued latents of unit variance, in bits per latent dimension:
lower is better among networks of the same latents. It is no bound on the images' likelihood, and not to be compared
with bits of pixels or with those of another autoencoder: a density changes with the scale, and may be below 0.
"""

import dataclasses
import json
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from asyncpatch.config import to_json
from asyncpatch.data import Batches, latents_of, open_once
from asyncpatch.elbo import AbstractDecoder, Continuous, EightBit, Evaluation, WholePath, evaluate
from asyncpatch.noise_schedule import LogLinear
from asyncpatch.paths import AbstractPathLaw
from asyncpatch.process import AbstractDenoiser, OnSchedule
from asyncpatch.ranges import check_counts, check_seed
from asyncpatch.runs import Experiment, open_batches, open_run
from asyncpatch.train import commit


@dataclasses.dataclass(frozen=True)
class Ends:
    """The log-SNRs between which the bound is taken."""

    max_log_snr: float = 9.0
    """At `t = 0`, where the decoder reads the image. The bound has a minimum in it: the lower, the more the decoder has
    to guess, the higher, the more the network is asked about faint noise that its training hardly weighed. Training
    images of the quickstart took 5.13, 5.01, 5.00, 5.09, 5.26 and 6.02 bits/dim at 7, 8, 9, 10, 11 and 13."""
    min_log_snr: float = -10.0
    """At `t = 1`. Nearly nothing is left there, and the prior term is nearly 0."""

    def __post_init__(self):
        LogLinear(self.max_log_snr, self.min_log_snr)  # which takes the same two, and says what it does not take


@dataclasses.dataclass(frozen=True)
class Effort:
    """How much is spent on an image."""

    points: int = 32
    """Network calls along each drawn path, one at random in each of so many equal pieces of it."""
    draws: int = 2
    """Paths drawn, each with its own noise."""
    seed: int = 0

    def __post_init__(self):
        check_counts(points=self.points, draws=self.draws)
        check_seed(self.seed)

    @property
    def calls(self) -> int:
        """Network calls of one image under one law."""
        return self.points * self.draws

    @property
    def key(self) -> PRNGKeyArray:
        return jr.key(self.seed)


class Model(eqx.Module):
    """A denoiser with what makes a likelihood of it, and the images to bound."""

    denoiser: AbstractDenoiser
    decoder: AbstractDecoder
    images: Float[Array, "images height width channel"]
    labels: Int[Array, " images"]

    def bound(self, law: AbstractPathLaw, effort: Effort) -> Evaluation:
        """The bound under one law. Equal seeds give all laws the same noise, so that their differences compare."""
        return evaluate(
            effort.key,
            self.denoiser,
            law,
            WholePath(effort.points),
            self.decoder,
            self.images,
            self.labels,
            effort.draws,
        )


def open_model(run: Path, ends: Ends, images: int, step: int | None = None) -> tuple[Experiment, Model]:
    """A checkpoint, and at most `images` of the images that its run held out, with their own labels."""
    opened = open_run(run, step)
    experiment, denoiser = opened.experiment, opened.denoiser
    _, held_out = open_batches(experiment, 0)
    pixels, labels = take(held_out, min(images, len(open_once(experiment.data.held_out))))
    moved = OnSchedule(denoiser, LogLinear(ends.max_log_snr, ends.min_log_snr))
    decoder = EightBit() if latents_of(experiment.data.held_out) is None else Continuous()
    return experiment, Model(moved, decoder, pixels, labels)


def take(batches: Batches, count: int) -> tuple[Float[Array, "count height width channel"], Int[Array, " count"]]:
    """The first `count` images of a stream of batches, and their labels."""
    if count < 2:
        raise ValueError(f"an error bar over images needs at least two, got {count}; ask for more")
    taken, found = [], 0
    while found < count:
        taken.append(batches.batch(len(taken)))
        found += len(taken[-1]["image"])
    images = np.concatenate([batch["image"] for batch in taken])[:count]
    labels = np.concatenate([batch["label"] for batch in taken])[:count]
    return jnp.asarray(images), jnp.asarray(labels)


@dataclasses.dataclass(frozen=True)
class Bar:
    """How far a measurement is, on standard error."""

    progress: Progress
    task: TaskID

    def advance(self, doing: str, by: int = 1) -> None:
        """`by` more units are done; `doing` says what."""
        self.progress.update(self.task, advance=by, description=doing)

    def say(self, line: str) -> None:
        """Print a result that stays, above the bar."""
        self.progress.console.print(line, highlight=False, soft_wrap=True)


@contextmanager
def progress_bar(total: int) -> Generator[Bar]:
    """A bar of `total` units; without a terminal, only what it says is printed."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(file=sys.stderr)) as progress:
        yield Bar(progress, progress.add_task("", total=total))


def paired_difference(one: Evaluation, other: Evaluation) -> tuple[float, float]:
    """Mean of `one - other` over the same images in bits per dimension, and its standard error.

    The error is that of an estimate for the population; the draws' share is in it, for it scatters the differences.
    """
    difference = (one.nats - other.nats) / (one.dimensions * np.log(2))
    return float(difference.mean()), float(difference.std(ddof=1) / np.sqrt(len(difference)))


def write_record(folder: Path, name: str, command: str, arguments: dict, results: dict, experiment: Experiment) -> Path:
    """Write `name.json`, with what made the numbers, and `config.json`, the run's config."""
    folder.mkdir(parents=True, exist_ok=True)
    record = {
        "command": command,
        "arguments": {k: dataclasses.asdict(v) if dataclasses.is_dataclass(v) else v for k, v in arguments.items()},
        "commit": commit(),
        "machine": f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores, jax {jax.__version__}",
    }
    path = folder / f"{name}.json"
    path.write_text(json.dumps(record | results, indent=2) + "\n", encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(to_json(experiment), indent=2) + "\n", encoding="utf-8")
    return path
