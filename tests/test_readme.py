"""README and docs tell the truth: the program runs as it stands, commands are ones that exist, links lead somewhere."""

import ast
import contextlib
import functools
import importlib
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import tyro
from PIL import Image as Pillow

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "docs/README.md",
    "docs/theory.md",
    "docs/results.md",
    "docs/data.md",
    "docs/long_runs.md",
    "docs/tpu.md",
]
LONGEST = 10
"""Lines of the README's program."""


def program_of_the_readme() -> str:
    (program,) = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    return program


def documented_commands() -> list[str]:
    """Every command line of README, docs and the commands' own docstrings, continued lines joined."""
    text = "\n".join((ROOT / page).read_text() for page in PAGES)
    for path in sorted((ROOT / "experiments").glob("*.py")):
        text += "\n" + (ast.get_docstring(ast.parse(path.read_text())) or "")
    found = re.findall(r"(?:^ *|`)python -m (experiments\.\w+(?:[^\n`#\\]|\\\n)*)", text, re.MULTILINE)
    found = [line for line in found if "NAME" not in line]
    return sorted({re.sub(r"\\\n", " ", line).strip() for line in found})


def test_program_of_the_readme_is_short_and_makes_a_picture(tmp_path, monkeypatch):
    program = program_of_the_readme()
    assert sum(bool(line.strip()) for line in program.splitlines()) <= LONGEST
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(compile(program, "README.md", "exec"), names)
    known, image, made = (np.asarray(names[name]) for name in ("known", "image", "made"))
    assert (made[:, known] == image[:, known]).all()
    error, of_nothing = (np.abs(part - image[:, ~known]).mean() for part in (made[:, ~known], -1.0))
    assert error < of_nothing / 2, "a trained network is much closer than black"
    with Pillow.open(tmp_path / "inpainted.png") as picture:
        assert picture.width > 500


def test_there_are_commands_to_check():
    assert len(documented_commands()) > 20


@pytest.mark.parametrize("line", documented_commands())
def test_documented_commands_are_understood(line, capsys):
    """What they do is tested elsewhere, in small; here, that they take the arguments that are written down."""
    module_name, *arguments = shlex.split(line)
    module = importlib.import_module(module_name)
    name = module_name.rpartition(".")[2]
    if arguments and hasattr(module, arguments[0]):  # a command of several
        name, *arguments = arguments
    function = getattr(module, name, None) or getattr(module, "main", None)
    if function is None or not arguments:
        assert arguments in ([], ["--help"]), "which of its commands?"
        return  # mentioned, or asked about
    if hasattr(module, "with_recipe"):  # its defaults depend on the preset
        function = module.with_recipe(arguments)
    called = []

    @functools.wraps(function)
    def instead(*given, **named):
        called.append(given or named or True)

    with contextlib.suppress(SystemExit):
        tyro.cli(instead, args=arguments)
    assert called or "--help" in arguments, capsys.readouterr().err


def test_pages_name_no_session_that_is_not_there():
    definitions = ast.parse((ROOT / "noxfile.py").read_text()).body
    sessions = {each.name for each in definitions if isinstance(each, ast.FunctionDef) and each.decorator_list}
    said = "\n".join((ROOT / page).read_text() for page in PAGES)
    named = {name for names in re.findall(r"nox -s ([\w ]+)", said) for name in names.split()}
    assert named
    assert named <= sessions


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)]+)\)", (ROOT / page).read_text())
    local = [target.partition("#")[0] for target in targets if not target.startswith("https://")]
    missing = [target for target in local if target and not (ROOT / page).parent.joinpath(target).exists()]
    assert not missing
