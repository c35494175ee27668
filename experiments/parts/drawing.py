"""Drawing the samples of several tasks: a grid and a strip of falling times each, and a record of what was drawn."""

import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from PIL import Image as Pillow

from asyncpatch import pictures
from asyncpatch.data import to_uint8
from asyncpatch.plans import Task
from asyncpatch.process import AbstractDenoiser
from asyncpatch.runs import SamplingConfig, as_numpy, labels_in_turn, run_task
from asyncpatch.shapes import NULL_LABEL


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


def write_each(folder: Path, images: Float[np.ndarray, "batch height width channel"]) -> list[str]:
    """Every image as a PNG of its own size. Returns their names; those of an earlier call are replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    for earlier in folder.glob("[0-9]*.png"):
        earlier.unlink()
    names = [f"{index:0{len(str(len(images) - 1))}d}.png" for index in range(len(images))]
    for name, image in zip(names, images, strict=True):
        stored = to_uint8(image)
        Pillow.fromarray(stored[..., 0] if stored.shape[-1] == 1 else stored[..., :3]).save(folder / name)
    return [f"{folder.name}/{name}" for name in names]


def draw_tasks(
    output: Path,
    denoiser: AbstractDenoiser,
    tasks: dict[str, Task],
    config: SamplingConfig,
    image: Float[Array, "batch height width channel"],
    made_labels: Int[Array, " batch"],
    given_labels: Int[Array, " batch"],
    columns: int = 8,
    singles: Path | None = None,
) -> dict[str, dict]:
    """Run each task and write its grid and its time-field strip. Returns a record a task: files, seconds, labels.

    Tasks that know pixels of `image` take `given_labels`; the others make `made_labels`. Below the folder `singles`, if
    it is given, every image goes into a file of its own, pixel for pixel, in a folder named after its task.
    """
    output.mkdir(parents=True, exist_ok=True)
    records = {}
    for name, task in tasks.items():
        knows = task.knows_something()
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
            pictures.strip(
                np.asarray(history.times[0]), as_numpy(history.noisy[0]), as_numpy(history.data[0]), made[0]
            ),
            output / f"{name}_times.png",
        )
        records[name] = {
            "grid": grid.name,
            "times": strip.name,
            "images": len(made),
            "steps": config.steps,
            "calls": config.calls,
            "seconds": round(seconds, 2),
            "labels": np.asarray(labels).tolist(),
        }
        if singles is not None:
            records[name]["files"] = write_each(singles / name, made)
        print(f"{name}: {len(made)} images in {seconds:.1f} s -> {grid}", flush=True)
    return records
