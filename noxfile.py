"""The tasks of this project, each in one command. Nothing else needs to be installed: `pip install nox` first.

All sessions share one environment, made by the session `environment` from `requirements.lock`, hashes checked.
What follows `--` goes to the program that a session runs: `nox -s tests -- tests/test_paths.py`.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.sessions = ["lint", "types", "floors", "tests"]

LAST_LOCKED_PYTHON = (3, 14)
"""The newest Python that the lock holds builds for; on a later one, the newest releases are installed instead."""

FASTER_PYTHONS = ("3.13", "3.12")
"""Pythons with a newer JAX than 3.11 has, whose programs run 1.1 to 1.2 times faster on a CPU."""


def newest_python() -> str:
    """A Python that has the newer JAX, on the path or among pyenv's, or else the one that runs nox."""
    if sys.version_info[:2] >= (3, 12):
        return sys.executable
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for version in FASTER_PYTHONS:
        for program in (shutil.which(f"python{version}"), *sorted(pyenv.glob(f"{version}.*/bin/python"))):
            # A shim of pyenv may be there and lead nowhere.
            if program and subprocess.run([program, "-c", "import venv"], capture_output=True).returncode == 0:
                return str(program)
    return sys.executable


PYTHON = newest_python()
"""What the environment of all sessions is made with. `nox --force-python 3.11` takes another."""

NO_CHIP = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v6e-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
"""Keeps the compiler, which looks around as soon as jax is imported, from asking for a machine with chips."""

programs: list[Path] = []
"""Where the session `environment` put the programs that the other sessions run."""


@nox.session(python=PYTHON, reuse_venv=True)
def environment(session: nox.Session) -> None:
    """Make the environment that all sessions share, from the lock."""
    if sys.version_info[:2] <= LAST_LOCKED_PYTHON:
        session.install("--require-hashes", "-r", "requirements.lock")
        session.install("--no-deps", "--no-build-isolation", "-e", ".")
    else:
        session.install("-e", ".[dev,metrics,data,notebooks]")
    programs.append(Path(session.bin))


def run(session: nox.Session, program: str, *arguments: str) -> None:
    session.run(str(programs[0] / program), *arguments, external=True)


@nox.session(venv_backend="none", requires=["environment"])
def lint(session: nox.Session) -> None:
    """Check style and formatting (seconds)."""
    run(session, "ruff", "check", ".")
    run(session, "ruff", "format", "--check", ".")


@nox.session(venv_backend="none", requires=["environment"])
def types(session: nox.Session) -> None:
    """Check types without running anything (seconds)."""
    run(session, "ty", "check", "--python", str(programs[0] / "python"), "asyncpatch", "experiments")


@nox.session(venv_backend="none", requires=["environment"])
def floors(session: nox.Session) -> None:
    """Check that imports go down only (seconds)."""
    run(session, "lint-imports")


@nox.session(venv_backend="none", requires=["environment"])
def tests(session: nox.Session) -> None:
    """Run the tests, with shapes and types checked at run time (about 20 minutes on two cores)."""
    several = ("-n", "auto", "--maxprocesses", "4", "--dist", "loadfile")
    run(session, "python", "-m", "pytest", "-q", *several, *session.posargs)


@nox.session(venv_backend="none", requires=["environment"])
def notebooks(session: nox.Session) -> None:
    """Run every notebook from its first cell to its last (part of the tests)."""
    run(session, "python", "-m", "pytest", "tests/test_notebooks.py", *session.posargs)


@nox.session(venv_backend="none", requires=["environment"])
def proofs(session: nox.Session) -> None:
    """Check every statement of the theory by computation; report in runs/proofs (an hour)."""
    run(session, "python", "-m", "proofs_check.report", *session.posargs)


@nox.session(python=PYTHON)
def package(session: nox.Session) -> None:
    """Install the package alone, and draw the README's first picture in an empty folder."""
    session.install(".")
    (program,) = re.findall(r"^```python\n(.*?)^```$", Path("README.md").read_text(encoding="utf-8"), re.M | re.S)
    empty = Path(session.create_tmp()) / "empty"
    shutil.rmtree(empty, ignore_errors=True)
    empty.mkdir(parents=True)
    with session.chdir(empty):
        session.run("python", "-c", program + "\nprint(run)")
    session.log(f"the picture is {(empty / 'inpainted.png').resolve(strict=True)}")


@nox.session(venv_backend="none", requires=["environment"])
def quickstart(session: nox.Session) -> None:
    """Train a small model on digits and sample from it in four ways (three minutes)."""
    run(session, "python", "-m", "experiments.quickstart", *session.posargs)


@nox.session(venv_backend="none", requires=["environment"])
def bench(session: nox.Session) -> None:
    """Measure speed, side by side with peers where they are installed (a quarter of an hour)."""
    run(session, "python", "-m", "experiments.bench", *session.posargs)


@nox.session(python=PYTHON, reuse_venv=True)
def compile_tpu(session: nox.Session) -> None:
    """Compile the 60M and 600M presets for a slice of TPU chips, without one (an hour; see docs/tpu.md)."""
    session.install("--require-hashes", "-r", "requirements.lock")
    session.install("--no-deps", "--no-build-isolation", "-e", ".")
    # The compiler for TPUs that belongs to the jax of the lock: 200 MB, which no other session needs.
    jax = session.run("python", "-c", "import jax; print(jax.__version__)", silent=True)
    session.install(f"jax[tpu]=={str(jax).split()[-1]}")
    arguments = session.posargs or ("fit", "runs/compile_tpu/rows.jsonl")
    session.run("python", "-m", "experiments.compile_tpu", *arguments, env=NO_CHIP)
