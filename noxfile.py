"""The tasks of this project, each in one command. Nothing else needs to be installed: `pip install nox` first.

All sessions share one environment, made by the session `environment` from `requirements.lock`, hashes checked.
What follows `--` goes to the program that a session runs: `nox -s tests -- tests/test_paths.py`.
"""

import sys
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.sessions = ["lint", "types", "floors", "tests"]

LAST_LOCKED_PYTHON = (3, 14)
"""The newest Python that the lock holds builds for; on a later one, the newest releases are installed instead."""

programs: list[Path] = []
"""Where the session `environment` put the programs that the other sessions run."""


@nox.session(reuse_venv=True)
def environment(session: nox.Session) -> None:
    """Make the environment of all other sessions, from the lock."""
    if sys.version_info[:2] <= LAST_LOCKED_PYTHON:
        session.install("--require-hashes", "-r", "requirements.lock")
        session.install("--no-deps", "--no-build-isolation", "-e", ".")
    else:
        session.install("-e", ".[dev,metrics,data,notebooks]")
    programs.append(Path(session.bin))


def run(session: nox.Session, program: str, *arguments: str) -> None:
    session.run(str(programs[0] / program), *arguments, external=True)


def run_files(session: nox.Session, folder: str, pattern: str, *options: str) -> None:
    """Run the tests of a folder outside `tests/`, or say that it has none."""
    if not any(Path(folder).glob(pattern)):
        session.skip(f"no file matches {folder}/{pattern} yet, so nothing was checked")
    run(session, "python", "-m", "pytest", *options, folder, *session.posargs)


@nox.session(venv_backend="none", requires=["environment"])
def lint(session: nox.Session) -> None:
    """Check style and formatting."""
    run(session, "ruff", "check", ".")
    run(session, "ruff", "format", "--check", ".")


@nox.session(venv_backend="none", requires=["environment"])
def types(session: nox.Session) -> None:
    """Check types without running anything."""
    run(session, "ty", "check", "--python", str(programs[0] / "python"), "asyncpatch", "experiments")


@nox.session(venv_backend="none", requires=["environment"])
def floors(session: nox.Session) -> None:
    """Check that imports go down only."""
    run(session, "lint-imports")


@nox.session(venv_backend="none", requires=["environment"])
def tests(session: nox.Session) -> None:
    """Run the tests, with shapes and types checked at run time, one file to a process."""
    several = ("-n", "auto", "--maxprocesses", "4", "--dist", "loadfile")
    run(session, "python", "-m", "pytest", "-q", *several, *session.posargs)


@nox.session(venv_backend="none", requires=["environment"])
def quickstart(session: nox.Session) -> None:
    """Run the main job: train a small model and sample from it."""
    run(session, "python", "-m", "experiments.quickstart", *session.posargs)


@nox.session(venv_backend="none", requires=["environment"])
def bench(session: nox.Session) -> None:
    """Measure speed."""
    run(session, "python", "-m", "experiments.bench", *session.posargs)


@nox.session(venv_backend="none", requires=["environment"])
def proofs(session: nox.Session) -> None:
    """Check the statements of the theory by computation, and write a report to `runs/proofs`."""
    run(session, "python", "-m", "proofs_check.report", *session.posargs)


@nox.session(venv_backend="none", requires=["environment"])
def notebooks(session: nox.Session) -> None:
    """Run every notebook from its first cell to its last."""
    run_files(session, "notebooks", "*.ipynb", "--nbmake")
