"""What rows of one table at several lengths of training say: curves, and every claim from look to look."""

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator

from experiments.parts.claims import HOW_JUDGED, Claim, Judged, judge_claims
from experiments.parts.tables import Finding, class_name, collect, summary
from experiments.report import LOWER_IS_BETTER

LOOKS_OF_A_TREND = 3
"""The last looks that a straight line is laid through, of the logarithm of a ratio against that of the images."""

TALLEST = 2.5
"""The longest axis of a distance, as a ratio: a law that cannot do a task at all leaves the panel."""


def length_names(rows: list[dict]) -> list[str]:
    """Of each row: its law of times, and how it completes images, with its calls where RePaint makes more or fewer."""
    names = []
    for row in rows:
        law = class_name(row["experiment"]["timesteps"])
        method = class_name(row["task"].get("method", {"type": "Together"}))
        calls = f" in {row['calls_per_image']} calls" if method == "RePaint" else ""
        guided = f"{law}, guided" if row["how"]["input_guidance"] else law
        names.append(guided if method == "Together" else f"{law}, {method}{calls}")
    return names


def over_training(rows: list[dict], claims: Sequence[Claim]) -> Finding:
    """Every claim at every look, and where its trend would lead; those that no two rows speak of are left out."""
    looks = sorted({_images(row) for row in rows})
    at_looks = {look: [row for row in rows if _images(row) == look] for look in looks}
    shared = set.intersection(*({_seed(row) for row in there} for there in at_looks.values()))
    of_shared = {look: [row for row in there if _seed(row) in shared] for look, there in at_looks.items()}
    lines = []
    for claim in claims:
        judged = _judged(at_looks, claim)
        if any(one.seeds for one in judged.values()):
            cells = [f"{one.measured}: {one.holds}" if one.seeds > 1 else one.measured for one in judged.values()]
            measured = {look: one.value for look, one in _judged(of_shared, claim).items() if one.value is not None}
            trend = _extrapolated(measured) if claim.is_ratio else "-"
            lines.append((claim.task, claim.statement, *cells, trend))
    heads = [f"after {look:,} images" for look in looks]
    note = (
        f"{HOW_JUDGED} A number alone is of one seed, and no verdict. The last column is no measurement: a straight "
        f"line through the last {LOOKS_OF_A_TREND} looks, of logarithms, at twice the longest training, of the seeds "
        f"that every look has ({', '.join(map(str, sorted(shared)))})."
    )
    return Finding("Claims over training", ("task", "claim", *heads, "extrapolated to twice that"), lines, note)


def _judged(at_looks: dict[int, list[dict]], claim: Claim) -> dict[int, Judged]:
    """The claim at every look."""
    return {look: judge_claims(there, [claim], length_names(there))[0] for look, there in at_looks.items()}


def _extrapolated(ratios: dict[int, float]) -> str:
    """A ratio at twice the last number of images."""
    if len(ratios) < LOOKS_OF_A_TREND:
        return "-"
    last = np.log(np.asarray(list(ratios.items())[-LOOKS_OF_A_TREND:]))
    slope, start = np.polyfit(last[:, 0], last[:, 1], 1)
    return f"{math.exp(start + slope * (last[-1, 0] + math.log(2))):.2f}"


def draw_curves(rows: list[dict], metric: str, path: Path) -> Path:
    """A metric against the images of training, a panel a task: the mean over seeds, and each seed as a dot."""
    told = [row for row in rows if metric in row["values"]]
    looks = sorted({_images(row) for row in told})
    cells = {
        look: collect(there := [row for row in told if _images(row) == look], length_names(there)) for look in looks
    }
    tasks = list(dict.fromkeys(task for at in cells.values() for task in at))
    names = list(dict.fromkeys(name for at in cells.values() for found in at.values() for name in found))
    figure, panels = plt.subplots(1, len(tasks), figsize=(2.8 * len(tasks), 3.6), layout="constrained", squeeze=False)
    for axes, task in zip(panels[0], tasks, strict=True):
        for place, name in enumerate(names):
            found = {look: at.get(task, {}).get(name, {}).get(metric, []) for look, at in cells.items()}
            found = {look: values for look, values in found.items() if values}
            style = {"color": f"C{place % 10}", "linestyle": "-" if place < 10 else "--"}
            means = [summary(values).value for values in found.values()]
            axes.plot(list(found), means, label=name, linewidth=1.2, **style)
            for look, values in found.items():
                axes.plot([look] * len(values), values, ".", color=style["color"], markersize=4)
        axes.set_xscale("log")
        axes.set_xticks(looks, [f"{look / 1000:,.0f}k" for look in looks], fontsize=8)
        axes.xaxis.set_minor_locator(NullLocator())
        if metric.startswith(LOWER_IS_BETTER):
            axes.set_yscale("log")
            lowest, highest = axes.get_ylim()
            axes.set_ylim(lowest, min(highest, TALLEST * lowest))
            axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter(NullFormatter())
        axes.tick_params(axis="y", labelsize=8)
        axes.set_title(task, fontsize=9)
        axes.grid(alpha=0.3)
    handles = {label: line for axes in panels[0] for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=4, fontsize=8)
    figure.supxlabel("images of training", fontsize=9)
    panels[0][0].set_ylabel(metric, fontsize=9)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def _seed(row: dict) -> int:
    """Of the row's training."""
    return row["experiment"]["training"]["seed"]


def _images(row: dict) -> int:
    """That the row's network was trained on."""
    return row["step"] * row["experiment"]["data"]["batch_size"]
