"""What `experiments.sample` is asked to make: the denoiser, the tasks, the images that they read, and the labels.

One of four things is done with an image of the user's: its black pixels are filled (a mask), it is changed (a
strength), it is continued (a canvas around it), or its texture is (an exemplar on a canvas). All of them are tasks.

Images, masks, strengths and canvases are of pixels; what a denoiser of latents is given of them is encoded with the
region that is known, or changed but not made anew (`medium`). A latent site is changed as much as that of its pixels
which is changed most.
"""

import dataclasses
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from asyncpatch.data import AbstractView, GivenBack, to_float
from asyncpatch.image_files import read_grey, read_rgb
from asyncpatch.paths import outwards
from asyncpatch.plans import Adaptive, Task, on_canvas, shifted, staged, synchronous, with_strength
from asyncpatch.process import AbstractDenoiser, Windowed
from asyncpatch.runs import Examples, Run, SamplingConfig, four_tasks, inpainting, open_batches, open_head
from asyncpatch.shapes import NULL_LABEL
from experiments.parts.drawing import choose_labels
from experiments.parts.medium import AbstractMedium
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
    give_back: bool = False
    """Put the pixels that were to be kept back into what is made, to the bit: a decoder gives them back nearly. Runs on
    pixels keep them anyway."""

    def __post_init__(self):
        done = [name for name in ("mask", "strength", "canvas") if getattr(self, name) is not None]
        if self.image is None and self.exemplar is None and (done or self.fit != "none" or self.give_back):
            raise ValueError(
                "--mask, --strength, --canvas, --fit and --give-back are for an image of yours; give --image too (or "
                "--exemplar, with --canvas), or leave them out"
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
    images: Float[Array, "count rows cols features"]
    """What tasks read, as the denoiser takes it."""
    made_labels: Int[Array, " count"]
    """Of tasks that read no image."""
    given_labels: Int[Array, " count"]
    """Of tasks that do."""
    view: AbstractView
    """From what the denoiser makes to images."""
    originals: Float[Array, "count height width channel"] | None = None
    """The images themselves, if they are not what is seen of those that tasks read."""


def asked_of_held_out(
    run: Run, view: AbstractView, sampling: SamplingConfig, labels: tuple[int, ...], count: int, head: Path | None
) -> Asked:
    """Every task once, on images that the run held out or brings along. Raises `ValueError` for labels it lacks."""
    height, width, _ = run.image_shape
    tasks = four_tasks(sampling, height, width)
    if head is not None:
        tasks["adaptive"] = Task(Adaptive(sampling.steps))
    made_labels = choose_labels(labels, count, run.num_classes)
    held_out = examples_of(run)
    index = jnp.arange(count) % len(held_out.label)
    given_labels = held_out.label[index] if run.num_classes and not labels else made_labels
    return Asked(_denoiser(run, head), tasks, held_out.image[index], made_labels, given_labels, view)


def asked_of_own(
    run: Run,
    medium: AbstractMedium,
    own: Own,
    sampling: SamplingConfig,
    labels: tuple[int, ...],
    count: int,
    head: Path | None,
) -> Asked:
    """One thing done with a file of the user's. Raises `ValueError` for files and labels that do not fit the run."""
    own_labels = choose_labels(labels or (NULL_LABEL,), count, run.num_classes)
    name, given = ("image_to_image", _changed(medium, own)) if own.strength is not None else _with_known(medium, own)
    tokens, sites = (part[0] for part in medium.given(given.image[None], given.read[None]))
    if given.read.any() and not sites.any():
        raise ValueError(
            f"no latent site has all of its {medium.side}x{medium.side} pixels known, so that nothing of the image can "
            "be read; give a mask with larger white areas"
        )
    denoiser = _denoiser(run, head)
    if sites.shape != run.image_shape[:2]:
        window = min(run.image_shape[:2])
        denoiser = Windowed(denoiser, window, window // 2)
    if given.strength is not None:
        plan = shifted(synchronous(sampling.steps, *sites.shape), sampling.shift)
        task = Task(with_strength(plan, _most(given.strength, medium.side)))
    elif own.exemplar is not None:
        task = Task(staged(outwards(sites, sampling.patch), sampling.steps, sampling.overlap), sites, sampling.trail)
    else:
        task = inpainting(sampling, sites)
    kept = given.read if given.strength is None else given.strength == 0
    view = GivenBack(medium.view, jnp.asarray(given.image), jnp.asarray(kept)) if own.give_back else medium.view
    images, originals = (jnp.broadcast_to(part[None], (count, *part.shape)) for part in (tokens, given.image))
    return Asked(denoiser, {name: task}, images, own_labels, own_labels, view, originals)


def examples_of(run: Run) -> Examples:
    """The examples that a run brings along, or else a batch of held-out images of its data."""
    if len(run.examples.label):
        return run.examples
    batch = open_batches(run.experiment, 0)[1].batch(0)
    return Examples(jnp.asarray(batch["image"]), jnp.asarray(batch["label"]))


@dataclasses.dataclass(frozen=True)
class _Given:
    """An image of the user's in pixels, and which of them are read."""

    image: Float[np.ndarray, "height width channel"]
    read: Bool[np.ndarray, "height width"]
    strength: Float[np.ndarray, "height width"] | None = None
    """How far they are changed, if that is what is asked for."""


def _with_known(medium: AbstractMedium, own: Own) -> tuple[str, _Given]:
    """An image under a mask, or in the middle of a canvas, its corner on the corner of a token."""
    if own.canvas is None:
        assert own.image is not None
        assert own.mask is not None
        height, width, _ = medium.image_shape
        transforms = medium.pixels.data.transforms
        given = read_image(own.image, medium.image_shape, transforms, own.fit)
        known = read_mask(own.mask, height, width, given.file_size, transforms, own.fit)
        return "inpainting", _Given(given.image, np.asarray(known))
    path = own.image or own.exemplar
    assert path is not None
    pixels = read_grey(path) if medium.image_shape[2] == 1 else read_rgb(path)
    middle = [(all_of - part) // 2 for all_of, part in zip(own.canvas, pixels.shape[:2], strict=True)]
    top, left = (at // medium.side * medium.side for at in middle)
    canvas, known = on_canvas(jnp.asarray(to_float(pixels)), *own.canvas, (top, left) if min(middle) >= 0 else None)
    return "outpainting" if own.exemplar is None else "texture", _Given(np.asarray(canvas), np.asarray(known))


def _changed(medium: AbstractMedium, own: Own) -> _Given:
    """An image and how far it is changed; what is made anew is not read."""
    assert own.image is not None
    assert own.strength is not None
    height, width, _ = medium.image_shape
    transforms = medium.pixels.data.transforms
    image = read_image(own.image, medium.image_shape, transforms, own.fit).image
    if isinstance(own.strength, Path):
        strength = read_strength(own.strength, height, width, transforms, own.fit)
    else:
        strength = np.full((height, width), own.strength, np.float32)
    return _Given(image, strength < 1, strength)


def _most(strength: Float[np.ndarray, "height width"], side: int) -> Float[np.ndarray, "rows cols"]:
    """The largest strength of the pixels of each token."""
    height, width = strength.shape
    return strength.reshape(height // side, side, width // side, side).max(axis=(1, 3))


def _denoiser(run: Run, head: Path | None) -> AbstractDenoiser:
    return run.denoiser if head is None else open_head(head, run)
