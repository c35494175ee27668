"""What became of every picture file, in lines and as JSON."""

import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path

from asyncpatch.data.prepare import Look, Photographs


def describe_looks(found: Photographs) -> Iterator[str]:
    """A line for each file, and one of counts."""
    taken = [look for look in found.looks if not look.left_out]
    for look in found.looks:
        held_out = "held out " if look.sha256 in found.held_out else "trained on"
        yield f"{'left out' if look.left_out else held_out:10} {look.path}: {look.left_out or _figures(look)}"
    yield (
        f"{len(found.looks)} files: {len(taken)} photographs ({len(found.held_out)} held out), "
        f"{len(found.looks) - len(taken)} left out"
    )


def write_looks(path: Path, found: Photographs) -> None:
    """Write the same with digests and figures."""
    pictures = [
        {name: _plain(value) for name, value in dataclasses.asdict(look).items()}
        | {"held_out": look.sha256 in found.held_out}
        for look in found.looks
    ]
    path.write_text(json.dumps(pictures, indent=1) + "\n", encoding="utf-8")


def _figures(look: Look) -> str:
    return f"{look.width}x{look.height}, flat {look.flat:.3f}, colours {look.colours:.3f}"


def _plain(value: object) -> object:
    """JSON has no NaN."""
    return None if isinstance(value, float) and math.isnan(value) else value
