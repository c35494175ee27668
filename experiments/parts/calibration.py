"""Does a denoiser know how wrong it is? Stated and measured squared errors of its velocity, token by token, in bins."""

import dataclasses
import functools
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from asyncpatch.losses import stated_and_measured
from asyncpatch.process import AbstractDenoiser
from asyncpatch.runs import Experiment
from experiments.parts.judges import BATCH, read_images
from experiments.parts.tables import Finding

BINS = 10
"""Equal shares of the tokens, by what is stated of them; equal parts of [0, 1], by their noise time."""


@dataclasses.dataclass(frozen=True)
class Bin:
    """Some tokens: the mean of what was stated and of what was measured, as squared errors."""

    low: float
    high: float
    tokens: int
    stated: float
    measured: float


@dataclasses.dataclass(frozen=True)
class Calibration:
    """The same tokens, by what was stated and by noise time; and how well the statement orders tokens."""

    by_statement: list[Bin]
    by_time: list[Bin]
    correlation: float
    """Of the logarithms of the stated and the measured error, over tokens."""


def calibrate(denoiser: AbstractDenoiser, experiment: Experiment, count: int, seed: int) -> Calibration:
    """On `count` held-out images, each at one time field of the run's own law."""
    images, labels = read_images(experiment, experiment.data.held_out, count)
    one = functools.partial(_one_image, denoiser, experiment)
    look = eqx.filter_jit(lambda *batch: jax.lax.map(lambda image: one(*image), batch, batch_size=BATCH))
    found = look(jr.split(jr.key(seed), count), jnp.asarray(images), jnp.asarray(labels))
    t, log_stated, measured = (np.asarray(part, np.float64).reshape(-1) for part in found)
    stated = np.exp(log_stated)
    by_statement = _bins(log_stated, np.quantile(log_stated, np.linspace(0, 1, BINS + 1)), stated, measured)
    by_statement = [dataclasses.replace(b, low=float(np.exp(b.low)), high=float(np.exp(b.high))) for b in by_statement]
    by_time = _bins(t, np.linspace(0, 1, BINS + 1), stated, measured)
    logs = log_stated, np.log(np.maximum(measured, 1e-12))
    return Calibration(by_statement, by_time, float(np.corrcoef(*logs)[0, 1]))


def _one_image(
    denoiser: AbstractDenoiser, experiment: Experiment, key: PRNGKeyArray, image: Array, label: Array
) -> tuple[Float[Array, "height width"], ...]:
    time_key, noise_key = jr.split(key)
    t = experiment.timesteps(time_key, *image.shape[:2])
    return t, *stated_and_measured(denoiser, image, t, jr.normal(noise_key, image.shape), label)


def _bins(by: np.ndarray, edges: np.ndarray, stated: np.ndarray, measured: np.ndarray) -> list[Bin]:
    part = np.clip(np.searchsorted(edges, by, side="right") - 1, 0, len(edges) - 2)
    found = []
    for number in np.unique(part):
        inside = part == number
        means = float(stated[inside].mean()), float(measured[inside].mean())
        found.append(Bin(float(edges[number]), float(edges[number + 1]), int(inside.sum()), *means))
    return found


def calibration_tables(found: Calibration, images: int) -> list[Finding]:
    """Both tables."""

    def lines(bins: list[Bin], form: str) -> list[tuple[str, ...]]:
        return [
            (f"{b.low:{form}} to {b.high:{form}}", str(b.tokens), f"{b.stated:.4f}", f"{b.measured:.4f}",
             f"{b.measured / b.stated:.2f}")
            for b in bins
        ]  # fmt: skip

    head = ("tokens", "stated error", "measured error", "ratio")
    note = f"{images} held-out images. Correlation of the logarithms over tokens: {found.correlation:.3f}."
    return [
        Finding("By stated error", ("stated", *head), lines(found.by_statement, ".4f"), note, "calibration.png"),
        Finding("By noise time", ("time", *head), lines(found.by_time, ".1f")),
    ]


def draw_calibration(found: Calibration, path: Path) -> Path:
    """Measured against stated error, and both by noise time."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
    stated, measured = ([getattr(b, name) for b in found.by_statement] for name in ("stated", "measured"))
    ends = [min(stated + measured), max(stated + measured)]
    left.loglog(ends, ends, color="0.7", label="as stated")
    left.loglog(stated, measured, "o-", label="ten bins")
    left.set(xlabel="stated squared error", ylabel="measured squared error")
    left.legend()
    middles = [(b.low + b.high) / 2 for b in found.by_time]
    right.semilogy(middles, [b.stated for b in found.by_time], "o-", label="stated")
    right.semilogy(middles, [b.measured for b in found.by_time], "x--", label="measured")
    right.set(xlabel="noise time", ylabel="squared error of the velocity")
    right.legend()
    figure.savefig(path, dpi=80)
    plt.close(figure)
    return path
