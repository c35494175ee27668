"""Which path gives the tightest bound? Sweeps, the consistency gap, and a law of paths that learns.

    python -m experiments.quickstart
    python -m experiments.tightest_bound sweep runs/quickstart out     # spread x patch x noise schedule
    python -m experiments.tightest_bound gap runs/quickstart out       # spread of the bound over paths
    python -m experiments.tightest_bound learn runs/quickstart out     # what gradients on a law gain

`results/tightest_bound` has a small version of each, made on two cores in heavy use in 2 to 9 minutes; arguments are
in its JSON files. Bits per dimension above the diagonal's, which is 5.08, on the same images:

    c, 1x1 patches:        0.3              1                3           (2x2: 1)
    log-linear       +0.14 ± 0.01     +0.56 ± 0.03     +0.95 ± 0.05    +0.29 ± 0.02
    cosine           +0.03 ± 0.00     +0.22 ± 0.01     +0.67 ± 0.03    +0.12 ± 0.01
    rectified flow   +0.04 ± 0.00     +0.26 ± 0.01     +0.73 ± 0.03    +0.14 ± 0.01

So the bound loosens with spread and tightens with patch size, and what an asynchronous path costs depends on the noise
schedule, while the diagonal has none. Any order has none either: its points differ by noise alone.

Learning, 60 steps from c = 0.5: c falls to 0.10 and the bound by 0.25 bits, back to 0.03 ± 0.01 *above* the diagonal.
With the warps alone 0.02 ± 0.01 stays, with the spread alone 0.02 ± 0.00: nothing is gained over the diagonal yet.

The gap is a covariance over paths of two readings with independent noise, with a 95% interval by
`experiments.parts.consistency`: the jackknife over paths, no smaller than the error of a variance of normal values, on
a scale between the linear and the logarithmic one. Committed: along windows 0.084 (0.041 to 0.12) bits per dimension;
not above noise along the walk and in any order, nor anywhere for an exact denoiser.
"""

import dataclasses
import time
from pathlib import Path
from typing import Annotated

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import tyro

from asyncpatch.noise_schedule import AbstractNoiseSchedule, Cosine, RectifiedFlow, Truncated
from asyncpatch.paths import (
    AbstractPathLaw,
    AnyOrder,
    Environment,
    Synchronous,
    Window,
    raster,
    start_learning,
)
from asyncpatch.process import GaussianDenoiser
from asyncpatch.runs import open_batches
from experiments.likelihood import compare
from experiments.parts.bound_pictures import Row, as_table, draw_gaps, draw_learning, draw_sweep, make_rows
from experiments.parts.bounds import Effort, Ends, Model, open_model, progress_bar, take, write_record
from experiments.parts.command import run_command
from experiments.parts.consistency import CONFIDENCE, READINGS, Gap, consistency_gap
from experiments.parts.learn_path import FitConfig, fit
from experiments.parts.rescheduled import Rescheduled

COMMAND = "python -m experiments.tightest_bound"

Run = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
Output = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUTPUT")]

RIDGE = 1e-3
"""Added to the variance of every pixel of the Gaussian that stands for an exact denoiser."""


def schedules_between(ends: Ends) -> dict[str, AbstractNoiseSchedule]:
    """The noise schedules of the sweep besides the log-linear one that all is measured on."""
    cut = (ends.max_log_snr, ends.min_log_snr)
    return {"cosine": Truncated(Cosine(), *cut), "rectified flow": Truncated(RectifiedFlow(), *cut)}


def sweep_laws(
    spreads: tuple[float, ...],
    patches: tuple[int, ...],
    schedules: dict[str, AbstractNoiseSchedule],
    model: Model,
) -> dict[str, AbstractPathLaw]:
    """The diagonal, then each spread on each patch size under each noise schedule; infinity is any order.

    Environments take their spread as an array here, so that one program serves all of them.
    """
    one_group = jnp.zeros(model.images.shape[1:3], jnp.int32)
    laws: dict[str, AbstractPathLaw] = {"synchronous": Synchronous()}
    for name, schedule in ({"log-linear": model.denoiser.schedule} | schedules).items():
        for patch in patches:
            for spread in spreads:
                law = AnyOrder(patch) if np.isinf(spread) else start_learning(one_group, spread, 1, patch)
                laws[f"{name}, {patch}x{patch}, c = {spread:g}"] = Rescheduled(law, schedule, model.denoiser.schedule)
    return laws


