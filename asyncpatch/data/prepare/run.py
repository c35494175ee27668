"""From a listed collection to a folder that `ArrayRecords` opens, in as many runs as it takes.

    output/recipe.json     what is being made, written first: another recipe is refused
    output/train/          shards and their reports; when all are whole also dataset.json, and ArrayRecords opens it
    output/val/            the same
    output/index.json      written last: counts for each class, checksums of all shards, damaged originals with reasons

Shard `k` holds a fixed share of the listing, so the bytes are the same for any number of workers and for any number of
runs that were killed on the way. A run checks the shards that are there and makes the others.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from asyncpatch.data.prepare.index import INDEX, summary, total_checksum
from asyncpatch.data.prepare.originals import AbstractOriginal, Collection
from asyncpatch.data.prepare.pool import make_shards
from asyncpatch.data.prepare.recipe import begin, make_recipe, only_run
from asyncpatch.data.prepare.shards import ShardPlan, ShardReport, write_json
from asyncpatch.data.record_format import Sidecar, shard_names

logger = logging.getLogger(__name__)

IMAGES_PER_SHARD = 8192  # about a minute of one core's work is lost when a run is killed
NAMES_IN_ERROR = 5  # the log and the reports name every file, the error only the first


def prepare(
    collection: Collection,
    size: int,
    output: str | Path,
    *,
    workers: int = 0,
    max_corrupt_share: float = 0.0,
    images_per_shard: int = IMAGES_PER_SHARD,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Write all splits of `collection` at `size x size` below `output`, and return what `index.json` then says.

    Call it again with the same arguments after an interruption: it goes on where it stopped. `workers` processes work
    beside this one, and a program that uses them needs the usual `if __name__ == "__main__":`; with 0, this one does
    the work. More than `max_corrupt_share` of damaged images in a split is an error, after all have been tried.
    `progress` is told how many images are done, and of how many.
    """
    _check_arguments(collection, size, workers, max_corrupt_share, images_per_shard)
    output = Path(output)
    recipe = make_recipe(collection, size, images_per_shard)
    with only_run(output):
        begin(output, recipe)
        plans = {
            split: _plan(output / split, originals, size, images_per_shard)
            for split, originals in collection.splits.items()
        }
        made = iter(make_shards([plan for part in plans.values() for plan in part], workers, progress))
        reports = {split: [next(made) for _ in part] for split, part in plans.items()}
        for split, part in reports.items():
            _check_damage(split, part, len(collection.splits[split]), max_corrupt_share)
        return _finish(output, collection, recipe, plans, reports)


def _plan(folder: Path, originals: Sequence[AbstractOriginal], size: int, images_per_shard: int) -> list[ShardPlan]:
    folder.mkdir(exist_ok=True)
    starts = range(0, len(originals), images_per_shard)
    return [
        ShardPlan(folder / name, tuple(originals[start : start + images_per_shard]), size)
        for name, start in zip(shard_names(len(starts)), starts, strict=True)
    ]


def _check_damage(split: str, reports: list[ShardReport], total: int, max_corrupt_share: float) -> None:
    """Name every damaged original in the log; raise `ValueError` if there are too many."""
    damaged = {name: reason for report in reports for name, reason in report.damaged.items()}
    for name, reason in damaged.items():
        logger.warning("left out damaged image %s of %s (%s)", name, split, reason)
    if len(damaged) > max_corrupt_share * total:
        first = ", ".join(f"{name} ({reason})" for name, reason in list(damaged.items())[:NAMES_IN_ERROR])
        raise ValueError(
            f"{len(damaged)} of {total} images of {split} are damaged, more than the share of {max_corrupt_share} "
            f"allowed; the first are {first}: mend them, or raise max_corrupt_share, and start again: what is whole "
            "is kept"
        )


def _finish(
    output: Path,
    collection: Collection,
    recipe: dict[str, Any],
    plans: dict[str, list[ShardPlan]],
    reports: dict[str, list[ShardReport]],
) -> dict[str, Any]:
    """Write what makes the splits readable, and the index."""
    names, size = collection.class_names, recipe["size"]
    splits = {}
    for split, part in reports.items():
        splits[split] = recipe["splits"][split] | summary(plans[split], part, len(names))
        Sidecar(splits[split]["records"], (size, size, 3), names, len(part)).write(output / split)
    index = recipe | {"class_names": list(names), "splits": splits, "sha256": total_checksum(splits)}
    write_json(output / INDEX, index)
    return index


def _check_arguments(
    collection: Collection, size: int, workers: int, max_corrupt_share: float, images_per_shard: int
) -> None:
    if size < 1:
        raise ValueError(f"size must be at least 1 pixel, got {size}; give the side of the square images")
    if workers < 0:
        raise ValueError(f"workers must be 0 (this process) or more, got {workers}; give the number of processes")
    if not 0 <= max_corrupt_share < 1:
        raise ValueError(f"max_corrupt_share must lie in [0, 1), got {max_corrupt_share}; 0.01 allows one in a hundred")
    if images_per_shard < 1:
        raise ValueError(f"images_per_shard must be at least 1, got {images_per_shard}; give some thousands")
    empty = [split for split, originals in collection.splits.items() if not originals]
    if empty:
        raise ValueError(f"{collection.title} has no images in {', '.join(empty)}; drop the split or fill it")
