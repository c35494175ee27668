"""From rows of evaluation to lines of tables: which rows belong together, what they are called, and how cells read."""

import dataclasses
import html
import itertools
from collections.abc import Sequence

import numpy as np

from asyncpatch.metrics import Estimate

MOST_GRIDS = 12
"""Grids that a report shows, and that are kept beside rows that are published; commands make the others again."""

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
    return "generation" if "masks" not in task else f"inpainting, {class_name(task['masks']).lower()}"


def line_names(rows: list[dict]) -> list[str]:
    """Of each row: the class of its law of training times, the method if it is not the ordinary one, and of the law,
    the method, the checkpoint and the steps those settings that tell it from rows that would be called the same.
    """
    names = []
    for row in rows:
        law, kind = row["experiment"]["timesteps"], class_name(_method(row))
        laws = [other["experiment"]["timesteps"] for other in rows]
        kin = [
            other for other, its in zip(rows, laws, strict=True) if its == law and class_name(_method(other)) == kind
        ]
        kin = [other for other in kin if task_name(other) == task_name(row)]
        told_of_law = _telling(law, [other for other in laws if other["type"] == law["type"]])
        told = _telling(_drawing(row), [_drawing(other) for other in kin])
        names.append(", ".join([class_name(law), *told_of_law, *([] if kind == "Together" else [kind]), *told]))
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


def shown_grids(rows: list[dict], names: list[str]) -> list[int]:
    """Which rows' grids a report shows, at most `MOST_GRIDS`: of every task in turn the next line's first row."""
    queues: dict[str, dict[str, int]] = {}
    for at, (row, name) in enumerate(zip(rows, names, strict=True)):
        queues.setdefault(task_name(row), {}).setdefault(name, at)
    turns = itertools.zip_longest(*(queue.values() for queue in queues.values()))
    chosen = [at for turn in turns for at in turn if at is not None][:MOST_GRIDS]
    return sorted(chosen, key=lambda at: (list(queues).index(task_name(rows[at])), at))


def as_markdown(cells: Cells, published: dict | None) -> str:
    """One table a task: a law a row, a metric a column."""
    return (
        "\n\n".join(finding_markdown(Finding(task, *_table(task, laws, published))) for task, laws in cells.items())
        + "\n"
    )


def as_html(cells: Cells, published: dict | None) -> str:
    """The same as HTML."""
    return "".join(finding_html(Finding(task, *_table(task, laws, published))) for task, laws in cells.items())


def finding_markdown(finding: Finding) -> str:
    rules = "|---" * len(finding.head) + "|"
    lines = ["| " + " | ".join(line) + " |" for line in (finding.head, *finding.lines)]
    picture = f"![{finding.title}]({finding.picture})" if finding.picture else ""
    parts = [f"## {finding.title}", finding.note, picture, "\n".join([lines[0], rules, *lines[1:]])]
    return "\n\n".join(part for part in parts if part)


def finding_html(finding: Finding) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = line(finding.head, "th") + "".join(line(cells, "td") for cells in finding.lines)
    picture = f'<img src="{finding.picture}" alt="">' if finding.picture else ""
    return f"<h2>{html.escape(finding.title)}</h2><p>{html.escape(finding.note)}</p>{picture}<table>{body}</table>"


def summary(values: list[float]) -> Estimate:
    """The mean over seeds and its standard error, which a single value does not tell."""
    return Estimate.mean_of(np.asarray(values, float))


def _table(task: str, laws: dict, published: dict | None) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Head and lines, published figures in brackets."""
    metrics, lines = all_metrics({task: laws}), []
    for law, values in laws.items():
        theirs = (published or {}).get(law, {}).get(task, {})
        cells = [_cell(values.get(metric, []), theirs.get(metric)) for metric in metrics]
        lines.append((law, str(max(len(found) for found in values.values())), *cells))
    return ("law", "seeds", *metrics), lines


def _cell(values: list[float], published: float | None) -> str:
    beside = "" if published is None else f" [{published:g}]"
    if not values:
        return "-" + beside
    found = summary(values)
    mean, error = found.value, found.standard_error
    if error is None:
        return f"{mean:.4g}{beside}"
    # Two digits, of large errors too; what rounding alone leaves of equal values is no error.
    shown = f"{float(f'{error:.1e}') if error > 1e-12 * abs(mean) else 0:g}"
    return f"{mean:.4g} ± {shown}{beside}"


def all_metrics(cells: Cells) -> list[str]:
    return list(dict.fromkeys(name for laws in cells.values() for values in laws.values() for name in values))


def class_name(written: dict) -> str:
    """Of a config, as JSON, the name of its class."""
    return written["type"].rpartition(".")[2]
