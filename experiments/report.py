"""Tables and plots of evaluation rows: Markdown for a README, HTML with the grids for a reader.

    python -m experiments.report rows.jsonl report
    python -m experiments.report rows.jsonl report --published paper.json

Rows of one law of training times and one task are put together: the mean over training seeds and the standard error of
that mean. Figures that someone published go beside ours from a JSON file of `{"law": {"task": {"metric": number}}}`;
none come with the code, because none could be checked against their source.
"""

import dataclasses
import html
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import tyro
from matplotlib.ticker import LogLocator, NullFormatter

from experiments.evaluate import read_rows
from experiments.page import STYLE

LOWER_IS_BETTER = ("FD", "FID", "KD", "LPIPS")
"""How the names of distances begin."""

Cells = dict[str, dict[str, dict[str, list[float]]]]
"""Task, line of its table, metric: one value a training seed."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """A table that comes before all others: what the rows say, or what explains them."""

    title: str
    head: tuple[str, ...]
    lines: Sequence[tuple[str, ...]]
    note: str = ""
    picture: str | None = None
    """A file in the report's folder."""


def collect(rows: list[dict], names: list[str]) -> Cells:
    """The values of all rows by task, name and metric."""
    cells: Cells = {}
    for row, name in zip(rows, names, strict=True):
        values = cells.setdefault(task_name(row), {}).setdefault(name, {})
        for metric, estimate in row["values"].items():
            values.setdefault(metric, []).append(estimate["value"])
    return cells


def task_name(row: dict) -> str:
    """What was done: generation, or inpainting with the mask family."""
    task = row["task"]
    return "generation" if "masks" not in task else f"inpainting, {_class(task['masks']).lower()}"


def line_names(rows: list[dict]) -> list[str]:
    """Of each row: the class of its law of training times, the method if it is not the ordinary one, and of the law,
    the method, the checkpoint and the steps those settings that tell it from rows that would be called the same.
    """
    names = []
    for row in rows:
        law, kind = row["experiment"]["timesteps"], _class(_method(row))
        laws = [other["experiment"]["timesteps"] for other in rows]
        kin = [other for other, its in zip(rows, laws, strict=True) if its == law and _class(_method(other)) == kind]
        kin = [other for other in kin if task_name(other) == task_name(row)]
        told_of_law = _telling(law, [other for other in laws if other["type"] == law["type"]])
        told = _telling(_drawing(row), [_drawing(other) for other in kin])
        names.append(", ".join([_class(law), *told_of_law, *([] if kind == "Together" else [kind]), *told]))
    return names


def _method(row: dict) -> dict:
    return row["task"].get("order") or row["task"]["method"]


def _drawing(row: dict) -> dict:
    """All that decides how a row's images were drawn from the network, but for the seed."""
    return _method(row) | row["how"] | {"step": row["step"], "seed": None}


def _telling(own: dict, kin: Sequence[dict]) -> list[str]:
    """The settings in which not all kin are equal."""
    settings = [_leaves(other) for other in kin]
    return [
        f"{key} {value}" for key, value in _leaves(own).items() if any(other.get(key) != value for other in settings)
    ]


def run_names(rows: list[dict]) -> list[str]:
    """Of each row: its run's folder without the seed at its end, for laws that have names of their own."""
    return [row["run"].removesuffix(f"-{row['experiment']['training']['seed']}") for row in rows]


def _leaves(written: dict) -> dict[str, object]:
    """The settings of a config by their own names, those of parts included."""
    found: dict[str, object] = {}
    for key, value in written.items():
        found |= {k: v for k, v in _leaves(value).items() if k != "type"} if isinstance(value, dict) else {key: value}
    return found


def write_report(
    rows: list[dict],
    folder: Path,
    title: str,
    published: dict | None = None,
    findings: Sequence[Finding] = (),
    names: list[str] | None = None,
) -> Path:
    """Write `report.md`, `index.html` and a plot a metric into `folder`; grids are linked from where rows lie.

    `names` are the rows' lines in the tables: `line_names` if not given. Raises `ValueError` if there is no row.
    """
    if not rows:
        raise ValueError("there is no row to report; evaluate a run first")
    folder.mkdir(parents=True, exist_ok=True)
    names = names or line_names(rows)
    cells = collect(rows, names)
    sections = [_written(finding) for finding in findings] + [markdown(cells, published), provenance(rows)]
    (folder / "report.md").write_text("\n\n".join([f"# {title}", *sections]), "utf-8")
    plots = [plot(cells, metric, folder / f"{metric.replace(' ', '_')}.png") for metric in _metrics(cells)]
    page = folder / "index.html"
    pictures = "".join(f'<h2>{html.escape(path.stem)}</h2><img src="{path.name}" alt="">' for path in plots)
    grids = "".join(
        f'<h3>{html.escape(_heading(row, name))}</h3><img src="../{row["grid"]}" alt="samples">'
        for row, name in zip(rows, names, strict=True)
    )
    page.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style><h1>{html.escape(title)}</h1>{''.join(map(_shown, findings))}"
        f"{tables(cells, published)}{pictures}<h2>What was drawn</h2>{grids}<h2>What made the numbers</h2>"
        f"<pre>{html.escape(provenance(rows))}</pre></html>\n",
        encoding="utf-8",
    )
    return page


