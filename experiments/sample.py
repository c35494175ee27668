"""Sample from a run: generation, autoregression, inpainting, outpainting, each with its falling time field.

    python -m experiments.sample                                         # of the model that comes with the package
    python -m experiments.sample runs/digits out                         # of a run, on its held-out images
    python -m experiments.sample fashion out --image a.png --mask m.png --labels 3         # fill what is black
    python -m experiments.sample fashion out --image a.png --strength 0.6                  # image to image
    python -m experiments.sample fashion out --image a.png --strength s.png                # a strength per pixel

Half a minute on two cores; `--sampling.input-guidance 1` makes what is new agree more with what is given. A mask has
the size of its image, or of the network: white pixels are known, black ones are made anew. A map of strengths runs from
black, which keeps a pixel to the bit, to white, which makes it anew. An image goes the way of the run's data, so a
28x28 garment is padded if the run was; one of another size is brought to the network's with `--fit crop` or `--fit
resize`. It has no class unless `--labels` says so. A run holds arrays and JSON, no pickle: one from a stranger is safe
to open.
"""

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import tyro

from asyncpatch.plans import Task, synchronous, with_strength
from asyncpatch.ranges import check_counts
from asyncpatch.runs import Examples, Run, SamplingConfig, four_tasks, inpainting, open_batches, open_run
from asyncpatch.shapes import NULL_LABEL
from experiments.parts.command import run_command
from experiments.parts.drawing import choose_labels, draw_tasks
from experiments.parts.own_images import Fit, read_image, read_mask, read_strength


def examples_of(run: Run) -> Examples:
    """The examples that a run brings along, or else a batch of held-out images of its data."""
    if len(run.examples.label):
        return run.examples
    batch = open_batches(run.experiment, 0)[1].batch(0)
    return Examples(jnp.asarray(batch["image"]), jnp.asarray(batch["label"]))


def main(
    run: Annotated[str, tyro.conf.arg(metavar="RUN")] = "fashion",
    output: Annotated[Path, tyro.conf.arg(metavar="OUTPUT")] = Path("samples"),
    /,
    sampling: SamplingConfig = SamplingConfig(),
    image: Path | None = None,
    mask: Path | None = None,
    strength: float | Path | None = None,
    fit: Fit = "none",
    labels: tuple[int, ...] = (),
    count: int = 32,
    step: int | None = None,
) -> None:
    """Sample from RUN; write to folder OUTPUT a sheet a task, the times as they fall, and each image at its own size.

    Args:
        run: a folder that training wrote to, an exported file, or the name of a model that comes with the package.
        output: where pictures and samples.json go.
        sampling: steps, guidance and noise.
        image: an image file to work on; if not given, the run's examples, or else held-out images of its data.
        mask: a mask file, white where the image is known: inpainting.
        strength: how far the image is changed, in [0, 1], or a file with a strength per pixel, white where it is 1.
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
    if image is None and (mask, strength, fit) != (None, None, "none"):
        raise ValueError("--mask, --strength and --fit are for an image of yours; give --image too, or leave them out")
    if image is not None and (mask is None) == (strength is None):
        raise ValueError(
            "an image comes with what is to be done with it: --mask for inpainting, or --strength for image to image; "
            "give one of them"
        )
    tasks: dict[str, Task] = {}
    if image is not None:
        transforms = opened.experiment.data.transforms
        given = read_image(image, opened.image_shape, transforms, fit)
        if mask is not None:
            known = read_mask(mask, height, width, given.file_size, transforms, fit)
            tasks = {"inpainting": inpainting(sampling, known)}
        elif strength is not None:
            scale = read_strength(strength, height, width, transforms, fit) if isinstance(strength, Path) else strength
            tasks = {"image_to_image": Task(with_strength(synchronous(sampling.steps, height, width), scale))}
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
