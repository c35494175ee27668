"""Rows of a sweep: one checkpoint evaluated under many settings and several seeds of sampling, and what they say.

Seeds are paired: images, masks and noise of one seed are the same under every setting, so a difference between two
settings is told much more sharply than either of them.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from asyncpatch.metrics import Estimate
from asyncpatch.metrics.networks.lpips_jax import ALEXNET_FILE
from asyncpatch.runs import open_run
from experiments.evaluate import evaluation
from experiments.parts.filling import Wanted, fill
from experiments.parts.judges import OwnClassifier
from experiments.parts.medium import PixelMedium
from experiments.parts.rows import Generation, Inpainting, Steps
from experiments.parts.tables import Finding


@dataclasses.dataclass(frozen=True)
class Setting:
    """A line of a table: what is made, how, and of which checkpoint."""

    line: str
    run: str
    task: Generation | Inpainting
    how: Steps


def evaluate_all(rows: Path, settings: Sequence[Setting], seeds: Sequence[int], lpips: Path | None) -> list[list[dict]]:
    """The rows of every setting, one a seed; those that the file holds already are not made again."""
    runs = {run: open_run(Path(run)) for run in {setting.run for setting in settings}}

    def wanted(setting: Setting, seed: int) -> Wanted:
        distance = lpips if isinstance(setting.task, Inpainting) else None
        how = dataclasses.replace(setting.how, seed=seed)
        name, medium = Path(setting.run).name, PixelMedium(runs[setting.run].experiment)
        row = evaluation(runs[setting.run], medium, name, rows, setting.task, how, [OwnClassifier()], None, distance)
        return dataclasses.replace(row, line=f"{setting.line}, seed {seed}")

    found = iter(fill(rows, [wanted(setting, seed) for setting in settings for seed in seeds]))
    return [[next(found) for _ in seeds] for _ in settings]


def alexnet(lpips: Path | None) -> Path | None:
    """The weights of LPIPS: those given, or of the installed package; None, and said so, if there are none."""
    try:
        return ALEXNET_FILE.find() if lpips is None else lpips
    except FileNotFoundError as error:
        print(f"LPIPS is not measured: {error}", flush=True)
        return None


def measured(found: Sequence[Sequence[dict]], wanted: Sequence[str]) -> list[str]:
    """The metrics of the rows whose names begin with one of these, in this order."""
    return [name for start in wanted for name in found[0][0]["values"] if name.startswith(start)]


def values(rows: Sequence[dict], metric: str) -> np.ndarray:
    """A metric of a setting, one value a seed."""
    return np.asarray([row["values"][metric]["value"] for row in rows])


def differences(
    title: str,
    settings: Sequence[Setting],
    found: Sequence[Sequence[dict]],
    metrics: Sequence[str],
    base: Callable[[Setting], int],
    note: str,
) -> Finding:
    """A line a setting, and of every metric its mean over seeds and how far it is from the setting `base`, paired."""
    lines = []
    for setting, rows in zip(settings, found, strict=True):
        cells = []
        for metric in metrics:
            own, others = values(rows, metric), values(found[base(setting)], metric)
            gap = "" if settings[base(setting)] == setting else f" ({_signed(Estimate.mean_of(own - others))})"
            cells.append(f"{Estimate.mean_of(own)}{gap}")
        lines.append((setting.line, str(rows[0]["calls_per_image"]), str(len(rows)), *cells))
    return Finding(title, ("setting", "calls", "seeds", *metrics), lines, note)


def _signed(estimate: Estimate) -> str:
    return ("+" if estimate.value >= 0 else "") + str(estimate)
