"""The index of a prepared folder: what it holds, and the checksums to verify it by."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from asyncpatch.data.prepare.shards import ShardPlan, ShardReport, sha256_of

INDEX = "index.json"


def summary(plans: list[ShardPlan], reports: list[ShardReport], classes: int) -> dict[str, Any]:
    """What the index says of a split that has been made."""
    per_class = Counter[int]()
    for report in reports:
        per_class.update(report.per_class)
    return {
        "records": per_class.total(),
        "per_class": [per_class[label] for label in range(classes)],
        "shards": [
            {"file": plan.path.name, "records": report.count, "sha256": report.sha256}
            for plan, report in zip(plans, reports, strict=True)
        ],
        "damaged": {name: reason for report in reports for name, reason in report.damaged.items()},
    }


def total_checksum(splits: Mapping[str, Any]) -> str:
    """One checksum of all shards, by which two prepared folders can be compared."""
    content = "".join(
        f"{shard['sha256']}  {split}/{shard['file']}\n" for split in splits for shard in splits[split]["shards"]
    )
    return hashlib.sha256(content.encode()).hexdigest()


def check_prepared(output: str | Path) -> dict[str, Any]:
    """Compare every shard below `output` with its checksum in `index.json`, and return what that says.

    Raises `ValueError` that names each shard which differs or is missing.
    """
    path = Path(output) / INDEX
    if not path.is_file():
        raise FileNotFoundError(f"no {INDEX} in {output}; it is written when all is prepared: start the run again")
    index = json.loads(path.read_text(encoding="utf-8"))
    shards = [
        (Path(output) / split / shard["file"], shard["sha256"])
        for split, content in index["splits"].items()
        for shard in content["shards"]
    ]
    wrong = [str(shard) for shard, checksum in shards if not shard.is_file() or sha256_of(shard) != checksum]
    if wrong:
        raise ValueError(
            f"{len(wrong)} of {len(shards)} shards are not what was prepared: {', '.join(wrong)}; copy them again, or "
            "start the preparation again"
        )
    return index