def sweep(
    run: Run,
    output: Output,
    spreads: tuple[float, ...] = (0.3, 1.0, 2.0, 3.0, float("inf")),
    patches: tuple[int, ...] = (1, 2, 4),
    images: int = 64,
    ends: Ends = Ends(),
    effort: Effort = Effort(),
) -> list[Row]:
    """The bound by spread, patch size and noise schedule.

    Args:
        run: the folder that training wrote to.
        output: where sweep.json, sweep.md, sweep.png and config.json go.
        spreads: values of `c`; inf is one patch after another in a random order. 0, the diagonal, is always there.
        patches: sides of the patches that share a rate.
        images: how many of the held-out images, at most.
        ends: the log-SNRs between which the bound is taken.
        effort: network calls an image, and the seed.
    """
    begun = time.monotonic()
    experiment, model = open_model(run, ends, images)
    laws = sweep_laws(spreads, patches, schedules_between(ends), model)
    rows = make_rows(compare(model, laws, effort))
    results = {
        "images": len(model.images),
        "calls_an_image": effort.calls,
        "seconds": round(time.monotonic() - begun, 1),
        "rows": [dataclasses.asdict(row) for row in rows],
    }
    arguments = {"spreads": [str(c) for c in spreads], "patches": patches, "ends": ends, "effort": effort}
    write_record(output, "sweep", f"{COMMAND} sweep", arguments, results, experiment)
    (output / "sweep.md").write_text(as_table(rows), encoding="utf-8")
    title = f"{len(model.images)} held-out images, {effort.calls} network calls an image and law"
    draw_sweep(rows, spreads, patches, title, output / "sweep.png")
    print(f"\n{as_table(rows)}\n{results['seconds']} s", flush=True)
    return rows


def gaussian_twin(model: Model) -> Model:
    """The same images bounded by the exact denoiser of the Gaussian that has their mean and covariance."""
    shape = model.images.shape[1:]
    pixels = np.asarray(model.images, np.float64).reshape(len(model.images), -1)
    covariance = np.cov(pixels, rowvar=False) + RIDGE * np.eye(pixels.shape[1])
    mean = jnp.asarray(pixels.mean(axis=0).reshape(shape), jnp.float32)
    denoiser = GaussianDenoiser(mean, jnp.asarray(covariance, jnp.float32), model.denoiser.schedule)
    return dataclasses.replace(model, denoiser=denoiser)


def gap(
    run: Run,
    output: Output,
    paths: int = 16,
    patch: int = 2,
    patch_sizes: tuple[int, ...] = (1, 2, 4),
    images: int = 24,
    ends: Ends = Ends(),
    effort: Effort = Effort(points=32, draws=2),
) -> list[Gap]:
    """The spread of an image's bound over random paths, of the network and of an exact denoiser.

    Args:
        run: the folder that training wrote to.
        output: where gap.json, gap.png and config.json go.
        paths: random paths of each law.
        patch: side of the patches of any-order paths.
        patch_sizes: sides that the windows draw from.
        images: how many of the held-out images, at most.
        ends: the log-SNRs between which the bound is taken.
        effort: network calls of one of the two readings of a path (`points` in each of `draws`), and the seed.
    """
    begun = time.monotonic()
    experiment, model = open_model(run, ends, images)
    laws = {"window": Window(patch_sizes), "environment": Environment((1,)), "any-order": AnyOrder(patch)}
    cases = [(f"network, {name}", model, law) for name, law in laws.items()]
    cases += [(f"exact, {name}", gaussian_twin(model), law) for name, law in laws.items()]
    gaps = []
    with progress_bar(len(cases) * paths) as bar:
        for name, subject, law in cases:
            gaps.append(consistency_gap(subject, name, law, paths, effort, lambda name=name: bar.advance(name)))
            bar.say(f"{name}: {gaps[-1].image.words} bits/dim; shared by all images: {gaps[-1].shared.words}")
    results = {
        "images": len(model.images),
        "seconds": round(time.monotonic() - begun, 1),
        "readings": READINGS,
        "confidence": CONFIDENCE,
        "gaps": [dataclasses.asdict(found) for found in gaps],
    }
    arguments = {"paths": paths, "patch": patch, "patch_sizes": patch_sizes, "ends": ends, "effort": effort}
    write_record(output, "gap", f"{COMMAND} gap", arguments, results, experiment)
    draw_gaps(gaps, f"{len(model.images)} held-out images, {paths} paths a law", output / "gap.png")
    return gaps


