"""One shard of prepared images: made in one go, under a temporary name until it is whole.

Beside each shard lies a report, a JSON file that says how many records of each class it holds, its sha256, and which
originals were damaged and why. The report is written last, so a shard that has one was finished.

Invariant: a shard depends on its originals and the size alone. Who makes it, when, and after how many attempts, leaves
no trace in it.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from array_record.python.array_record_module import (  # ty: ignore[import-not-found]  (compiled)
    ArrayRecordReader,
    ArrayRecordWriter,
)

from asyncpatch.data.convert import WRITER_OPTIONS
from asyncpatch.data.images import read_image
from asyncpatch.data.prepare.originals import AbstractOriginal
from asyncpatch.data.record_format import encode_record
from asyncpatch.image_files import ImageFileError


@dataclasses.dataclass(frozen=True)
class ShardPlan:
    """What a shard is made of, and where it goes."""

    path: Path
    originals: tuple[AbstractOriginal, ...]
    size: int

    @property
    def report_path(self) -> Path:
        return self.path.with_suffix(".json")


@dataclasses.dataclass(frozen=True)
class ShardReport:
    """What came of it. `per_class` counts records by label; `damaged` gives the reason by name."""

    sha256: str
    per_class: dict[int, int]
    damaged: dict[str, str]

    @property
    def count(self) -> int:
        return sum(self.per_class.values())

    def write(self, path: Path) -> None:
        """Write it whole or not at all."""
        write_json(path, dataclasses.asdict(self))

    @classmethod
    def read(cls, path: Path) -> "ShardReport | None":
        """Read it, if it is there and whole."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return cls(content["sha256"], {int(k): v for k, v in content["per_class"].items()}, content["damaged"])
        except (FileNotFoundError, ValueError, KeyError):
            return None


def make_shard(plan: ShardPlan, advance: Callable[[int], None]) -> ShardReport:
    """Make the shard unless it is whole already. `advance` is told how many more images are done."""
    report = _report_if_whole(plan)
    if report is not None:
        advance(len(plan.originals))
        return report
    partial = plan.path.with_name(f".{plan.path.name}.partial")
    per_class, damaged = Counter[int](), dict[str, str]()
    with contextlib.closing(ArrayRecordWriter(str(partial), WRITER_OPTIONS)) as writer:
        for original in plan.originals:
            try:
                content = _encode(original, plan.size)
            except DamagedError as error:
                damaged[original.name] = str(error)
            else:
                writer.write(content)
                per_class[original.label] += 1
            advance(1)
    _check_length(partial, per_class.total())
    report = ShardReport(sha256_of(partial), dict(sorted(per_class.items())), damaged)
    partial.replace(plan.path)
    report.write(plan.report_path)
    return report


class DamagedError(ValueError):
    """An original cannot be decoded."""


def _encode(original: AbstractOriginal, size: int) -> bytes:
    """The record of an original. A disk or server that fails raises `OSError`; only what was read can be damaged."""
    try:
        content = original.read()
    except OSError as error:
        raise OSError(error.errno, f"{original.name} cannot be read: {error.strerror}", error.filename) from error
    except ValueError as error:
        raise DamagedError(str(error)) from error
    try:
        with warnings.catch_warnings(action="ignore"):  # of broken tags, of which ImageNet has a few
            image = read_image(io.BytesIO(content), size)
    except ImageFileError as error:
        raise DamagedError(str(error)) from error
    return encode_record({"image": image, "label": np.asarray(original.label, np.int32)})


def _report_if_whole(plan: ShardPlan) -> ShardReport | None:
    """The report of a shard that need not be made again: it is as it was written, and no damage has been mended."""
    report = ShardReport.read(plan.report_path)
    if report is None or not plan.path.is_file() or sha256_of(plan.path) != report.sha256:
        return None
    damaged = [original for original in plan.originals if original.name in report.damaged]
    return None if any(_is_sound(original, plan.size) for original in damaged) else report


def _is_sound(original: AbstractOriginal, size: int) -> bool:
    try:
        _encode(original, size)
    except DamagedError:
        return False
    return True


def _check_length(path: Path, count: int) -> None:
    """Raise `OSError` unless the file holds what was written: a full disk may cut it."""
    try:
        with contextlib.closing(ArrayRecordReader(str(path))) as reader:
            found = reader.num_records()
    except RuntimeError as error:
        raise OSError(f"{path} was not written whole ({error}); free some disk space, and start again") from error
    if found != count:
        raise OSError(f"{path} holds {found} of {count} records; free some disk space, and start again")


def sha256_of(path: Path) -> str:
    """The checksum of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, content: object) -> None:
    """Write `content` to `path`, under a temporary name until it is whole."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)
