"""What can be run is what is listed, explains itself, and the results that are kept obey one rule."""

import ast
import re
import subprocess
import sys

import pytest

from experiments.__main__ import FOLDER, commands
from experiments.parts.tables import MOST_GRIDS

ROOT = FOLDER.parent
RESULTS = FOLDER / "results"
COMMANDS = sorted(commands())


def test_every_file_is_a_command_and_every_command_is_listed():
    listed = subprocess.run([sys.executable, "-m", "experiments"], cwd=ROOT, capture_output=True, text=True, check=True)
    for path in FOLDER.glob("*.py"):
        if path.stem.startswith("__"):
            continue
        assert 'if __name__ == "__main__":' in path.read_text(), f"{path.name} is no command"
        assert re.search(rf"^  {path.stem} +\S", listed.stdout, re.MULTILINE)
    assert len(re.findall(r"^  \w", listed.stdout, re.MULTILINE)) == len(COMMANDS)


def test_what_is_shared_is_no_command():
    assert not [path.name for path in (FOLDER / "parts").glob("*.py") if "__main__" in path.read_text()]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_opens_with_its_command_line(name):
    says = ast.get_docstring(ast.parse((FOLDER / f"{name}.py").read_text()))
    assert says is not None
    first, blank, *rest = says.splitlines()
    assert first.endswith((".", ":", "miniature."))
    assert not blank
    assert f"    python -m experiments.{name}" in "\n".join(rest)


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.py")), ids=lambda path: path.stem)
def test_no_file_is_longer_than_a_sitting(path):
    assert len(path.read_text().splitlines()) <= 300


def test_results_are_kept_by_the_rule():
    """Rows, one report with its pictures, at most twelve grids a table, 6 MB in all."""
    files = [path for path in RESULTS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 6e6
    for rows in RESULTS.rglob("rows.jsonl"):
        assert len(list(rows.parent.glob("*.png"))) <= MOST_GRIDS


@pytest.mark.parametrize("page", sorted(RESULTS.rglob("index.html")), ids=lambda page: page.parts[-3])
def test_pictures_of_published_reports_are_there(page):
    pictures = re.findall(r'src="([^"]+)"', page.read_text())
    assert pictures
    assert not [picture for picture in pictures if not (page.parent / picture).is_file()]
