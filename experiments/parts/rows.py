"""Rows of evaluation: what may be asked for, under names that stay, and the file that rows are kept in.

A row holds the config of its run, which is as long as the rest and the same in every row of that run: the file has it
in the first of them, and its hash in the others.
"""

import copy
import dataclasses
import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path

from asyncpatch.config import register, to_json, with_present_names
from asyncpatch.masks import Extrema, Square, Thin, Wide
from asyncpatch.ranges import check_counts, check_guidance, check_number, check_seed, check_share
from asyncpatch.runs import RuleName, rule_class


@dataclasses.dataclass(frozen=True)
class Together:
    """All pixels that are to be made, at once: the ordinary sampler."""


@dataclasses.dataclass(frozen=True)
class Patches:
    """Patches in raster order, each sharing a part of its steps with the next one."""

    patch: int = 8
    overlap: float = 0.5

    def __post_init__(self):
        check_counts(patch=self.patch)
        check_share("overlap", self.overlap)


@dataclasses.dataclass(frozen=True)
class RePaint:
    """The baseline for networks with one time per image.

    Steps are its levels: it makes more calls than that.
    """

    jump_length: int = 10
    resamplings: int = 10

    def __post_init__(self):
        check_counts(jump_length=self.jump_length, resamplings=self.resamplings)


@dataclasses.dataclass(frozen=True)
class Trailing:
    """All pixels that are to be made, at once; the known ones at a share of their times, and not clean."""

    share: float = 0.5

    def __post_init__(self):
        check_share("share", self.share)


@dataclasses.dataclass(frozen=True)
class Replacement:
    """All pixels at one time, the known ones noised to it: what a network with one time per image can do in as few
    calls as the others. RePaint without resampling.
    """


@dataclasses.dataclass(frozen=True)
class Generation:
    """Images from noise, every class in turn."""

    count: int | None = None
    """1,000 if not given, or as many as the data holds out, where it is fewer."""
    order: Together | Patches = Together()

    def __post_init__(self):
        if self.count is not None:
            check_counts(count=self.count)


@dataclasses.dataclass(frozen=True)
class Inpainting:
    """Held-out images, a part of which is hidden and made anew, given the image's label."""

    masks: Square | Extrema | Thin | Wide = dataclasses.field(default_factory=Square)
    count: int | None = None
    """256 if not given, or as many as the data holds out, where it is fewer."""
    mask_seed: int = 0
    method: Together | Trailing | Patches | Replacement | RePaint = Together()

    def __post_init__(self):
        if self.count is not None:
            check_counts(count=self.count)
        check_number("mask_seed", self.mask_seed, lambda seed: 0 <= seed < 2**32, "in [0, 2^32)")


@dataclasses.dataclass(frozen=True)
class Steps:
    """How samples are drawn, whatever the task."""

    steps: int = 40
    guidance: float = 1.0
    """Weight of classifier-free guidance: 1 is off."""
    input_guidance: float = 0.0
    """Weight of guidance by the clean pixels: 0 is off."""
    noisier: float | None = 1.0
    """Time that they are noised to in the look to get away from; None is that of the noisiest pixel."""
    eta: float = 0.5
    """Share of fresh noise in each step: 0.5 is the paper's c = 0.25; RePaint has a share of 1."""
    seed: int = 0
    rule: RuleName = "ddim"
    """How a step is made: the others are of second order, and `heun` draws no noise: it needs `eta` 0."""
    shift: float = 1.0
    """Of the times of all steps: above 1 more steps go to high noise, 1 is an even grid."""

    def __post_init__(self):
        check_counts(steps=self.steps)
        check_guidance(self.guidance)
        check_guidance(self.input_guidance, "input_guidance", off=0.0)
        if self.noisier is not None:
            check_share("noisier", self.noisier)
        check_share("eta", self.eta)
        check_seed(self.seed)
        check_number("shift", self.shift, lambda shift: shift > 0, "above 0")
        rule_class(self.rule, self.eta)

    @property
    def calls(self) -> int:
        """Network calls of one image, those of every branch of guidance counted."""
        return self.steps * rule_class(self.rule, self.eta).calls * self.branches

    @property
    def branches(self) -> int:
        """Of guidance: with the label and without, with the clean pixels and without."""
        return (1 if self.guidance == 1 else 2) * (1 if self.input_guidance == 0 else 2)


for setting in (Together, Patches, RePaint, Trailing, Replacement, Generation, Inpainting, Steps):
    register(setting, former=(f"experiments.evaluate.{setting.__name__}",))


def read_rows(path: Path) -> list[dict]:
    """The rows of a file, none if it is not there. A line that a killed run left half written is skipped.

    An error that is not known is None, also in rows of former releases, which wrote NaN or a value alone. Settings that
    they did not have are at their defaults. Raises `ValueError` for a row whose config is in none.
    """
    rows = []
    for row in _with_configs(_whole_lines(path), path):
        row = with_present_names(row)
        if "how" in row:
            row["how"] = to_json(Steps()) | row["how"]
        for name, value in row.get("values", {}).items():
            estimate = value if isinstance(value, dict) else {"value": value, "standard_error": None}
            error = estimate["standard_error"]
            row["values"][name] = estimate | {"standard_error": None if error is None or math.isnan(error) else error}
        rows.append(row)
    return rows


def append_row(path: Path, row: dict) -> None:
    """Write a row at the end of a file: a line that any reader of JSON can read, so NaN raises `ValueError`."""
    if "experiment" in row and (name := short_hash(row["experiment"])) in _configs(_whole_lines(path)):
        row = row | {"experiment": name}
    line = json.dumps(row, allow_nan=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    half_written = path.is_file() and path.read_bytes()[-1:] not in (b"", b"\n")
    with path.open("a", encoding="utf-8") as lines:
        lines.write(("\n" if half_written else "") + line + "\n")


def short_hash(written: object) -> str:
    """Twelve digits that name a JSON tree."""
    return hashlib.sha256(json.dumps(written, sort_keys=True).encode()).hexdigest()[:12]


def _whole_lines(path: Path) -> list[dict]:
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            print(f"{path} has a line that is not whole; it is left out", flush=True)
    return rows


def _configs(rows: list[dict]) -> dict[str, dict]:
    """The configs that are written out, by their hash."""
    written = (row["experiment"] for row in rows if isinstance(row.get("experiment"), dict))
    return {short_hash(config): config for config in written}


def _with_configs(rows: list[dict], path: Path) -> Iterator[dict]:
    """The rows, each with a config of its own."""
    configs = _configs(rows)
    for row in rows:
        if isinstance(name := row.get("experiment"), str):
            if name not in configs:
                raise ValueError(
                    f"{path}: a row is of the config {name}, which no row of the file has written out; take the rows "
                    "over with the first of their run, which has"
                )
            row = row | {"experiment": copy.deepcopy(configs[name])}
        yield row
