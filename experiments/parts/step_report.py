"""Report of step rules: distance against network calls, and what each is short of many small first-order steps."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from asyncpatch.metrics import Estimate
from experiments.parts.tables import Finding, finding_markdown, summary

TOLERANCE = 0.01
"""Share of the goal's distance by which a rule may be above it, the standard error of the difference included."""

Series = dict[int, dict[int, float]]
"""Calls of an image, seed: the distance."""


def collect_series(rows: list[dict], metric: str) -> dict[str, Series]:
    """The distances by rule and grid, by calls, by seed."""
    found: dict[str, Series] = {}
    for row in rows:
        how = row["how"]
        name = "DDIM" if how["rule"] == "ddim" else how["rule"]
        name += f", eta {how['eta']:g}" if how["rule"] == "ddim" or how["eta"] > 0 else ""
        name += "" if how["shift"] == 1 else f", shift {how['shift']:g}"
        seeds = found.setdefault(name, {}).setdefault(row["calls_per_image"], {})
        seeds[how["seed"]] = row["values"][metric]["value"]
    return {name: dict(sorted(series.items())) for name, series in found.items()}


def paired(values: dict[int, float], goal: dict[int, float]) -> Estimate | None:
    """The mean difference over the seeds that both have; None if there is none."""
    both = sorted(values.keys() & goal.keys())
    return summary([values[seed] - goal[seed] for seed in both]) if both else None


def goal_of(series: dict[str, Series]) -> tuple[int, dict[int, float]]:
    """The deterministic DDIM of the most calls: how many, and its distances. Nothing if there is none."""
    found = series.get("DDIM, eta 0", {})
    return max(found.items(), default=(0, {}))


def write_report(rows: list[dict], metric: str, folder: Path) -> None:
    """`report.md` and `steps.png`. Raises `ValueError` if there is no row."""
    if not rows:
        raise ValueError("there is no row to report; make some first")
    series = collect_series(rows, metric)
    calls, goal = goal_of(series)
    lines = [
        (name, str(count), str(len(values)), str(summary(list(values.values()))), _difference(paired(values, goal)))
        for name, each in series.items()
        for count, values in each.items()
    ]
    head = ("rule", "calls", "seeds", metric, f"minus {calls} steps of DDIM, eta 0, seed by seed")
    first = rows[0]
    note = (
        f"{first['images']} images a seed of `{first['run']}` (step {first['step']:,}), no guidance, against all "
        f"held-out images. Mean over seeds ± its standard error. {verdict(series)}"
    )
    finding = Finding("Quality against network calls", head, lines, note, "steps.png")
    (folder / "report.md").write_text(finding_markdown(finding) + "\n", encoding="utf-8")
    _draw(series, calls, goal, metric, folder / "steps.png")


def verdict(series: dict[str, Series]) -> str:
    """Which second-order rules reach the goal, and in how few calls: see `TOLERANCE`."""
    calls, goal = goal_of(series)
    if not goal:
        return "There is no deterministic DDIM to compare with."
    reached, margin = [], TOLERANCE * summary(list(goal.values())).value
    for name, each in series.items():
        if name.startswith("DDIM"):
            continue
        for count, values in each.items():
            difference = paired(values, goal)
            if difference and difference.standard_error and difference.value + difference.standard_error <= margin:
                reached.append((count, name))
                break
    asked = f"{calls} steps of DDIM, eta 0, to {TOLERANCE:.0%} of the distance, standard error included"
    if not reached:
        return f"No second-order rule reached {asked}."
    return f"Reached {asked}: {'; '.join(f'{name} in {count} calls' for count, name in sorted(reached))}."


def _difference(found: Estimate | None) -> str:
    if found is None:
        return "-"
    return f"{found.value:+.2f}" + ("" if found.standard_error is None else f" ± {found.standard_error:.2f}")


def _draw(series: dict[str, Series], calls: int, goal: dict[int, float], metric: str, path: Path) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for number, (name, each) in enumerate(series.items()):
        beside = 1.02 ** (number - len(series) // 2)
        each = {round(count * beside, 3): values for count, values in each.items()}
        style = {"marker": "osD^vP*"[number % 7], "markersize": 4, "capsize": 3, "lw": 1.2, "label": name}
        _curve(left, {count: summary(list(values.values())) for count, values in each.items()}, style)
        _curve(right, {count: found for count, values in each.items() if (found := paired(values, goal))}, style)
    right.axhline(0, color="0.6", lw=1)
    left.set(ylabel=f"{metric} (lower is better)")
    right.set(ylabel=f"minus {calls} steps of DDIM, eta 0, same seeds")
    right.set_yscale("symlog", linthresh=1)
    ticks = [-20, -10, -5, -2, -1, -0.5, 0, 0.5, 1, 2, 5, 10, 20]
    low, high = right.get_ylim()
    right.set_yticks([tick for tick in ticks if low <= tick <= high], [f"{t:g}" for t in ticks if low <= t <= high])
    for axes in (left, right):
        axes.set(xlabel="network calls an image", xscale="log")
        ticks = [6, 10, 20, 40, 100, 250]
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    left.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _curve(axes: Axes, points: dict[float, Estimate], style: dict) -> None:
    errors = [point.standard_error or 0.0 for point in points.values()]
    axes.errorbar(list(points), [point.value for point in points.values()], yerr=errors, **style)