def markdown(cells: Cells, published: dict | None) -> str:
    """One table a task: a law a row, a metric a column."""
    return "\n\n".join(_written(Finding(task, *_table(task, laws, published))) for task, laws in cells.items()) + "\n"


def tables(cells: Cells, published: dict | None) -> str:
    """The same as HTML."""
    return "".join(_shown(Finding(task, *_table(task, laws, published))) for task, laws in cells.items())


def _written(finding: Finding) -> str:
    rules = "|---" * len(finding.head) + "|"
    lines = ["| " + " | ".join(line) + " |" for line in (finding.head, *finding.lines)]
    picture = f"![{finding.title}]({finding.picture})" if finding.picture else ""
    parts = [f"## {finding.title}", finding.note, picture, "\n".join([lines[0], rules, *lines[1:]])]
    return "\n\n".join(part for part in parts if part)


def _shown(finding: Finding) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = line(finding.head, "th") + "".join(line(cells, "td") for cells in finding.lines)
    picture = f'<img src="{finding.picture}" alt="">' if finding.picture else ""
    return f"<h2>{html.escape(finding.title)}</h2><p>{html.escape(finding.note)}</p>{picture}<table>{body}</table>"


def plot(cells: Cells, metric: str, path: Path) -> Path:
    """A metric of every law and task: the mean over seeds, its standard error, and each seed as a dot."""
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
        for place, law in enumerate(names):
            values = laws.get(law, {}).get(metric, [])
            if values:
                mean, error = summary(values)
                axes.errorbar(mean, place, xerr=0.0 if math.isnan(error) else error, fmt="o", color="C0", capsize=3)
                axes.plot(values, [place] * len(values), ".", color="C1", alpha=0.6, markersize=4)
        axes.set_yticks(range(len(names)), names, fontsize=8)
        axes.tick_params(axis="x", which="both", labelsize=8)
        if distance and axes.get_xlim()[0] > 0 and axes.get_xlim()[1] > 4 * axes.get_xlim()[0]:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_title(task, fontsize=9)
        axes.grid(alpha=0.3)
    panels[0][0].invert_yaxis()
    figure.supxlabel(f"{metric} ({'lower' if distance else 'higher'} is better)", fontsize=9)
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
            f"- {row['identity']} {row['run']} step {row['step']}, seed {row['how']['seed']}, "
            f"{row['task']['count']} images, {row['calls_per_image']} calls, commit {row['commit']}, "
            f"data {row['data_hash'][:12]}, masks {(row['mask_hash'] or 'none')[:12]}, "
            f"{network['name']} {network['hash'][:12]}"
        )
    return "\n".join(lines) + "\n"


def _heading(row: dict, name: str) -> str:
    return f"{name}, seed {row['experiment']['training']['seed']}: {task_name(row)}"


def _table(task: str, laws: dict, published: dict | None) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Head and lines, published figures in brackets."""
    metrics, lines = _metrics({task: laws}), []
    for law, values in laws.items():
        theirs = (published or {}).get(law, {}).get(task, {})
        cells = [_cell(values.get(metric, []), theirs.get(metric)) for metric in metrics]
        lines.append((law, str(max(len(found) for found in values.values())), *cells))
    return ("law", "seeds", *metrics), lines


def _cell(values: list[float], published: float | None) -> str:
    beside = "" if published is None else f" [{published:g}]"
    if not values:
        return "-" + beside
    mean, error = summary(values)
    # Two digits, of large errors too; what rounding alone leaves of equal values is no error.
    shown = f"{float(f'{error:.1e}') if error > 1e-12 * abs(mean) else 0:g}"
    return (f"{mean:.4g}" if math.isnan(error) else f"{mean:.4g} ± {shown}") + beside


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
