"""The report on all statements: a table (claim, measured, expected, tolerance, verdict), and plots.

    python -m proofs_check.report

writes `report.html` with its pictures, and `report.md`, to `runs/proofs`, and exits with status 1 if a row fails or a
wrong twin passes.
"""

import dataclasses
import html
import importlib
import os
import pkgutil
import sys
import time
from pathlib import Path
from types import ModuleType

import tyro
from rich.console import Console
from rich.table import Table

import proofs_check
from asyncpatch.train import commit
from proofs_check.statement import Row, Size

# Before a statement loads its libraries: small solves take a hundred times longer when OpenBLAS threads contend.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
img { max-width: 100%; border: 1px solid #ddd }
table { border-collapse: collapse; width: 100%; font-size: 14px }
td, th { padding: .15rem .8rem .15rem 0; vertical-align: top; text-align: left; border-bottom: 1px solid #eee }
.fails { color: #b00; font-weight: bold }
"""

HEADER = ("claim", "measured", "expected", "tolerance", "verdict", "tolerance from")


@dataclasses.dataclass(frozen=True)
class Result:
    """What the check of one statement found."""

    name: str
    claim: str
    source: str
    rows: list[Row]
    rejected: int
    of: int
    seconds: float
    picture: str | None

    @property
    def holds(self) -> bool:
        """Whether every row holds and the wrong twin is rejected."""
        return all(row.holds for row in self.rows) and self.rejected > 0

    @property
    def summary(self) -> str:
        twin = f"its wrong twin fails {self.rejected} of {self.of} rows"
        return f"{twin if self.rejected else 'ITS WRONG TWIN PASSES'}; {self.seconds:.0f} s"


def statements() -> list[ModuleType]:
    """Every module of this package that states a claim."""
    names = [module.name for module in pkgutil.iter_modules(proofs_check.__path__)]
    outside_tests = [name for name in names if name != "conftest" and not name.startswith("test_")]
    modules = [importlib.import_module(f"proofs_check.{name}") for name in outside_tests]
    return [module for module in modules if hasattr(module, "CLAIM")]


def short_name(statement: ModuleType) -> str:
    """The name of a statement's file."""
    return statement.__name__.rsplit(".", 1)[-1]


def examine(statement: ModuleType, size: Size, folder: Path) -> Result:
    """Check a statement at this size and its wrong twin at the small one, and draw its picture, if it has one."""
    begun, name = time.monotonic(), short_name(statement)
    rows = statement.check(size, statement.RIGHT)
    twin = statement.check(Size.QUICK, statement.WRONG)
    picture = None
    if size is Size.FULL and hasattr(statement, "picture"):
        picture = f"{name}.png"
        statement.picture(folder / picture)
    rejected = sum(not row.holds for row in twin)
    seconds = time.monotonic() - begun
    return Result(name, statement.CLAIM, statement.SOURCE, rows, rejected, len(twin), seconds, picture)


def report(folder: Path = Path("runs/proofs"), size: Size = Size.FULL) -> bool:
    """Check all statements and write the report; True if all of them hold.

    Args:
        folder: where the report goes.
        size: FULL for the report, QUICK for a look in a minute, without pictures.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made_by, begun, console, results = commit(), time.monotonic(), Console(), []
    for statement in statements():
        with console.status(f"checking {short_name(statement)}"):
            results.append(examine(statement, size, folder))
        console.print(_drawn(results[-1]))
    seconds = time.monotonic() - begun
    failed = [result.name for result in results if not result.holds]
    count = sum(len(result.rows) for result in results)
    verdict = f"failing: {', '.join(failed)}" if failed else "all hold"
    total = f"{len(results)} statements, {count} rows, {seconds:.0f} s at size {size.name}, commit {made_by}: {verdict}"
    (folder / "report.md").write_text(_markdown(results, total), encoding="utf-8")
    page = folder / "report.html"
    page.write_text(_page(results, total), encoding="utf-8")
    console.print(f"{total}. Open {page.resolve()}", style="bold red" if failed else "bold green")
    return not failed


def _cells(row: Row) -> tuple[str, ...]:
    verdict = "holds" if row.holds else "FAILS"
    numbers = f"{row.measured:.8g}", f"{row.expected:.8g}", f"{row.tolerance:.3g}"
    return row.what, *numbers, verdict, row.basis


def _drawn(result: Result) -> Table:
    table = Table(
        title=f"{result.name} ({result.source})\n{result.claim}",
        caption=result.summary,
        caption_style="dim" if result.holds else "bold red",
        title_justify="left",
        caption_justify="left",
        expand=True,
    )
    for heading in HEADER:
        table.add_column(heading, justify="right" if heading in HEADER[1:4] else "left", overflow="fold")
    for row in result.rows:
        table.add_row(*_cells(row), style=None if row.holds else "bold red")
    return table


def _markdown(results: list[Result], total: str) -> str:
    lines = ["# Statements of the theory, checked by computation", "", f"{total}.", ""]
    for result in results:
        lines += [f"## {result.name}", "", f"{result.claim} ({result.source}).", ""]
        lines += ["| " + " | ".join(HEADER) + " |", "|---" * len(HEADER) + "|"]
        lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in _cells(row)) + " |" for row in result.rows]
        lines += ["", f"{result.summary[0].upper()}{result.summary[1:]}.", ""]
        if result.picture:
            lines += [f"![{result.name}]({result.picture})", ""]
    return "\n".join(lines)


def _page(results: list[Result], total: str) -> str:
    parts = [
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Statements</title>',
        f"<style>{STYLE}</style><h1>Statements of the theory, checked by computation</h1><p>{html.escape(total)}.</p>",
    ]
    heading = "".join(f"<th>{name}</th>" for name in HEADER)
    for result in results:
        parts.append(f"<h2>{result.name}</h2><p>{html.escape(result.claim)} ({html.escape(result.source)}).</p>")
        parts.append(f"<table><tr>{heading}</tr>")
        for row in result.rows:
            mark = "" if row.holds else ' class="fails"'
            parts.append(f"<tr{mark}>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in _cells(row)) + "</tr>")
        mark = "" if result.holds else ' class="fails"'
        parts.append(f"</table><p{mark}>{result.summary[0].upper()}{html.escape(result.summary[1:])}.</p>")
        if result.picture:
            parts.append(f'<img src="{result.picture}" alt="{result.name}">')
    return "\n".join([*parts, "</html>\n"])


if __name__ == "__main__":
    sys.exit(0 if tyro.cli(report) else 1)
