"""Drawing the samples of several tasks: a grid, a strip of falling times and the same moving, and a record of it."""

import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped
from PIL import Image as Pillow

from asyncpatch import pictures
from asyncpatch.data import AbstractView, PixelView, to_uint8
from asyncpatch.plans import FixedPlan, Task
from asyncpatch.process import AbstractDenoiser
from asyncpatch.runs import SamplingConfig, labels_in_turn, run_task
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


FRAMES = 24
"""Moments of a generation that an animation shows, before its end."""

MOVING = 4
"""Images that an animation shows."""

STRIP = 8
"""Moments that a strip shows, before the end."""


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
    view: AbstractView | None = None,
    originals: Float[Array, "batch high wide colour"] | None = None,
) -> dict[str, dict]:
    """Run each task; write its grid, its time-field strip and the animation of it. Returns a record a task: files,
    seconds, labels.

    Tasks that read pixels of `image` take `given_labels`; the others make `made_labels`. Below the folder `singles`, if
    it is given, every image goes into a file of its own, pixel for pixel, in a folder named after its task. What is not
    pixels is shown through `view`, and times and regions of its tokens on all pixels of each. Pictures show the
    `originals`, if they are given, beside what was made of `image`.
    """
    output.mkdir(parents=True, exist_ok=True)
    view = view or PixelView()
    given = _seen(view, image) if originals is None else jax.device_get(originals)
    records = {}
    for name, task in tasks.items():
        begins = task.plan.times[0] if isinstance(task.plan, FixedPlan) else jnp.ones(image.shape[1:3])
        knows, softly = task.knows_something(), bool((begins < 1).any())
        labels = given_labels if knows or softly else made_labels
        start = time.monotonic()
        samples, history = run_task(denoiser, task, config, image, labels, FRAMES)
        made = _seen(view, samples)
        if jax.process_index() > 0:  # it has made its share; the first process draws
            continue
        seconds = time.monotonic() - start
        shown = slice(0, columns)
        if knows:
            sheet = pictures.before_and_after(given[shown], _on_pixels(np.asarray(task.known), made), made[shown])
        elif softly:
            sheet = pictures.by_strength(given[shown], _on_pixels(begins, made), made[shown])
        else:
            sheet = pictures.grid(made, columns)
        grid = pictures.save(sheet, output / f"{name}.png")
        times = _on_pixels(history.times[:MOVING], made)
        noisy, data = (_seen(view, part[:MOVING]) for part in (history.noisy, history.data))
        picks = np.linspace(0, times.shape[1] - 1, min(STRIP, times.shape[1])).round().astype(int)
        strip = pictures.save(
            pictures.strip(times[0, picks], noisy[0, picks], data[0, picks], made[0]), output / f"{name}_times.png"
        )
        moments = pictures.moments(times, noisy, data, made[:MOVING])
        moving = pictures.animate(moments, output / f"{name}.webp")
        records[name] = {
            "grid": grid.name,
            "times": strip.name,
            "moving": moving.name,
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


def _seen(view: AbstractView, made: Float[Array, "*batch rows cols features"]) -> np.ndarray:
    """Images on the host, whatever axes come before theirs."""
    images = jax.device_get(view.images(made.reshape(-1, *made.shape[-3:])))
    return images.reshape(*made.shape[:-3], *images.shape[1:])


def _on_pixels(field: Shaped[np.ndarray | Array, "*batch rows cols"], images: np.ndarray) -> np.ndarray:
    """A field of tokens on all pixels that each of them stands for."""
    rows, cols = images.shape[1] // field.shape[-2], images.shape[2] // field.shape[-1]
    return np.repeat(np.repeat(np.asarray(field), rows, axis=-2), cols, axis=-1)
