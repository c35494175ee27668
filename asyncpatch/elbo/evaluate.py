"""The bound of a data set: checked, compiled, in batches, in nats and in bits per dimension.

The points of a law and the denoiser's errors at them are two programs, so that the denoiser, which takes long to
compile, is compiled once for all laws, designs and schedules' time fields of a shape.

Invariant: image `i` sees the key `fold_in(key, i)`, whatever the batches; two laws at one key see the same noise.
"""

import math
from collections.abc import Callable
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray

from asyncpatch.elbo.bound import error_rate
from asyncpatch.elbo.design import AbstractDesign, Points
from asyncpatch.elbo.ends import AbstractDecoder, check_schedule, prior_nats
from asyncpatch.noise_schedule import AbstractNoiseSchedule
from asyncpatch.paths import AbstractPathLaw
from asyncpatch.process import AbstractDenoiser, check_labels

CALLS_TOGETHER = 256
"""Denoiser calls of one batch."""

CALLS_A_DISPATCH = 16_384
"""Denoiser calls between two reports of progress, about."""

GRID = 65
"""Points at which a path is looked at before it is trusted."""

LOOKED_AT = 4
"""Paths of a law that are looked at."""


def _ignore(done: int, total: int) -> None:
    """Report nothing."""


class Evaluation(eqx.Module):
    """The bound of every image of a set, in nats: means over draws, and the standard error that the draws leave.

    `dimensions` is the number of entries of an image.
    """

    diffusion: Float[np.ndarray, " images"]
    reconstruction: Float[np.ndarray, " images"]
    prior: Float[np.ndarray, " images"]
    draw_error: Float[np.ndarray, " images"]
    dimensions: int

    @property
    def nats(self) -> Float[np.ndarray, " images"]:
        """The whole bound of every image."""
        return self.diffusion + self.reconstruction + self.prior

    def bits_per_dimension(self) -> tuple[float, float, float]:
        """The mean over images, its standard error as an estimate for the population that the images come from, and
        its standard error as an estimate for these very images, which comes of the draws alone."""
        unit = self.dimensions * math.log(2)
        count = len(self.nats)
        population = float(np.std(self.nats, ddof=1) / math.sqrt(count)) if count > 1 else math.nan
        draws = float(np.sqrt(np.sum(self.draw_error**2)) / count)
        return float(np.mean(self.nats)) / unit, population / unit, draws / unit


