"""Running a command: arguments off the command line, and errors of the user's in one line.

    error: there is no run at runs/nothing; give the folder of a run, ...

Whoever gave a wrong argument wants to know what was wrong, and not where in the code it was found: `--debug`, anywhere
on the line, shows that. An error that no user can cause keeps its traceback. Status 1 is an error, 2 a command line
that is not understood, 130 an interruption. Of several processes (`asyncpatch.train.processes`) one that another left
alone ends with status 75.
"""

import sys
from collections.abc import Callable, Mapping
from typing import Any

import tyro

from asyncpatch.train import agree, joined, leave

DEBUG = "--debug"

USERS_ERRORS = (ValueError, OSError, RuntimeError, ArithmeticError, MemoryError, ModuleNotFoundError)
"""What settings, files, data and machines lead to. A `TypeError` or an `AttributeError` is a mistake of ours."""


def run_command(command: Callable[..., Any] | Mapping[str, Callable[..., Any]]) -> None:
    """Run a function, or the one of several that the first argument names, as the command line says."""
    arguments = [argument for argument in sys.argv[1:] if argument != DEBUG]
    try:
        with joined():
            agree({"command": arguments})
            if isinstance(command, Mapping):
                tyro.extras.subcommand_cli_from_dict(dict(command), args=arguments)
            else:
                tyro.cli(command, args=arguments)
    except (KeyboardInterrupt, *USERS_ERRORS) as error:
        if DEBUG in sys.argv[1:]:
            raise
        if isinstance(error, KeyboardInterrupt):
            leave(130)
        print(f"error: {in_one_line(error)} ({DEBUG} shows where)", file=sys.stderr, flush=True)
        leave(1)


def in_one_line(error: BaseException) -> str:
    """What an error says; its kind, where it says nothing."""
    said = str(error)
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        said = f"{error.filename}: {error.strerror}"
    return " ".join(said.split()) or type(error).__name__
