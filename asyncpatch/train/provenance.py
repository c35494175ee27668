"""Which code made a number, a checkpoint or a file."""

import subprocess
from pathlib import Path

import asyncpatch


def release() -> str:
    """The release of this package."""
    return asyncpatch.__version__


def commit() -> str:
    """The commit of the checkout that this package runs from, with `+` if it has changes; `unknown` outside of one."""
    root = Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout.strip()

    try:
        # An installed package may lie inside of somebody else's checkout.
        if not git("ls-files", "asyncpatch/__init__.py"):
            return "unknown"
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