def evaluate(
    key: PRNGKeyArray,
    denoiser: AbstractDenoiser,
    law: AbstractPathLaw,
    design: AbstractDesign,
    decoder: AbstractDecoder,
    images: Float[Array, "images height width channel"],
    labels: Int[Array, " images"],
    draws: int,
    progress: Callable[[int, int], None] = _ignore,
) -> Evaluation:
    """Bound `-log p(x | label)` of every image by `draws` independent draws of `design`.

    Args:
        denoiser: on a schedule with finite log-SNR at both ends; `process.OnSchedule` moves it to one.
        progress: called with images done and images in all, after every dispatch.

    Raises `ValueError` before any compute for an infinite log-SNR, an array that is no set of images, images that the
    decoder does not know, labels that the denoiser does not know or that are not one per image, fewer than two draws,
    or a law whose paths fall or miss their ends; `TypeError` for labels that are not int32.
    """
    if draws < 2:
        raise ValueError(f"a standard error needs at least two draws, got draws={draws}; give a larger number")
    check_schedule(denoiser.schedule)
    _check_images(images)
    count, height, width, channels = images.shape
    decoder.check(images)
    check_labels(labels, count, denoiser.num_classes)
    check_law(law, height, width)

    together = max(1, min(count, CALLS_A_DISPATCH // (draws * design.calls)))
    parts = []
    for start in range(0, count, together):
        # The last group is filled up with images of the first ones, so that there is one shape.
        index = jnp.arange(start, start + together) % count
        point_keys, decoder_keys = _image_keys(key, index)
        points = _draw_points(point_keys, law, design, (height, width, channels), draws)
        diffusion = _read_rates(denoiser, images[index], labels[index], points)
        ends = _read_ends(decoder_keys, denoiser.schedule, decoder, images[index], draws)
        kept = min(together, count - start)
        parts.append([np.asarray(part)[:kept] for part in (diffusion, *ends)])
        progress(start + kept, count)
    diffusion, reconstruction, prior = (np.concatenate(part) for part in zip(*parts, strict=True))
    total = diffusion + reconstruction
    return Evaluation(
        diffusion.mean(axis=1),
        reconstruction.mean(axis=1),
        prior,
        np.std(total, axis=1, ddof=1) / math.sqrt(draws),
        height * width * channels,
    )


def check_law(law: AbstractPathLaw, height: int, width: int) -> None:
    """Look at a few paths of a law. Raises `ValueError` if one falls, leaves [0, 1] or misses an end."""
    times = np.asarray(_look_at(law, height, width))
    name = type(law).__name__
    if not (np.isfinite(times).all() and times.min() >= 0 and times.max() <= 1):
        raise ValueError(
            f"paths must stay in [0, 1], got times from {times.min()} to {times.max()} from {name}; mend it"
        )
    if times[:, 0].max() > 0 or times[:, -1].min() < 1:
        raise ValueError(
            f"a path must rise from all 0 at r = 0 to all 1 at r = 1, got times up to {times[:, 0].max()} at 0 and "
            f"down to {times[:, -1].min()} at 1 from {name}: its bound would leave out a part; mend the law"
        )
    fall = -np.diff(times, axis=1).min()
    if fall > np.finfo(times.dtype).eps * 4:
        raise ValueError(f"no time may fall along a path, got a fall by {fall} from {name}; mend the law")


@eqx.filter_jit
def _look_at(law: AbstractPathLaw, height: int, width: int) -> Float[Array, "paths points {height} {width}"]:
    def path(key):
        return jax.vmap(law.sample(key, height, width))(jnp.linspace(0.0, 1.0, GRID))

    return jax.vmap(path)(jr.split(jr.key(0), LOOKED_AT))


def _check_images(images: Float[Array, "images height width channel"]) -> None:
    if images.ndim != 4 or images.shape[0] == 0 or not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(
            "a bound is of one or more images of floating point values, images height width channel, got an array of "
            f"shape {images.shape} and dtype {images.dtype}; give images as asyncpatch.data.to_float makes them"
        )


@eqx.filter_jit
def _image_keys(key: PRNGKeyArray, index: Int[Array, " images"]) -> tuple[Key[Array, " images"], Key[Array, " images"]]:
    both = jax.vmap(lambda i: jr.split(jr.fold_in(key, i)))(index)
    return both[:, 0], both[:, 1]


@eqx.filter_jit
def _draw_points(
    keys: Key[Array, " images"], law: AbstractPathLaw, design: AbstractDesign, shape: tuple[int, int, int], draws: int
) -> Points:
    """Points of every draw of every image: leading axes are images and draws."""
    one = partial(design.draw, law=law, height=shape[0], width=shape[1], channels=shape[2])
    # One axis, not two nested ones: half the time to compile.
    flat = jax.vmap(one)(jax.vmap(lambda key: jr.split(key, draws))(keys).ravel())
    return jax.tree.map(lambda leaf: leaf.reshape(len(keys), draws, *leaf.shape[1:]), flat)


@eqx.filter_jit
def _read_rates(
    denoiser: AbstractDenoiser,
    images: Float[Array, "images height width channel"],
    labels: Int[Array, " images"],
    points: Points,
) -> Float[Array, "images draws"]:
    """The line integral's draws."""
    images_, draws, calls = points.times.shape[:3]
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[3:]), points)
    owner = jnp.repeat(jnp.arange(images_), draws * calls)

    def call(at):
        point, image = at
        rate = error_rate(denoiser, images[image], point.times, point.noise, labels[image])
        return jnp.sum(point.weights * rate)

    nats = jax.lax.map(call, (flat, owner), batch_size=min(CALLS_TOGETHER, len(owner)))
    return jnp.sum(nats.reshape(images_, draws, calls), axis=-1)


@eqx.filter_jit
def _read_ends(
    keys: Key[Array, " images"],
    schedule: AbstractNoiseSchedule,
    decoder: AbstractDecoder,
    images: Float[Array, "images height width channel"],
    draws: int,
) -> tuple[Float[Array, "images draws"], Float[Array, " images"]]:
    """Draws of the reconstruction term, and the prior term."""

    def reconstruct(at):
        key, image = at
        return jax.vmap(lambda k: decoder.nats(schedule, image, jr.normal(k, image.shape)))(jr.split(key, draws))

    return jax.lax.map(reconstruct, (keys, images)), jax.vmap(partial(prior_nats, schedule))(images)
