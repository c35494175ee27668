"""Quality against network calls: plans that follow the expected error beside the synchronous plan (paper Fig. 7).

    python -m experiments.train_difficulty fashion runs/fashion-head
    python -m experiments.adaptive fashion runs/fashion-head out/adaptive

Images of every class in turn, or held-out images with a part made anew (`task:inpainting`), by DDIM without fresh noise
and without guidance, at several budgets, under every plan, from the same noise. Rows are appended to
`OUTPUT/rows.jsonl`; those that are there are not computed again. Calls are network calls an image, a rule's second look
included. `table.md`, `curve.png` and `strip.png` (the time field falling beside the estimate) are drawn from all rows;
the table ends with what the same plans are worth to an exact model, a Gaussian like the held-out images.

`results/adaptive` is of 1,024 images and 3 seeds at 8, 12 and 20 calls. Strength 0.1 beats the synchronous plan
by 0.6 to 1.2 in 20 to 33 and reaches its quality with 95% of the calls, an exact model with about 90%; strength 0.5
is worse, and so are dual speed (but at 20 calls), look-ahead and the easiest patch first. The aim was 60%. Distances of
256 images are mostly noise.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import tyro

from asyncpatch import pictures
from asyncpatch.config import to_json
from asyncpatch.data import open_once, to_float, to_uint8
from asyncpatch.masks import mask_set
from asyncpatch.metrics import (
    AbstractFeatureNetwork,
    Estimate,
    FeatureStatistics,
    NetworkIdentity,
    collect_features,
    frechet_distance,
)
from asyncpatch.nn import SelfAssessingDenoiser
from asyncpatch.plans import AbstractPlan, Adaptive, ByDifficulty, DualSpeed, Task, synchronous
from asyncpatch.ranges import check_counts
from asyncpatch.runs import Run, labels_in_turn, open_head, open_run
from asyncpatch.sampling import DDIM, AbstractStepRule, LookAhead, sample, sample_with_history
from experiments.parts.adaptive_exact import exact_table
from experiments.parts.adaptive_pictures import calls_table, curves_of, draw_curves, paired_table, reach_table
from experiments.parts.command import run_command
from experiments.parts.filling import Wanted, fill
from experiments.parts.judges import BATCH, AnyJudge, OwnClassifier, in_batches, read_images
from experiments.parts.rows import Generation, Inpainting, read_rows, short_hash
from experiments.parts.tables import Finding, finding_markdown

FIRST = "synchronous"
"""What all others are compared with."""

METRIC = "Frechet distance"

PLANS: dict[str, Callable[[int, int, int], tuple[AbstractPlan, AbstractStepRule]]] = {
    FIRST: lambda calls, height, width: (synchronous(calls, height, width), DDIM()),
    "adaptive 0.1": lambda calls, height, width: (Adaptive(calls, 0.1), DDIM()),
    "adaptive 0.25": lambda calls, height, width: (Adaptive(calls, 0.25), DDIM()),
    "adaptive 0.5": lambda calls, height, width: (Adaptive(calls, 0.5), DDIM()),
    "adaptive 1": lambda calls, height, width: (Adaptive(calls, 1.0), DDIM()),
    "by difficulty": lambda calls, height, width: (ByDifficulty(calls, patch=8, overlap=0.9), DDIM()),
    "dual speed": lambda calls, height, width: (DualSpeed(calls), DDIM()),
    "look-ahead": lambda calls, height, width: (synchronous(calls // 2, height, width), LookAhead()),
}
"""How a number of calls is spent; look-ahead spends two a step, so that of an odd number one is left."""

SHOWN_CALLS, SHOWN_FRAMES = 12, 7


def adaptive(
    run: Annotated[Path, tyro.conf.arg(metavar="RUN")],
    head: Annotated[Path, tyro.conf.arg(metavar="HEAD")],
    output: Annotated[Path, tyro.conf.arg(metavar="OUTPUT")],
    /,
    task: Generation | Inpainting = Generation(count=1024),
    calls: tuple[int, ...] = (5, 8, 12, 20, 30, 50),
    plans: tuple[str, ...] = tuple(PLANS),
    seeds: int = 3,
    judge: AnyJudge = OwnClassifier(),
    step: int | None = None,
) -> list[dict]:
    """Score every plan at every budget on RUN with the head in HEAD, and draw what came out.

    Args:
        run: the folder that training wrote to, an exported file, or the name of a shipped model.
        head: the folder that train_difficulty wrote to.
        output: where rows.jsonl, table.md, curve.png and strip.png go.
        task: generation or inpainting, and of how many images; the order and method in it are not used.
        calls: budgets of network calls an image.
        plans: what is compared, by name.
        seeds: of sampling: 0, 1, ...
        judge: the network whose features distances rest on.
        step: the checkpoint of the run; the newest that is whole if not given.
    """
    check_counts(seeds=seeds, **{f"calls[{index}]": count for index, count in enumerate(calls)})
    if unknown := [name for name in plans if name not in PLANS]:
        raise ValueError(f"plans are called {', '.join(PLANS)}; got {', '.join(unknown)}, choose from these")
    opened = open_run(run, step)
    denoiser = open_head(head, opened)
    path = output / "rows.jsonl"
    output.mkdir(parents=True, exist_ok=True)
    network = judge.load(opened.experiment, output)
    scorer = _Scorer(opened, denoiser, task, network)
    weights = [np.asarray(leaf).tolist() for leaf in jax.tree.leaves(denoiser.head)]
    models = {"network": denoiser.head.network[:12], "head": short_hash(weights)}
    shared = {"task": to_json(task), "judge": NetworkIdentity.of(network).name, **models}
    every = itertools.product(range(seeds), calls, plans)
    fill(path, [_wanted(shared, scorer, name, count, seed) for seed, count, name in every])
    # Rows of another model, head or task in the same folder are kept, and not mixed.
    wanted = models | {"task": to_json(task)}
    ours = [row for row in read_rows(path) if {key: row[key] for key in wanted} == wanted]
    _report(ours, output, _exact(opened, ours))
    pictures.save(_strip(opened, denoiser), output / "strip.png")
    return ours


class _Scorer:
    """The distance of what a plan makes, from the same real images for all."""

    def __init__(
        self,
        run: Run,
        denoiser: SelfAssessingDenoiser,
        task: Generation | Inpainting,
        judge: AbstractFeatureNetwork,
    ):
        self.denoiser, self.judge = denoiser, judge
        self.shape = run.image_shape
        held_out = run.experiment.data.held_out
        if isinstance(task, Inpainting):
            self.count = task.count or 256
            real, self.labels = read_images(run.experiment, held_out, self.count)
            known = mask_set(task.masks, self.count, *self.shape[:2], task.mask_seed)
            self.given, self.known = np.where(known[..., None], real, 0.0), known
        else:
            self.count = task.count or 1024
            real, _ = read_images(run.experiment, held_out, len(open_once(held_out)))
            self.labels = np.asarray(labels_in_turn(self.count, run.num_classes))
            self.given = np.zeros((self.count, *self.shape), np.float32)
            self.known = np.zeros((self.count, *self.shape[:2]), bool)
        self.real = FeatureStatistics.of(collect_features(judge, in_batches(real)))

    def __call__(self, name: str, calls: int, seed: int) -> tuple[float, int]:
        """The distance, and the calls an image that were made."""
        plan, rule = PLANS[name](calls, *self.shape[:2])
        made = []
        for start in range(0, self.count, BATCH):
            index = np.arange(start, start + BATCH) % self.count  # the last batch is filled up
            key = jr.fold_in(jr.key(seed), start)
            given, known, label = (jnp.asarray(part[index]) for part in (self.given, self.known, self.labels))
            images = sample(key, self.denoiser, Task(plan, known), given, label, rule)
            made.append(to_float(to_uint8(np.asarray(images))))
        images = np.concatenate(made)[: self.count]
        ours = FeatureStatistics.of(collect_features(self.judge, in_batches(images)))
        return frechet_distance(ours, self.real), rule.calls * plan.steps


def _wanted(shared: dict, scorer: _Scorer, name: str, calls: int, seed: int) -> Wanted:
    def make() -> dict:
        distance, spent = scorer(name, calls, seed)
        return {"spent": spent, "values": {METRIC: dataclasses.asdict(Estimate(distance))}}

    return Wanted(f"{name}, {calls} calls, seed {seed}", {"plan": name, "calls": calls, "seed": seed} | shared, make)


def _report(rows: list[dict], output: Path, exact: Finding) -> None:
    curves = curves_of(rows, METRIC)
    tables = [calls_table(curves, METRIC)]
    if FIRST in curves and len(curves) > 1:
        tables += [paired_table(curves, FIRST, METRIC), reach_table(curves, FIRST)]
    written = "\n\n".join(finding_markdown(table) for table in [*tables, exact]) + "\n"
    (output / "table.md").write_text(written, encoding="utf-8")
    draw_curves(curves, METRIC, output / "curve.png")
    print(f"\n{written}", flush=True)


def _exact(run: Run, rows: list[dict]) -> Finding:
    """What the same plans, as far as they are plans, are worth to an exact model of about such images."""
    source = run.experiment.data.held_out
    images, _ = read_images(run.experiment, source, len(open_once(source)))
    # A rule that looks twice is no plan.
    names = [name for name in dict.fromkeys(row["plan"] for row in rows) if isinstance(PLANS[name](2, 8, 8)[1], DDIM)]
    plans: dict[str, Callable[[int, int, int], AbstractPlan]] = {name: functools.partial(_plan, name) for name in names}
    return exact_table(images, plans, sorted({row["calls"] for row in rows}))


def _plan(name: str, calls: int, height: int, width: int) -> AbstractPlan:
    return PLANS[name](calls, height, width)[0]


def _strip(run: Run, denoiser: SelfAssessingDenoiser, images: int = 3) -> pictures.Pixels:
    """Of some classes the time field, the noisy image and the estimate, as they fall together under `Adaptive`."""
    classes = labels_in_turn(images, run.num_classes)
    blank = jnp.zeros((images, *run.image_shape))
    task = Task(Adaptive(SHOWN_CALLS))
    made, history = sample_with_history(jr.key(0), denoiser, task, blank, classes, DDIM(), frames=SHOWN_FRAMES)
    seen = zip(history.times, history.noisy, history.data, made, strict=True)
    return np.concatenate([pictures.strip(*map(np.asarray, one)) for one in seen])


if __name__ == "__main__":
    run_command(adaptive)
