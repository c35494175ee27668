"""Pictures and tables of likelihood bounds: plain functions from rows to files."""

import dataclasses
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from asyncpatch.elbo import Evaluation
from experiments.parts.bounds import paired_difference
from experiments.parts.consistency import CONFIDENCE, Gap


@dataclasses.dataclass(frozen=True)
class Row:
    """One law's numbers, in bits per dimension."""

    law: str
    bits: float
    population_error: float
    """Standard error as an estimate for all images of this kind."""
    draw_error: float
    """Standard error as an estimate for these very images."""
    difference: float
    """To the first law, image by image."""
    difference_error: float
    diffusion: float
    reconstruction: float
    prior: float


def make_rows(evaluations: dict[str, Evaluation]) -> list[Row]:
    """The numbers of each law beside those of the first."""
    first = next(iter(evaluations.values()))
    unit = first.dimensions * np.log(2)
    return [
        Row(
            name,
            *bound.bits_per_dimension(),
            *paired_difference(bound, first),
            *(float(part.mean() / unit) for part in (bound.diffusion, bound.reconstruction, bound.prior)),
        )
        for name, bound in evaluations.items()
    ]


def as_table(rows: list[Row]) -> str:
    """The rows in Markdown."""
    lines = [
        f"| law of paths | bits per dimension | ± images | ± draws | minus {rows[0].law}, image by image |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        difference = "" if row is rows[0] else f"{row.difference:+.4f} ± {row.difference_error:.4f}"
        lines.append(
            f"| {row.law} | {row.bits:.4f} | {row.population_error:.4f} | {row.draw_error:.4f} | {difference} |"
        )
    return "\n".join(lines) + "\n"


def draw_rows(left: Axes, right: Axes, rows: list[Row]) -> None:
    """Left the bounds with both error bars, right the differences to the first law."""
    places = np.arange(len(rows))[::-1]
    bits = [row.bits for row in rows]
    population, draws = [row.population_error for row in rows], [row.draw_error for row in rows]
    left.errorbar(bits, places, xerr=population, fmt="none", color="0.7", capsize=3, label="images and draws")
    left.errorbar(bits, places, xerr=draws, fmt="o", ms=3, lw=3, color="C0", label="draws alone")
    left.set(xlabel="bits per dimension", yticks=places, yticklabels=[row.law for row in rows])
    left.legend(title="standard error", fontsize=8, title_fontsize=8)
    differences, errors = [row.difference for row in rows], [row.difference_error for row in rows]
    right.axvline(0, color="0.7", lw=1)
    right.errorbar(differences, places, xerr=errors, fmt="o", ms=4, color="C1", capsize=3)
    right.set(xlabel=f"minus {rows[0].law}, same images")
    right.set(yticks=places, yticklabels=[])
    for axes in (left, right):
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.grid(alpha=0.3)


def draw_comparison(rows: list[Row], title: str, path: Path) -> Path:
    """A picture of nothing but rows."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 1.2 + 0.4 * len(rows)), layout="constrained")
    draw_rows(left, right, rows)
    return save(figure, title, path)


def draw_sweep(rows: list[Row], spreads: tuple[float, ...], patches: tuple[int, ...], title: str, path: Path) -> Path:
    """One panel a noise schedule: the difference to the diagonal by spread, one line a patch size."""
    by_name = {row.law: row for row in rows}
    schedules = list(dict.fromkeys(row.law.split(",")[0] for row in rows[1:]))
    figure, panels = plt.subplots(
        1, len(schedules), figsize=(4 * len(schedules), 3.6), sharey=True, squeeze=False, layout="constrained"
    )
    for axes, schedule in zip(panels[0], schedules, strict=True):
        axes.axhline(0, color="0.7", lw=1)
        for k, patch in enumerate(patches):
            found = [rows[0]] + [by_name[f"{schedule}, {patch}x{patch}, c = {spread:g}"] for spread in spreads]
            axes.errorbar(
                np.arange(len(found)) + 0.06 * (k - (len(patches) - 1) / 2),
                [row.difference for row in found],
                yerr=[row.difference_error for row in found],
                marker="o",
                ms=4,
                capsize=3,
                label=f"{patch}x{patch} patches",
            )
        axes.set(title=schedule, xlabel="spread c", xticks=np.arange(len(spreads) + 1))
        axes.set_xticklabels(["0", *(f"{spread:g}" for spread in spreads)])
        axes.grid(alpha=0.3)
    panels[0, 0].set_ylabel("bits/dim minus the diagonal's")
    panels[0, 0].legend(fontsize=8)
    first = rows[0]
    return save(figure, f"{title}; the diagonal: {first.bits:.3f} ± {first.population_error:.3f} bits/dim", path)


def draw_gaps(gaps: list[Gap], title: str, path: Path) -> Path:
    """The squared gap of each case with its interval, which may reach below 0."""
    figure, axes = plt.subplots(figsize=(7, 1.2 + 0.4 * len(gaps)), layout="constrained")
    places = np.arange(len(gaps))[::-1]
    axes.axvline(0, color="0.7", lw=1)
    for shift, color, spreads, label in (
        (0.1, "C0", [gap.image for gap in gaps], "of an image's bound"),
        (-0.1, "C1", [gap.shared for gap in gaps], "shared by all images"),
    ):
        values, low, high = np.array([dataclasses.astuple(spread) for spread in spreads]).T
        reach = np.stack([values - low, high - values])
        axes.errorbar(values, places + shift, xerr=reach, fmt="o", ms=4, capsize=3, color=color, label=label)
    names = [f"{gap.law}\n({gap.image.words})" for gap in gaps]
    axes.set(xlabel=f"variance over paths, (bits/dim)², {CONFIDENCE:.0%} interval", yticks=places, yticklabels=names)
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    return save(figure, title, path)


def draw_learning(
    rows: list[Row],
    history: list[tuple[float, float]],
    log_rises: Float[np.ndarray, "groups pieces"],
    title: str,
    path: Path,
) -> Path:
    """Loss and spread as they fell, the learned warps, and what held-out images say."""
    figure, panels = plt.subplots(2, 2, figsize=(10, 6.5), layout="constrained")
    losses, spreads = np.array(history).T
    panels[0, 0].plot(losses, color="0.7", lw=0.8)
    panels[0, 0].set(xlabel="step of Adam", ylabel="line integral, bits/dim")
    beside = panels[0, 0].twinx()
    beside.plot(spreads, color="C3")
    beside.set_ylabel("spread c", color="C3")
    rises = np.exp(log_rises) / np.exp(log_rises).sum(axis=1, keepdims=True)
    curves = np.concatenate([np.zeros((len(rises), 1)), rises.cumsum(axis=1)], axis=1)
    knots = np.linspace(0, 1, curves.shape[1])
    for k, curve in enumerate(curves):
        panels[0, 1].plot(knots, curve - knots, color=plt.get_cmap("viridis")(k / len(curves)))
    panels[0, 1].set(xlabel="time before the warp", ylabel="warp minus identity, one line a group")
    draw_rows(panels[1, 0], panels[1, 1], rows)
    for axes in panels[0]:
        axes.grid(alpha=0.3)
    return save(figure, title, path)


def save(figure: Figure, title: str, path: Path) -> Path:
    """Write the picture and forget it."""
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=100)
    plt.close(figure)
    return path
