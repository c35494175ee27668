"""What networks miss: the velocity's error on the time fields that tasks visit, law by law.

    python -m experiments.errors_by_field runs/claims/synchronous-0 runs/claims/async-patch-0 --output out

Generation visits fields of one time; inpainting those of clean known pixels beside others, or of known pixels at a
quarter of the others' time (trailing); autoregression a patch between clean ones and pure noise. On each of them, at
several times, the mean squared error of the velocity on the tokens that are being made, over held-out images, with the
same masks and noise for all networks. A task whose fields are rare under a law of training times shows there, before
any sampler does.

Rows go to `OUTPUT/rows.jsonl`, those that are there are not made again; `errors.md` and `errors.png` are of the runs
that were named, after the last of the steps, the mean over seeds of a law. With the rows of `timestep_sampling`,
`distance.png` shows how far what a law costs at generation is its error on fields of one time:

    python -m experiments.errors_by_field runs/claims/*-0 --steps 2048 16384 --evaluated runs/claims/rows.jsonl
"""

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import tyro
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from asyncpatch.config import to_json
from asyncpatch.losses import Plain, denoising_errors
from asyncpatch.masks import mask_set
from asyncpatch.metrics import Estimate, hash_images
from asyncpatch.paths import raster
from asyncpatch.process import AbstractDenoiser
from asyncpatch.ranges import check_counts
from asyncpatch.runs import Run, open_run
from experiments.parts.command import run_command
from experiments.parts.filling import Wanted, fill
from experiments.parts.judges import in_batches, read_images
from experiments.parts.law_table import MASKS
from experiments.parts.rows import read_rows
from experiments.parts.tables import Finding, class_name, finding_markdown

TIMES = (0.03, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.97)
"""Of the tokens that are being made."""

MIDDLE = (0.2, 0.3, 0.4, 0.5, 0.6)
"""Those of them at which the errors of networks say most about what they generate."""

HIGHEST = 1.6
"""Errors in units of the best that are drawn; a network that never saw such fields is far above."""

PATCHES_A_SIDE = 4
"""Of autoregression."""

SHARE = 0.25
"""Of the others' time, of known pixels that trail."""

NOISE = 2.0

Fields = tuple[Float[np.ndarray, "images height width"], Bool[np.ndarray, "images height width"]]
"""Each token's time, as a share of that of the tokens that are made (`NOISE` is time 1), and which these are."""


