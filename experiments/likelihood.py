"""Bits per dimension of a checkpoint under one law of paths after another, with error bars.

    python -m experiments.quickstart                                   # a model of 8x8 digits
    python -m experiments.likelihood runs/quickstart out/likelihood

Every law bounds the same likelihood, that of 8-bit images given their labels, or of a run on latents a density of them
(`experiments.parts.bounds` says what that is not). `results/likelihood` is of 120 images at
16 calls each (`--images 120 --effort.points 8`), eight laws in 227 s on two cores that others used as well:

    synchronous 5.07 ± 0.04      window +0.20 ± 0.03      environment of 2x2 patches +0.29 ± 0.03
    environment (the paper's, single pixels) +0.53 ± 0.03      any order, raster, spiral +0.6 to +0.8 ± 0.15

so the diagonal bounds this network best, though it was trained on windows. As a density model it is poor: digits have
17 grey values, 4.09 bits if all were equally likely, which neither the decoder nor 700 steps of training know of.
"""

import dataclasses
import time
from pathlib import Path
from typing import Annotated

import tyro

from asyncpatch.elbo import Continuous, Evaluation
from asyncpatch.paths import (
    AbstractPathLaw,
    AnyOrder,
    Environment,
    Staged,
    Synchronous,
    Window,
    raster,
    spiral,
)
from experiments.parts.bound_pictures import Row, as_table, draw_comparison, make_rows
from experiments.parts.bounds import Effort, Ends, Model, open_model, progress_bar, write_record
from experiments.parts.command import run_command

MIXED_SPREAD = (0.0, 2.0)
"""Spreads of `environment-mixed`: from the diagonal to patches that move nearly one at a time."""


def path_laws(height: int, width: int, patch: int, patch_sizes: tuple[int, ...]) -> dict[str, AbstractPathLaw]:
    """The laws by the name that the command line gives them."""
    return {
        "synchronous": Synchronous(),
        "window": Window(patch_sizes),
        "environment": Environment((1,)),
        "environment-patch": Environment((patch,)),
        "environment-mixed": Environment(patch_sizes, MIXED_SPREAD),
        "any-order": AnyOrder(patch),
        "raster": Staged(raster(height, width, patch)),
        "spiral": Staged(spiral(height, width, patch)),
    }


NAMES = tuple(path_laws(1, 1, 1, (1,)))
"""What may be asked for; all are compared with the first that is."""


def choose_laws(names: tuple[str, ...], available: dict[str, AbstractPathLaw]) -> dict[str, AbstractPathLaw]:
    """Those that are asked for, in that order. Raises `ValueError` for a name that is none, or for no name."""
    unknown = [name for name in names if name not in available]
    if unknown or not names:
        raise ValueError(f"laws are called {', '.join(available)}; got {unknown or 'none'}, choose from these")
    return {name: available[name] for name in names}


def compare(model: Model, laws: dict[str, AbstractPathLaw], effort: Effort) -> dict[str, Evaluation]:
    """The bound under each law, at equal network calls on the same images with the same noise."""
    evaluations: dict[str, Evaluation] = {}
    with progress_bar(len(laws)) as bar:
        for name, law in laws.items():
            begun = time.monotonic()
            evaluations[name] = model.bound(law, effort)
            bits, population_error, _ = evaluations[name].bits_per_dimension()
            bar.advance(name)
            bar.say(f"{name}: {bits:.4f} ± {population_error:.4f} bits/dim, {time.monotonic() - begun:.1f} s")
    return evaluations


def likelihood(
    run: Annotated[Path, tyro.conf.arg(metavar="RUN")],
    output: Annotated[Path, tyro.conf.arg(metavar="OUTPUT")],
    /,
    laws: tuple[str, ...] = NAMES,
    patch: int = 2,
    patch_sizes: tuple[int, ...] = (1, 2, 4, 8),
    images: int = 180,
    ends: Ends = Ends(),
    effort: Effort = Effort(),
    step: int | None = None,
) -> list[Row]:
    """Bound the negative log-likelihood of held-out images, given their labels; write numbers, table and picture.

    Args:
        run: the folder that training wrote to.
        output: where likelihood.json, table.md, likelihood.png and config.json go.
        laws: names of laws; all are compared with the first.
        patch: side in pixels of the patches of the laws that have one size.
        patch_sizes: sides that the other laws draw from.
        images: how many of the held-out images, at most.
        ends: the log-SNRs between which the bound is taken.
        effort: network calls an image, and the seed.
        step: the checkpoint to open; the newest that is whole if not given.
    """
    begun = time.monotonic()
    experiment, model = open_model(run, ends, images, step)
    height, width, _ = experiment.data.shape
    chosen = choose_laws(laws, path_laws(height, width, patch, patch_sizes))
    rows = make_rows(compare(model, chosen, effort))
    seconds = time.monotonic() - begun

    count = len(model.images)
    bounded = "latents, as a density" if isinstance(model.decoder, Continuous) else "images"
    results = {
        "bounded": bounded,
        "images": count,
        "calls_an_image": effort.calls,
        "calls": effort.calls * count * len(rows),
        "seconds": round(seconds, 1),
        "rows": [dataclasses.asdict(row) for row in rows],
    }
    arguments = {"laws": laws, "patch": patch, "patch_sizes": patch_sizes, "ends": ends, "effort": effort}
    write_record(output, "likelihood", "python -m experiments.likelihood", arguments, results, experiment)
    (output / "table.md").write_text(as_table(rows), encoding="utf-8")
    title = f"Likelihood bound of {count} held-out {bounded}, {effort.calls} network calls an image and law"
    draw_comparison(rows, title, output / "likelihood.png")
    print(f"\n{as_table(rows)}\n{seconds:.0f} s; numbers and picture are in {output}", flush=True)
    return rows


if __name__ == "__main__":
    run_command(likelihood)
