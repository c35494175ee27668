"""Sample from a run: generation, autoregression, inpainting, outpainting, each with its falling time field.

    python -m experiments.sample fashion out                             # of the model that comes with the package
    python -m experiments.sample runs/digits out                         # of a run, on its held-out images
    python -m experiments.sample runs/digits out --image a.png --mask m.png --labels 3

Half a minute on two cores. A mask is an image of the size that the network was trained on: white pixels are known,
black ones are made anew. A run holds arrays and JSON, no pickle: one from a stranger is safe to open.
"""

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jaxtyping import Float
from PIL import Image as Pillow

from asyncpatch.data import check_image, to_float
from asyncpatch.masks import Polarity, read_known
from asyncpatch.ranges import check_counts
from asyncpatch.runs import Examples, Run, SamplingConfig, four_tasks, inpainting, open_batches, open_run
from asyncpatch.shapes import Known
from experiments.parts.command import run_command
from experiments.parts.drawing import choose_labels, draw_tasks


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


def examples_of(run: Run) -> Examples:
    """The examples that a run brings along, or else a batch of held-out images of its data."""
    if len(run.examples.label):
        return run.examples
    batch = open_batches(run.experiment, 0)[1].batch(0)
    return Examples(jnp.asarray(batch["image"]), jnp.asarray(batch["label"]))


def main(
    run: Annotated[str, tyro.conf.arg(metavar="RUN")],
    output: Annotated[Path, tyro.conf.arg(metavar="OUTPUT")],
    /,
    sampling: SamplingConfig = SamplingConfig(),
    image: Path | None = None,
    mask: Path | None = None,
    labels: tuple[int, ...] = (),
    count: int = 32,
    step: int | None = None,
) -> None:
    """Sample from RUN and write pictures to folder OUTPUT.

    Args:
        run: a folder that training wrote to, an exported file, or the name of a model that comes with the package.
        output: where pictures and samples.json go.
        sampling: steps, guidance and noise.
        image: an image file to inpaint; if not given, the run's examples, or else held-out images of its data.
        mask: a mask file, white where the image is known.
        labels: classes to make, over and over; every class in turn if not given, and -1 for no class.
        count: how many images of each task.
        step: the checkpoint to open; the newest that is whole if not given.
    """
    check_counts(count=count)
    opened = open_run(run, step)
    denoiser, num_classes = opened.denoiser, opened.num_classes
    height, width, channels = opened.image_shape
    wanted = choose_labels(labels, count, num_classes)
    if (image is None) != (mask is None):
        raise ValueError("an image to inpaint and its mask come together; give both --image and --mask, or neither")
    if image is not None and mask is not None:
        given = jnp.asarray(read_image(image, (height, width, channels)))
        tasks = {"inpainting": inpainting(sampling, read_mask(mask, height, width))}
        images, given_labels = jnp.broadcast_to(given[None], (count, height, width, channels)), wanted
    else:
        held_out = examples_of(opened)
        index = jnp.arange(count) % len(held_out.label)
        images = held_out.image[index]
        given_labels = held_out.label[index] if num_classes and not labels else wanted
        tasks = four_tasks(sampling, height, width)
    records = draw_tasks(output, denoiser, tasks, sampling, images, wanted, given_labels)
    made = {
        "run": run,
        "step": opened.step,
        "release": opened.release,
        "commit": opened.commit,
        "sampling": dataclasses.asdict(sampling),
        "device": str(jax.devices()[0]),
        "tasks": records,
    }
    (output / "samples.json").write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_command(main)