def fields_of(kind: str, count: int, height: int, width: int) -> Fields:
    """The fields of a task, an image each, from fixed seeds."""
    if kind == "one time":
        whole = np.ones((count, height, width))
        return whole, whole > 0
    if kind == "raster":
        order = np.asarray(raster(height, width, max(1, height // PATCHES_A_SIDE)))[None]
        now = np.random.default_rng(0).integers(0, order.max() + 1, count)[:, None, None]
        return np.select([order < now, order == now], [0.0, 1.0], NOISE), order == now
    family, _, behind = kind.partition(", ")
    known = mask_set(MASKS[family], count, height, width, 0)
    return np.where(known, SHARE if behind == "trailing" else 0.0, 1.0), ~known


KINDS = ("one time", *(f"{family}, {behind}" for behind in ("clean", "trailing") for family in MASKS), "raster")
"""The fields that are visited, by name."""


@eqx.filter_jit
def _errors(
    key: PRNGKeyArray,
    denoiser: AbstractDenoiser,
    images: Float[Array, "batch height width channel"],
    labels: Int[Array, " batch"],
    shares: Float[Array, "batch height width"],
    made: Bool[Array, "batch height width"],
    time: Float[Array, ""],
) -> Float[Array, " batch"]:
    """Of each image the mean squared error on the tokens that are made."""
    times = jnp.where(shares == NOISE, 1.0, shares * time)
    keys = jr.split(key, len(images))

    def one(key, image, label, t, made):
        noise = jr.normal(key, image.shape)
        return jnp.mean(denoising_errors(denoiser, Plain(), image, t, noise, label).mean(axis=-1), where=made)

    return jax.vmap(one)(keys, images, labels, times, made)


def errors(denoiser: AbstractDenoiser, kind: str, images: np.ndarray, labels: np.ndarray) -> dict[str, Estimate]:
    """By the time of the tokens that are made, the mean over images and its standard error."""
    parts = (images, labels, *fields_of(kind, *images.shape[:3]))
    found = {}
    for time in TIMES:
        each = []
        for number, batch in enumerate(zip(*map(in_batches, parts), strict=True)):
            key = jr.fold_in(jr.key(0), number)
            each.append(np.asarray(_errors(key, denoiser, *batch, jnp.float32(time))))
        each = np.concatenate(each)
        found[f"{time:g}"] = Estimate(float(each.mean()), float(each.std(ddof=1) / len(each) ** 0.5))
    return found


def main(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN")],
    output: Path = Path("errors_by_field"),
    count: int = 512,
    steps: tuple[int, ...] = (),
    evaluated: Path | None = None,
) -> list[dict]:
    """Measure every RUN on every kind of field. Returns the rows of these runs.

    Args:
        runs: folders that training wrote to, of the same images.
        output: where rows.jsonl, errors.md and errors.png go.
        count: held-out images, at least 2.
        steps: of training after which to measure, of checkpoints that the runs still have; the newest if none is given.
        evaluated: rows of these runs' generation, to draw its distance against the error on fields of one time.
    """
    check_counts(count=count)
    if count < 2 or not runs:
        raise ValueError(
            f"an error bar needs at least 2 images, a table at least one run; got {count} and {len(runs)}, give more"
        )
    generated = [] if evaluated is None else [row for row in read_rows(evaluated) if "masks" not in row["task"]]
    if evaluated is not None and not generated:
        raise ValueError(f"{evaluated} has no row of generation; give the rows.jsonl of a table of laws")
    output.mkdir(parents=True, exist_ok=True)
    file, every = output / "rows.jsonl", []
    for folder, step in itertools.product(runs, steps or (None,)):
        run = open_run(folder, step)
        images, labels = read_images(run.experiment, run.experiment.data.held_out, count)
        every += [_wanted(run, folder.name, kind, images, labels) for kind in KINDS]
    measured = {(one.settings["run"], one.settings["step"]) for one in every}
    if generated and not any((row["run"], row["step"]) in measured for row in generated):
        raise ValueError(f"{evaluated} has rows of other runs or steps; give runs that it speaks of, or leave it out")
    if len({one.settings["data_hash"] for one in every}) > 1:
        raise ValueError("these runs do not hold out the same images; compare runs that do")
    found = fill(file, every)
    last = [row for row in found if not steps or row["step"] == max(steps)]
    (output / "errors.md").write_text(finding_markdown(_table(last)) + "\n", encoding="utf-8")
    _draw(last, output / "errors.png")
    print(finding_markdown(_table(last)), flush=True)
    if generated:
        _draw_distances(distances_by_error(found, generated), output / "distance.png")
    return found


def _wanted(run: Run, name: str, kind: str, images: np.ndarray, labels: np.ndarray) -> Wanted:
    settings = {
        "run": name,
        "step": run.step,
        "law": class_name(to_json(run.timesteps)),
        "seed": run.experiment.training.seed,
        "kind": kind,
        "images": len(images),
        "data_hash": hash_images([images]),
    }

    def make() -> dict:
        found = errors(run.denoiser, kind, images, labels)
        return {"values": {time: dataclasses.asdict(error) for time, error in found.items()}}

    return Wanted(f"{name}, {kind}", settings, make)


def _by_law(rows: list[dict]) -> dict[str, dict[str, np.ndarray]]:
    """Of every law and kind the error at each time, the mean over seeds."""
    laws = dict.fromkeys(row["law"] for row in rows)
    return {
        law: {
            kind: np.mean(
                [[row["values"][f"{time:g}"]["value"] for time in TIMES] for row in rows if _is(row, law, kind)], axis=0
            )
            for kind in KINDS
        }
        for law in laws
    }


def _over_times(errors: Sequence[float] | np.ndarray) -> float:
    """The geometric mean, in which no time counts more because its errors are larger."""
    return float(np.exp(np.mean(np.log(errors))))


def _is(row: dict, law: str, kind: str) -> bool:
    return row["law"] == law and row["kind"] == kind


def _table(rows: list[dict]) -> Finding:
    found = _by_law(rows)
    lines = [(law, *(f"{_over_times(by[kind]):.4f}" for kind in KINDS)) for law, by in found.items()]
    steps = " or ".join(f"{step:,}" for step in sorted({row["step"] for row in rows}))
    note = (
        f"Squared error of the velocity, the mean over {rows[0]['images']} images, and of that the geometric mean over "
        f"times from {min(TIMES)} to {max(TIMES)}, after {steps} steps of training."
    )
    return Finding("Errors by field", ("law of training times", *KINDS), lines, note, "errors.png")


def _draw(rows: list[dict], path: Path) -> None:
    """A panel a kind: the error over that of the best network, against time; what is beyond `HIGHEST` is cut off."""
    found = _by_law(rows)
    figure, panels = plt.subplots(2, 5, figsize=(14, 5.4), layout="constrained", sharex=True, sharey=True)
    for axes, kind in zip(panels.flat, KINDS, strict=True):
        best = np.min([by[kind] for by in found.values()], axis=0)
        for law, by in found.items():
            axes.plot(TIMES, by[kind] / best, marker=".", label=law)
        axes.set_title(kind, fontsize=9)
        axes.grid(alpha=0.3)
    panels.flat[0].set_ylim(0.98, HIGHEST)
    figure.legend(*panels.flat[0].get_legend_handles_labels(), loc="outside upper center", ncols=5, fontsize=8)
    figure.supxlabel("time of the tokens that are made", fontsize=9)
    figure.supylabel("error / that of the best", fontsize=9)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def distances_by_error(rows: list[dict], generated: list[dict]) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """By Frechet distance and run, at every step that both files speak of, the error on fields of one time in the
    middle of time, and the distance.
    """
    errors_of = {(row["run"], row["step"]): row for row in rows if row["kind"] == KINDS[0]}
    distances = [name for name in generated[0]["values"] if name.startswith(("FD", "FID"))]
    found: dict[str, dict[str, list[tuple[float, float]]]] = {name: {} for name in distances}
    for row in generated:
        of_fields = errors_of.get((row["run"], row["step"]))
        if of_fields is not None:
            error = _over_times([of_fields["values"][f"{time:g}"]["value"] for time in MIDDLE])
            for name in distances:
                found[name].setdefault(row["run"], []).append((error, row["values"][name]["value"]))
    return found


def _draw_distances(found: dict[str, dict[str, list[tuple[float, float]]]], path: Path) -> None:
    """A panel a Frechet distance, a line a run: that of what is generated against the error on fields of one time."""
    figure, panels = plt.subplots(1, len(found), figsize=(4.6 * len(found), 3.8), layout="constrained")
    for axes, (name, lines) in zip(np.atleast_1d(panels), found.items(), strict=True):
        for run, points in lines.items():
            axes.plot(*zip(*sorted(points), strict=True), marker=".", label=run)
        axes.set_ylabel(name)
        axes.grid(alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=8)
    label = f"error of the velocity on fields of one time, between {min(MIDDLE)} and {max(MIDDLE)}"
    figure.supxlabel(label, fontsize=9)
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    run_command(main)
