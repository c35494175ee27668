"""Tables and pictures of quality against network calls, and of time fields that fall by what is expected."""

import itertools
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import LogFormatter, NullLocator

from asyncpatch.metrics import Estimate
from experiments.parts.tables import Finding, summary

Curves = dict[str, dict[int, list[float]]]
"""Plan, calls: one value a seed."""


def curves_of(rows: list[dict], metric: str) -> Curves:
    """The values of all rows."""
    found: Curves = {}
    for row in rows:
        found.setdefault(row["plan"], {}).setdefault(row["calls"], []).append(row["values"][metric]["value"])
    return {plan: dict(sorted(by_calls.items())) for plan, by_calls in found.items()}


def calls_table(curves: Curves, metric: str) -> Finding:
    """Means over seeds with standard errors, a plan a line."""
    calls = sorted({count for by_calls in curves.values() for count in by_calls})
    lines = [
        (plan, *(_cell(summary(by_calls[count])) if count in by_calls else "-" for count in calls))
        for plan, by_calls in curves.items()
    ]
    note = "Mean over seeds of sampling ± its standard error; the same noise for every plan. Lower is better."
    return Finding(f"{metric} by network calls an image", ("plan", *map(str, calls)), lines, note, "curve.png")


def paired_table(curves: Curves, first: str, metric: str) -> Finding:
    """Differences from the first plan at equal calls, seed by seed."""
    calls = sorted(curves[first])
    lines = []
    for plan, by_calls in curves.items():
        if plan != first:
            pairs = [
                [ours - theirs for ours, theirs in zip(by_calls[count], curves[first][count], strict=False)]
                if count in by_calls else [] for count in calls
            ]  # fmt: skip
            lines.append((plan, *(_cell(summary(differences)) if differences else "-" for differences in pairs)))
    return Finding(f"{metric} minus that of the {first} plan, at equal calls", ("plan", *map(str, calls)), lines)


def reach_table(curves: Curves, first: str) -> Finding:
    """How many calls each plan needs for what the first reaches with so many."""
    calls = sorted(curves[first])[1:]
    lines = []
    for plan, by_calls in curves.items():
        if plan != first:
            cells = []
            for count in calls:
                needed = calls_to_reach(by_calls, float(np.mean(curves[first][count])))
                cells.append("never" if needed is None else f"{needed:.1f} ({100 * needed / count:.0f}%)")
            lines.append((plan, *cells))
    note = "By straight lines between the means, over the logarithm of the calls. The aim was 60% or less."
    return Finding(f"Calls for the quality of so many {first} calls", ("plan", *map(str, calls)), lines, note)


def calls_to_reach(by_calls: dict[int, list[float]], target: float) -> float | None:
    """The fewest calls at which the curve of means, linear in the logarithm of the calls, is at most `target`."""
    points = [(float(np.log(count)), float(np.mean(values))) for count, values in sorted(by_calls.items())]
    if points[0][1] <= target:
        return float(np.exp(points[0][0]))
    for (left, high), (right, low) in itertools.pairwise(points):
        if low <= target:
            return float(np.exp(left + (right - left) * (high - target) / (high - low)))
    return None


def draw_curves(curves: Curves, metric: str, path: Path) -> Path:
    """A line a plan with error bars of one standard error, on logarithmic axes."""
    figure, axes = plt.subplots(figsize=(6.4, 4), layout="constrained")
    for number, (plan, by_calls) in enumerate(curves.items()):
        means = [summary(values) for values in by_calls.values()]
        errors = [mean.standard_error or 0.0 for mean in means]
        values = [mean.value for mean in means]
        width, colour = (2.0, "black") if number == 0 else (1.2, f"C{number}")
        axes.errorbar(list(by_calls), values, errors, fmt="o-", ms=3, capsize=2, lw=width, color=colour, label=plan)
    axes.set(xscale="log", yscale="log", xlabel="network calls an image", ylabel=metric)
    ticks = sorted({count for by_calls in curves.values() for count in by_calls})
    axes.set_xticks(ticks, [str(count) for count in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 1)))
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=90)
    plt.close(figure)
    return path


def _cell(found: Estimate) -> str:
    return f"{found.value:.3f}" if found.standard_error is None else f"{found.value:.3f} ± {found.standard_error:.3f}"
