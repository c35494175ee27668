"""The floors of the package: imports go down only (`[tool.importlinter]` in `pyproject.toml`).

The contracts hold for the package as it is, and break for copies of it with one import, or one room, too many.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

DOWN_ONLY = "Imports go down only"
STANDS_ON = "Nothing imports what stands on the package"

WRONG_TWINS = {
    "up a floor": ("shapes.py", "import asyncpatch.tokens", DOWN_ONLY),
    "up, inside a function": ("plans/fixed.py", "def late():\n    import asyncpatch.train", DOWN_ONLY),
    "between siblings": ("losses/denoising.py", "import asyncpatch.plans", DOWN_ONLY),
    "of an experiment": ("train/loop.py", "import experiments", STANDS_ON),
    "of a room without a floor": ("helpers.py", "", DOWN_ONLY),
}


def check_floors(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter on the package and `pyproject.toml` in `folder`."""
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()", "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_imports_go_down_only():
    result = check_floors(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("twin", WRONG_TWINS)
def test_wrong_imports_are_caught(tmp_path, twin):
    file, line, contract = WRONG_TWINS[twin]
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / "asyncpatch", tmp_path / "asyncpatch")
    with (tmp_path / "asyncpatch" / file).open("a") as module:
        module.write(f"\n{line}\n")
    result = check_floors(tmp_path)
    assert result.returncode == 1, result.stdout + result.stderr
    assert f"{contract} BROKEN" in result.stdout
