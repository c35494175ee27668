"""What `experiments.sample` is asked to make: the denoiser, the tasks, the images that they read, and the labels.

One of four things is done with an image of the user's: its black pixels are filled (a mask), it is changed (a
strength), it is continued (a canvas around it), or its texture is (an exemplar on a canvas). All of them are tasks.
"""

import dataclasses
from pathlib import Path

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from asyncpatch.data import to_float
from asyncpatch.image_files import read_grey, read_rgb
from asyncpatch.paths import outwards
from asyncpatch.plans import Adaptive, Task, on_canvas, shifted, staged, synchronous, with_strength
from asyncpatch.process import AbstractDenoiser, Windowed
from asyncpatch.runs import Examples, Run, SamplingConfig, four_tasks, inpainting, open_batches, open_head
from asyncpatch.shapes import NULL_LABEL
from experiments.parts.drawing import choose_labels
from experiments.parts.own_images import Fit, read_image, read_mask, read_strength


@dataclasses.dataclass(frozen=True)
class Own:
    """A file of the user's, and what is to be done with it.

    Raises `ValueError` unless that is one thing, or nothing at all.
    """

    image: Path | None = None
    """An image file to work on; if not given, the run's examples, or else held-out images of its data."""
    mask: Path | None = None
    """A mask file, white where the image is known: inpainting."""
    strength: float | Path | None = None
    """How far the image is changed, in [0, 1], or a file with a strength per pixel, white where it is 1."""
    exemplar: Path | None = None
    """An image file whose texture is continued, ring after ring, over the canvas."""
    canvas: tuple[int, int] | None = None
    """Height and width of what is made around the image, or of the exemplar's texture."""
    fit: Fit = "none"
    """How an image of another size is brought to the network's: `crop` its middle, `resize` all of it."""

    def __post_init__(self):
        done = [name for name in ("mask", "strength", "canvas") if getattr(self, name) is not None]
        if self.image is None and self.exemplar is None and (done or self.fit != "none"):
            raise ValueError(
                "--mask, --strength, --canvas and --fit are for an image of yours; give --image too (or --exemplar, "
                "with --canvas), or leave them out"
            )
        if self.image is not None and (self.exemplar is not None or len(done) != 1):
            raise ValueError(
                "an image comes with one thing to do with it: --mask for inpainting, --strength for image to image, or "
                "--canvas for what lies beyond its border"
            )
        if self.exemplar is not None and done != ["canvas"]:
            raise ValueError("the texture of an exemplar goes onto a canvas, and nothing else; give --canvas alone")
        if self.canvas is not None and self.fit != "none":
            raise ValueError("an image on a canvas keeps its size; leave --fit out")


@dataclasses.dataclass(frozen=True)
class Asked:
    """All that is drawn."""

    denoiser: AbstractDenoiser
    tasks: dict[str, Task]
    images: Float[Array, "count height width channel"]
    made_labels: Int[Array, " count"]
    """Of tasks that read no image."""
    given_labels: Int[Array, " count"]
    """Of tasks that do."""


def asked(
    run: Run, own: Own, sampling: SamplingConfig, labels: tuple[int, ...], count: int, head: Path | None
) -> Asked:
    """Everything read and checked. Raises `ValueError` for files and labels that do not fit the run."""
    denoiser = run.denoiser if head is None else open_head(head, run)
    height, width, _ = run.image_shape
    if own.image is None and own.exemplar is None:
        tasks = four_tasks(sampling, height, width)
        if head is not None:
            tasks["adaptive"] = Task(Adaptive(sampling.steps))
        made_labels = choose_labels(labels, count, run.num_classes)
        held_out = examples_of(run)
        index = jnp.arange(count) % len(held_out.label)
        given_labels = held_out.label[index] if run.num_classes and not labels else made_labels
        return Asked(denoiser, tasks, held_out.image[index], made_labels, given_labels)
    own_labels = choose_labels(labels or (NULL_LABEL,), count, run.num_classes)
    if own.canvas is not None:
        denoiser, name, task, image = _on_canvas(denoiser, run, own, sampling)
    else:
        name, task, image = _on_image(run, own, sampling)
    images = jnp.broadcast_to(image[None], (count, *image.shape))
    return Asked(denoiser, {name: task}, images, own_labels, own_labels)


def examples_of(run: Run) -> Examples:
    """The examples that a run brings along, or else a batch of held-out images of its data."""
    if len(run.examples.label):
        return run.examples
    batch = open_batches(run.experiment, 0)[1].batch(0)
    return Examples(jnp.asarray(batch["image"]), jnp.asarray(batch["label"]))


def _on_image(run: Run, own: Own, sampling: SamplingConfig) -> tuple[str, Task, Float[Array, "height width channel"]]:
    """Inpainting, or image to image."""
    height, width, _ = run.image_shape
    assert own.image is not None
    transforms = run.experiment.data.transforms
    given = read_image(own.image, run.image_shape, transforms, own.fit)
    image = jnp.asarray(given.image)
    if own.mask is not None:
        known = read_mask(own.mask, height, width, given.file_size, transforms, own.fit)
        return "inpainting", inpainting(sampling, known), image
    assert own.strength is not None
    scale = (
        read_strength(own.strength, height, width, transforms, own.fit)
        if isinstance(own.strength, Path)
        else own.strength
    )
    plan = shifted(synchronous(sampling.steps, height, width), sampling.shift)
    return "image_to_image", Task(with_strength(plan, scale)), image


def _on_canvas(
    denoiser: AbstractDenoiser, run: Run, own: Own, sampling: SamplingConfig
) -> tuple[AbstractDenoiser, str, Task, Float[Array, "height width channel"]]:
    """What lies beyond an image's border, all of it together; or the texture of an exemplar, ring after ring."""
    path = own.image or own.exemplar
    assert path is not None
    assert own.canvas is not None
    pixels = read_grey(path) if run.image_shape[2] == 1 else read_rgb(path)
    canvas, known = on_canvas(jnp.asarray(to_float(pixels)), *own.canvas)
    if own.canvas != run.image_shape[:2]:
        window = min(run.image_shape[:2])
        denoiser = Windowed(denoiser, window, window // 2)
    if own.exemplar is None:
        return denoiser, "outpainting", inpainting(sampling, known), canvas
    plan = staged(outwards(known, sampling.patch), sampling.steps, sampling.overlap)
    return denoiser, "texture", Task(plan, known, sampling.trail), canvas
