"""Tables and plots of evaluation rows: Markdown for a README, HTML with the grids for a reader.

    python -m experiments.report rows.jsonl report
    python -m experiments.report rows.jsonl report --published paper.json

Rows of one law of training times and one task are put together: the mean over training seeds and the standard error of
that mean. Figures that someone published go beside ours from a JSON file of `{"law": {"task": {"metric": number}}}`;
none come with the code, because none could be checked against their source.
"""

import html
import json
import math
from pathlib import Path
from typing import Annotated

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import tyro

from experiments.evaluate import read_rows
from experiments.page import STYLE

LOWER_IS_BETTER = ("FD", "FID", "KD", "LPIPS")
"""How the names of distances begin."""

Cells = dict[str, dict[str, dict[str, list[float]]]]
"""Task, law, metric: one value a training seed."""


def collect(rows: list[dict]) -> Cells:
    """The values of all rows by task, law and metric."""
    cells: Cells = {}
    for row in rows:
        values = cells.setdefault(task_name(row), {}).setdefault(law_name(row), {})
        for metric, estimate in row["values"].items():
            values.setdefault(metric, []).append(estimate["value"])
    return cells


def task_name(row: dict) -> str:
    """What was done: generation, or the mask family, and the method if it is not the ordinary one."""
    task = row["task"]
    method = task.get("order") or task.get("method")
    base = "generation" if "masks" not in task else f"inpainting, {_class(task['masks']).lower()}"
    return base if _class(method) == "Together" else f"{base}, {_class(method)}"


def law_name(row: dict) -> str:
    """The class of the law of training times."""
    return _class(row["experiment"]["timesteps"])


def write_report(rows: list[dict], folder: Path, title: str, published: dict | None = None) -> Path:
    """Write `report.md`, `index.html` and a plot a metric into `folder`; grids are linked from where rows lie.

    Raises `ValueError` if there is no row.
    """
    if not rows:
        raise ValueError("there is no row to report; evaluate a run first")
    folder.mkdir(parents=True, exist_ok=True)
    cells = collect(rows)
    (folder / "report.md").write_text(f"# {title}\n\n" + markdown(cells, published) + provenance(rows), "utf-8")
    plots = [plot(cells, metric, folder / f"{metric.replace(' ', '_')}.png") for metric in _metrics(cells)]
    page = folder / "index.html"
    pictures = "".join(f'<h2>{html.escape(path.stem)}</h2><img src="{path.name}" alt="">' for path in plots)
    grids = "".join(f'<h3>{html.escape(_heading(row))}</h3><img src="../{row["grid"]}" alt="samples">' for row in rows)
    page.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style><h1>{html.escape(title)}</h1>{tables(cells, published)}{pictures}"
        f"<h2>What was drawn</h2>{grids}<h2>What made the numbers</h2>"
        f"<pre>{html.escape(provenance(rows))}</pre></html>\n",
        encoding="utf-8",
    )
    return page


def markdown(cells: Cells, published: dict | None) -> str:
    """One table a task: a law a row, a metric a column."""
    parts = []
    for task, laws in cells.items():
        metrics = _metrics({task: laws})
        lines = [f"## {task}", "", "| law | seeds | " + " | ".join(metrics) + " |", "|---" * (len(metrics) + 2) + "|"]
        lines += ["| " + " | ".join(line) + " |" for line in _lines(task, laws, metrics, published)]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def tables(cells: Cells, published: dict | None) -> str:
    """The same as HTML."""
    parts = []
    for task, laws in cells.items():
        metrics = _metrics({task: laws})
        head = "".join(f"<th>{html.escape(name)}</th>" for name in ("law", "seeds", *metrics))
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in line) + "</tr>"
            for line in _lines(task, laws, metrics, published)
        )
        parts.append(f"<h2>{html.escape(task)}</h2><table><tr>{head}</tr>{body}</table>")
    return "".join(parts)


def plot(cells: Cells, metric: str, path: Path) -> Path:
    """A metric of every law and task: the mean over seeds, its standard error, and each seed as a dot."""
    shown = {task: laws for task, laws in cells.items() if any(metric in values for values in laws.values())}
    figure, panels = plt.subplots(
        1, len(shown), figsize=(2.6 * len(shown) + 1.5, 3.4), layout="constrained", squeeze=False
    )
    names = list(dict.fromkeys(law for laws in shown.values() for law in laws))
    for axes, (task, laws) in zip(panels[0], shown.items(), strict=True):
        for place, law in enumerate(names):
            values = laws.get(law, {}).get(metric, [])
            if values:
                mean, error = summary(values)
                axes.errorbar(place, mean, 0.0 if math.isnan(error) else error, fmt="o", color="C0", capsize=3)
                axes.plot([place] * len(values), values, ".", color="C1", alpha=0.6, markersize=4)
        axes.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=8)
        axes.set_title(task, fontsize=9)
        axes.grid(alpha=0.3)
    better = "lower" if metric.startswith(LOWER_IS_BETTER) else "higher"
    panels[0][0].set_ylabel(f"{metric} ({better} is better)")
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def summary(values: list[float]) -> tuple[float, float]:
    """The mean and its standard error; NaN for the error of a single value."""
    mean = float(np.mean(values))
    return mean, float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan


def provenance(rows: list[dict]) -> str:
    """A line a row: what made it."""
    lines = ["\nWhat made the numbers (identity, run, step, seed, count, network calls, commit, hashes, network):\n"]
    for row in rows:
        network = row["network"]
        lines.append(
            f"- {row['identity']} {row['run']} step {row['step'] or 'last'}, seed {row['how']['seed']}, "
            f"{row['task']['count']} images, {row['calls_per_image']} calls, commit {row['commit']}, "
            f"data {row['data_hash'][:12]}, masks {(row['mask_hash'] or 'none')[:12]}, "
            f"{network['name']} {network['hash'][:12]}"
        )
    return "\n".join(lines) + "\n"


def _heading(row: dict) -> str:
    return f"{law_name(row)}, seed {row['experiment']['training']['seed']}: {task_name(row)}"


def _lines(task: str, laws: dict, metrics: list[str], published: dict | None) -> list[list[str]]:
    """The cells of a table, published figures in brackets."""
    lines = []
    for law, values in laws.items():
        theirs = (published or {}).get(law, {}).get(task, {})
        cells = [_cell(values.get(metric, []), theirs.get(metric)) for metric in metrics]
        lines.append([law, str(max(len(found) for found in values.values())), *cells])
    return lines


def _cell(values: list[float], published: float | None) -> str:
    beside = "" if published is None else f" [{published:g}]"
    if not values:
        return "-" + beside
    mean, error = summary(values)
    return (f"{mean:.4g}" if math.isnan(error) else f"{mean:.4g} ± {error:.2g}") + beside


def _metrics(cells: Cells) -> list[str]:
    return list(dict.fromkeys(name for laws in cells.values() for values in laws.values() for name in values))


def _class(written: dict) -> str:
    return written["type"].rpartition(".")[2]


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
    theirs = None if published is None else json.loads(published.read_text(encoding="utf-8"))
    print(write_report(read_rows(rows), folder, title, theirs).resolve())


if __name__ == "__main__":
    tyro.cli(main)
