"""Sample from a checkpoint: generation, autoregression, inpainting, outpainting, each with its falling time field.

    python -m experiments.sample runs/digits out                         # all four ways, on held-out images
    python -m experiments.sample runs/digits out --image a.png --mask m.png --labels 3

A mask is an image of the size that the network was trained on: white pixels are known, black ones are made anew.
A checkpoint holds arrays and JSON, no pickle: one from a stranger is safe to open.
"""

import dataclasses
import json
import time
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jaxtyping import Array, Float, Int
from PIL import Image as Pillow

from asyncpatch.data import check_image, to_float
from asyncpatch.masks import Polarity, read_known
from asyncpatch.nn import NetworkDenoiser
from asyncpatch.shapes import NULL_LABEL, Known
from asyncpatch.train import load_for_sampling, make_mesh
from experiments import pictures
from experiments.setup import Experiment, open_batches
from experiments.tasks import SamplingConfig, Task, as_numpy, four_tasks, inpainting, labels_in_turn, run_task


def open_denoiser(folder: Path, step: int | None = None) -> tuple[Experiment, NetworkDenoiser]:
    """The config and the averaged denoiser of a run's newest readable checkpoint, or of the one at `step`."""
    experiment, restore = load_for_sampling(folder, make_mesh(1, 1), step)
    return experiment, restore(experiment.make_denoiser)


def read_image(path: Path, shape: tuple[int, int, int]) -> Float[np.ndarray, "height width channel"]:
    """An image file as the network takes it. Raises `ValueError` if its size is not the network's."""
    with Pillow.open(path) as file:
        pixels = np.asarray(file.convert("L" if shape[2] == 1 else "RGB"))
    image = to_float(pixels.reshape(*pixels.shape[:2], -1))
    check_image(image, tuple(shape))
    return image


def read_mask(path: Path, height: int, width: int) -> Known:
    """A mask file, white where the image is known. Raises `ValueError` unless it is pure black and white."""
    return read_known(path, Polarity.ONES_ARE_KNOWN, height, width)


def choose_labels(labels: tuple[int, ...], count: int, num_classes: int) -> Int[Array, " count"]:
    """The given labels over and over, or every class in turn. Raises `ValueError` for a label that is no class."""
    wrong = [label for label in labels if label != NULL_LABEL and not 0 <= label < num_classes]
    if wrong:
        raise ValueError(
            f"labels {wrong} are no classes: this network knows 0 to {num_classes - 1}, and {NULL_LABEL} for none"
            if num_classes
            else f"labels {wrong} are no classes: this network was trained without any; leave labels out"
        )
    if not labels:
        return labels_in_turn(count, num_classes)
    return jnp.asarray([labels[i % len(labels)] for i in range(count)], jnp.int32)


def draw_tasks(
    output: Path,
    denoiser: NetworkDenoiser,
    tasks: dict[str, Task],
    config: SamplingConfig,
    image: Float[Array, "batch height width channel"],
    made_labels: Int[Array, " batch"],
    given_labels: Int[Array, " batch"],
    columns: int = 8,
) -> dict[str, dict]:
    """Run each task and write its grid and its time-field strip. Returns a record a task: files, seconds, labels.

    Tasks that know pixels of `image` take `given_labels`; the others make `made_labels`.
    """
    output.mkdir(parents=True, exist_ok=True)
    records = {}
    for name, task in tasks.items():
        knows = bool(np.any(task.known))
        labels = given_labels if knows else made_labels
        start = time.monotonic()
        samples, history = run_task(denoiser, task, config, image, labels)
        made = as_numpy(samples)
        seconds = time.monotonic() - start
        shown = slice(0, columns)
        sheet = (
            pictures.before_and_after(np.asarray(image)[shown], np.asarray(task.known), made[shown])
            if knows
            else pictures.grid(made, columns)
        )
        grid = pictures.save(sheet, output / f"{name}.png")
        strip = pictures.save(
            pictures.strip(np.asarray(history.times[0]), as_numpy(history.data[0]), made[0]),
            output / f"{name}_times.png",
        )
        records[name] = {
            "grid": grid.name,
            "times": strip.name,
            "images": len(made),
            "steps": config.steps,
            "seconds": round(seconds, 2),
            "labels": np.asarray(labels).tolist(),
        }
        print(f"{name}: {len(made)} images in {seconds:.1f} s -> {grid}", flush=True)
    return records


def main(
    run: Annotated[Path, tyro.conf.arg(metavar="RUN")],
    output: Annotated[Path, tyro.conf.arg(metavar="OUTPUT")],
    /,
    sampling: SamplingConfig = SamplingConfig(),
    image: Path | None = None,
    mask: Path | None = None,
    labels: tuple[int, ...] = (),
    count: int = 32,
    step: int | None = None,
) -> None:
    """Sample from the run in folder RUN and write pictures to folder OUTPUT.

    Args:
        run: the folder that training wrote to.
        output: where pictures and samples.json go.
        sampling: steps, guidance and noise.
        image: an image file to inpaint; held-out images of the run's data if not given.
        mask: a mask file, white where the image is known.
        labels: classes to make, over and over; every class in turn if not given, and -1 for no class.
        count: how many images of each task.
        step: the checkpoint to open; the newest that is whole if not given.
    """
    experiment, denoiser = open_denoiser(run, step)
    height, width, channels = experiment.data.shape
    num_classes = experiment.network.num_classes
    wanted = choose_labels(labels, count, num_classes)
    if (image is None) != (mask is None):
        raise ValueError("an image to inpaint and its mask come together; give both --image and --mask, or neither")
    if image is not None and mask is not None:
        given = jnp.asarray(read_image(image, (height, width, channels)))
        tasks = {"inpainting": inpainting(sampling, read_mask(mask, height, width))}
        images, given_labels = jnp.broadcast_to(given[None], (count, height, width, channels)), wanted
    else:
        _, held_out = open_batches(experiment, 0)
        batch = held_out.batch(0)
        count = min(count, len(batch["image"]))
        images, wanted = jnp.asarray(batch["image"][:count]), wanted[:count]
        given_labels = jnp.asarray(batch["label"][:count]) if num_classes and not labels else wanted
        tasks = four_tasks(sampling, height, width)
    records = draw_tasks(output, denoiser, tasks, sampling, images, wanted, given_labels)
    made = {
        "run": str(run),
        "sampling": dataclasses.asdict(sampling),
        "device": str(jax.devices()[0]),
        "tasks": records,
    }
    (output / "samples.json").write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    tyro.cli(main)
