"""Filling a file with rows: those that it holds are not made again, so that a command goes on where it was stopped.

Every command that measures many settings says which rows it wants and what makes each, and this is the loop over them.

Several processes make a row together, and the first writes it.

Invariant: a row that was made is in the file, whole, before the next one is begun.
"""

import dataclasses
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import jax

from asyncpatch.train import commit
from experiments.parts.rows import append_row, read_rows


@dataclasses.dataclass(frozen=True)
class Wanted:
    """A row: what it is called while it is made, its settings, and what makes the rest of it.

    Two rows are the same if all settings are, written as JSON. What `make` returns has `values`: for every metric an
    estimate, a value and its standard error, None where that is not known.
    """

    line: str
    settings: dict
    make: Callable[[], dict]
    picture: Path | None = None
    """A file that `make` writes beside the row, which is nothing without it."""


def fill(file: Path, wanted: Sequence[Wanted]) -> list[dict]:
    """The rows of these settings, in this order; those that the file does not hold are made and appended.

    Of a row that is made the seconds, commit and device are noted too.
    """
    rows, found = read_rows(file), []
    begun, made = time.monotonic(), 0
    for number, one in enumerate(wanted, start=1):
        row = _held(rows, one)
        if row is not None:
            print(f"row {number} of {len(wanted)}: {file} holds this row already: {one.line}", flush=True)
            found.append(row)
            continue
        print(f"row {number} of {len(wanted)}: {one.line}", flush=True)
        # On every process alike: what is no JSON is an error before anything is written.
        row = json.loads(json.dumps(_made(one), allow_nan=False))
        if jax.process_index() == 0:
            append_row(file, row)
        found.append(row)
        rows.append(row)
        made += 1
        left = (time.monotonic() - begun) * (len(wanted) - number) / made
        said = ", ".join(f"{name} {values['value']:.4g}" for name, values in row["values"].items())
        print(f"  {said}; {row['seconds']} s, at most {left:.0f} s left", flush=True)
    return found


def _held(rows: list[dict], wanted: Wanted) -> dict | None:
    """The newest row of these settings."""
    if wanted.picture is not None and not wanted.picture.is_file():
        return None
    settings = json.loads(json.dumps(wanted.settings))
    missing = object()
    same = (row for row in reversed(rows) if all(row.get(name, missing) == value for name, value in settings.items()))
    return next(same, None)


def _made(wanted: Wanted) -> dict:
    begun = time.monotonic()
    return (
        wanted.settings
        | wanted.make()
        | {
            "seconds": round(time.monotonic() - begun, 1),
            "commit": commit(),
            "device": f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores, jax {jax.__version__}",
        }
    )
