"""Sample from a run: generation, autoregression, inpainting, outpainting, each with its falling time field.

    python -m experiments.sample fashion out                             # of the model that comes with the package
    python -m experiments.sample runs/digits out                         # of a run, on its held-out images
    python -m experiments.sample runs/digits out --image a.png --mask m.png --labels 3

Half a minute on two cores. A mask has the size of its image, or of the network: white pixels are known, black ones are
made anew. An image goes the way of the run's data, so a 28x28 garment is padded if the run was; one of another size is
brought to the network's with `--fit crop` or `--fit resize`. It has no class unless `--labels` says so. A run holds
arrays and JSON, no pickle: one from a stranger is safe to open.
"""

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import tyro

from asyncpatch.ranges import check_counts
from asyncpatch.runs import Examples, Run, SamplingConfig, four_tasks, inpainting, open_batches, open_run
from asyncpatch.shapes import NULL_LABEL
from experiments.parts.command import run_command
from experiments.parts.drawing import choose_labels, draw_tasks
from experiments.parts.own_images import Fit, read_image, read_mask


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
    fit: Fit = "none",
    labels: tuple[int, ...] = (),
    count: int = 32,
    step: int | None = None,
) -> None:
    """Sample from RUN and write pictures to folder OUTPUT: a sheet a task, and each image at its own size.

    Args:
        run: a folder that training wrote to, an exported file, or the name of a model that comes with the package.
        output: where pictures and samples.json go.
        sampling: steps, guidance and noise.
        image: an image file to inpaint; if not given, the run's examples, or else held-out images of its data.
        mask: a mask file, white where the image is known.
        fit: how an image of another size is brought to the network's: `crop` its middle, `resize` all of it.
        labels: classes to make, over and over, and -1 for no class. If not given: every class in turn, the class of a
            held-out image that is completed, and none for an image of yours.
        count: how many images of each task.
        step: the checkpoint to open; the newest that is whole if not given.
    """
    check_counts(count=count)
    opened = open_run(run, step)
    denoiser, num_classes = opened.denoiser, opened.num_classes
    height, width, channels = opened.image_shape
    if (image is None) != (mask is None):
        raise ValueError("an image to inpaint and its mask come together; give both --image and --mask, or neither")
    if fit != "none" and image is None:
        raise ValueError("--fit is for an image of yours; give --image and --mask too, or leave it out")
    if image is not None and mask is not None:
        transforms = opened.experiment.data.transforms
        given = read_image(image, opened.image_shape, transforms, fit)
        known = read_mask(mask, height, width, given.file_size, transforms, fit)
        tasks = {"inpainting": inpainting(sampling, known)}
        images = jnp.broadcast_to(given.image[None], (count, height, width, channels))
        wanted = given_labels = choose_labels(labels or (NULL_LABEL,), count, num_classes)
    else:
        wanted = choose_labels(labels, count, num_classes)
        held_out = examples_of(opened)
        index = jnp.arange(count) % len(held_out.label)
        images = held_out.image[index]
        given_labels = held_out.label[index] if num_classes and not labels else wanted
        tasks = four_tasks(sampling, height, width)
    records = draw_tasks(output, denoiser, tasks, sampling, images, wanted, given_labels, singles=output)
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
