"""Running a command: arguments off the command line, and errors of the user's in one line.

    error: there is no run at runs/nothing; give the folder of a run, ...

Whoever gave a wrong argument wants to know what was wrong, and not where in the code it was found: `--debug`, anywhere
on the line, shows that. An error that no user can cause keeps its traceback. Status 1 is an error, 2 a command line
that is not understood, 130 an interruption: starting the command again changes nothing. Status 75, as in sysexits.h, is
a failure that may pass (a full disk, a bucket or a device that is gone, too little memory, another training that still
holds the folder, and of several processes (`asyncpatch.train.processes`) one that did not come or that left), after
which the same command may do better. Whatever kills a process from outside leaves a status above 130.
"""

import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax
import tyro

from asyncpatch.data import WorkerError
from asyncpatch.train import AbsentError, CheckpointError, FolderInUseError, NonFiniteLossError, agree, joined, leave

DEBUG = "--debug"

TRY_AGAIN = 75
"""The status of a failure that may pass: EX_TEMPFAIL."""

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
        leave(TRY_AGAIN if may_pass(error) else 1)


def may_pass(error: BaseException) -> bool:
    """Whether the same command may do better later: the machine failed, and not what it was told."""
    if isinstance(error, NonFiniteLossError | CheckpointError | FileNotFoundError | NotADirectoryError):
        return False
    return isinstance(
        error, OSError | MemoryError | FolderInUseError | WorkerError | AbsentError | jax.errors.JaxRuntimeError
    )


def in_one_line(error: BaseException) -> str:
    """What an error says; its kind, where it says nothing."""
    said = str(error)
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        said = f"{error.filename}: {error.strerror}"
    return " ".join(said.split()) or type(error).__name__
