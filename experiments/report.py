"""Tables and plots of evaluation rows: Markdown for a README, HTML with the grids for a reader.

    python -m experiments.report rows.jsonl report
    python -m experiments.report rows.jsonl report --published paper.json

Seconds; it writes `report.md`, `index.html` and a plot a metric. Rows of one law of training times and one task are
put together: the mean over training seeds and the standard error of that mean, if several. Figures that someone
published go beside ours from a JSON file of `{"law": {"task": {"metric": number}}}`; none come with the code, because
none could be checked against their source.
"""

import html
import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import tyro
from matplotlib.ticker import LogLocator, NullFormatter

from experiments.parts.command import run_command
from experiments.parts.page import STYLE
from experiments.parts.rows import read_rows
from experiments.parts.tables import (
    Cells,
    Finding,
    all_metrics,
    as_html,
    as_markdown,
    collect,
    finding_html,
    finding_markdown,
    line_names,
    shown_grids,
    summary,
    task_name,
)

LOWER_IS_BETTER = ("FD", "FID", "KD", "LPIPS")
"""How the names of distances begin."""

FAR = 1.6
"""Times the median of a panel: a larger distance is written at the edge, so that the others can be told apart."""


def write_report(
    rows: list[dict],
    folder: Path,
    title: str,
    published: dict | None = None,
    findings: Sequence[Finding] = (),
    names: list[str] | None = None,
) -> Path:
    """Write `report.md`, `index.html` and a plot a metric into `folder`; a few grids are linked from where rows lie.

    `names` are the rows' lines in the tables: `line_names` if not given. Raises `ValueError` if there is no row.
    """
    if not rows:
        raise ValueError("there is no row to report; evaluate a run first")
    folder.mkdir(parents=True, exist_ok=True)
    names = names or line_names(rows)
    cells = collect(rows, names)
    sections = [finding_markdown(finding) for finding in findings] + [as_markdown(cells, published), provenance(rows)]
    (folder / "report.md").write_text("\n\n".join([f"# {title}", *sections]), "utf-8")
    plots = [plot(cells, metric, folder / f"{metric.replace(' ', '_')}.png") for metric in all_metrics(cells)]
    page = folder / "index.html"
    pictures = "".join(f'<h2>{html.escape(path.stem)}</h2><img src="{path.name}" alt="">' for path in plots)
    grids = "".join(
        f'<h3>{html.escape(_heading(rows[at], names[at]))}</h3><img src="../{rows[at]["grid"]}" alt="samples">'
        for at in shown_grids(rows, names)
    )
    page.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style><h1>{html.escape(title)}</h1>{''.join(map(finding_html, findings))}"
        f"{as_html(cells, published)}{pictures}<h2>What was drawn</h2>{grids}<h2>What made the numbers</h2>"
        f"<pre>{html.escape(provenance(rows))}</pre></html>\n",
        encoding="utf-8",
    )
    return page


def plot(cells: Cells, metric: str, path: Path) -> Path:
    """A metric of every law and task: the mean over seeds, its standard error, and each seed as a dot.

    A distance that is `FAR` above the others is a number at the right edge.
    """
    shown = {task: laws for task, laws in cells.items() if any(metric in values for values in laws.values())}
    names = list(dict.fromkeys(law for laws in shown.values() for law in laws))
    figure, panels = plt.subplots(
        1,
        len(shown),
        figsize=(2.4 * len(shown) + 0.07 * max(map(len, names)) + 0.5, 0.3 * len(names) + 1.3),
        layout="constrained",
        squeeze=False,
        sharey=True,
    )
    distance = metric.startswith(LOWER_IS_BETTER)
    for axes, (task, laws) in zip(panels[0], shown.items(), strict=True):
        told = {law: values[metric] for law, values in laws.items() if values.get(metric)}
        edge = FAR * statistics.median(summary(values).value for values in told.values()) if distance else math.inf
        for law, values in told.items():
            place, mean = names.index(law), summary(values)
            if mean.value > edge:
                where = {"transform": axes.get_yaxis_transform(), "ha": "right", "va": "center"}
                axes.text(0.98, place, f"{mean.value:.3g} →", fontsize=7, color="C0", **where)
            else:
                axes.errorbar(mean.value, place, xerr=mean.standard_error, fmt="o", color="C0", capsize=3)
                axes.plot(values, [place] * len(values), ".", color="C1", alpha=0.6, markersize=4)
        axes.set_yticks(range(len(names)), names, fontsize=8)
        axes.tick_params(axis="x", which="both", labelsize=8)
        if distance and axes.get_xlim()[0] > 0 and axes.get_xlim()[1] > 4 * axes.get_xlim()[0]:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter(NullFormatter())
        else:
            axes.locator_params(axis="x", nbins=4)
        axes.set_title(task, fontsize=9)
        axes.grid(alpha=0.3)
    panels[0][0].set_ylim(len(names) - 0.5, -0.5)
    figure.supxlabel(f"{metric} ({'lower' if distance else 'higher'} is better)", fontsize=9)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def provenance(rows: list[dict]) -> str:
    """A line a row: what made it."""
    lines = ["\nWhat made the numbers (identity, run, step, seed, count, network calls, commit, hashes, network):\n"]
    for row in rows:
        network = row["network"]
        lines.append(
            f"- {row['identity']} {row['run']} step {row['step']}, seed {row['how']['seed']}, "
            f"{row['task']['count']} images, {row['calls_per_image']} calls, commit {row['commit']}, "
            f"data {row['data_hash'][:12]}, masks {(row['mask_hash'] or 'none')[:12]}, "
            f"{network['name']} {network['hash'][:12]}"
        )
    return "\n".join(lines) + "\n"


def _heading(row: dict, name: str) -> str:
    return f"{name}, seed {row['experiment']['training']['seed']}: {task_name(row)}"


def main(
    rows: Annotated[Path, tyro.conf.arg(metavar="ROWS")],
    folder: Annotated[Path, tyro.conf.arg(metavar="FOLDER")],
    /,
    title: str = "Evaluation",
    published: Path | None = None,
) -> None:
    """Write the report of the rows in file ROWS into FOLDER.

    Args:
        rows: a file of JSON lines that experiments.evaluate wrote.
        folder: where the report goes.
        title: its heading.
        published: a JSON file of figures to show in brackets beside ours.
    """
    if not rows.is_file():
        raise FileNotFoundError(f"there is no file of rows at {rows}; give one that experiments.evaluate wrote")
    theirs = None if published is None else json.loads(published.read_text(encoding="utf-8"))
    print(write_report(read_rows(rows), folder, title, theirs).resolve())


if __name__ == "__main__":
    run_command(main)
