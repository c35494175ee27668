"""List the commands: python -m experiments"""

import ast
from pathlib import Path

FOLDER = Path(__file__).parent


def commands() -> dict[str, str]:
    """Every command and the first line of what it says of itself, without importing any."""
    files = sorted(path for path in FOLDER.glob("*.py") if not path.stem.startswith("__"))
    return {path.stem: first_line(path) for path in files}


def first_line(path: Path) -> str:
    """The first line of a file's docstring."""
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]


if __name__ == "__main__":
    found = commands()
    width = max(map(len, found))
    print("Run one as python -m experiments.NAME; each explains itself with --help.\n")
    for name, line in found.items():
        print(f"  {name:{width}}  {line}")