def learn(
    run: Run,
    output: Output,
    spread: float = 0.5,
    patch: int = 1,
    group_patch: int = 2,
    pieces: int = 8,
    training_images: int = 1024,
    images: int = 180,
    ends: Ends = Ends(),
    fitting: FitConfig = FitConfig(),
    effort: Effort = Effort(),
) -> list[Row]:
    """Fit the spread and the warps of a law to training images, and bound held-out images with it.

    Args:
        run: the folder that training wrote to.
        output: where learn.json, learn.md, learn.png and config.json go.
        spread: the `c` to begin with.
        patch: side of the patches that share a rate.
        group_patch: side of the patches that share a warp.
        pieces: linear pieces of a warp.
        training_images: how many of the training images the law is fitted to.
        images: how many of the held-out images it is tried on, at most.
        ends: the log-SNRs between which the bound is taken.
        fitting: steps of Adam and their cost.
        effort: network calls an image when it is tried, and the seed.
    """
    begun = time.monotonic()
    experiment, model = open_model(run, ends, images)
    pixels, labels = take(open_batches(experiment, 0)[0], training_images)
    start = start_learning(raster(*pixels.shape[1:3], group_patch), spread, pieces, patch)
    with progress_bar(fitting.steps) as bar:
        learned, history = fit(
            dataclasses.replace(model, images=pixels, labels=labels),
            start,
            fitting,
            lambda nats, c: bar.advance(f"loss {nats:.3f}, c = {c:.3f}"),
        )
    nothing = jnp.float32(-jnp.inf)
    rows = make_rows(
        compare(
            model,
            {
                "synchronous": Synchronous(),
                "before learning": start,
                "learned": learned,
                "learned spread alone": eqx.tree_at(lambda law: law.log_rises, learned, start.log_rises),
                "learned warps alone": eqx.tree_at(lambda law: law.log_spread, learned, nothing),
            },
            effort,
        )
    )
    results = {
        "images": len(model.images),
        "calls_an_image": effort.calls,
        "fit_calls": fitting.steps * fitting.images_a_step * fitting.points,
        "learned_spread": float(jnp.exp(learned.log_spread)),
        "seconds": round(time.monotonic() - begun, 1),
        "rows": [dataclasses.asdict(row) for row in rows],
        "log_rises": np.round(np.asarray(learned.log_rises, float), 4).tolist(),
    }
    arguments = {
        "spread": spread,
        "patch": patch,
        "group_patch": group_patch,
        "pieces": pieces,
        "training_images": training_images,
        "ends": ends,
        "fitting": fitting,
        "effort": effort,
    }
    write_record(output, "learn", f"{COMMAND} learn", arguments, results, experiment)
    (output / "learn.md").write_text(as_table(rows), encoding="utf-8")
    title = f"{len(model.images)} held-out images, {effort.calls} network calls an image and law"
    draw_learning(rows, history, np.asarray(learned.log_rises), title, output / "learn.png")
    print(f"\n{as_table(rows)}\n{results['seconds']} s", flush=True)
    return rows


if __name__ == "__main__":
    run_command({"sweep": sweep, "gap": gap, "learn": learn})
