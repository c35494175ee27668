"""How far apart two textures are: in what a network sees of them, and in their patches.

**Gram distance.** A texture is what stays the same from place to place: the mean products of the activations of an
image network, position by position (Gatys, Ecker and Bethge 2015, arXiv 1505.07376). Of every stage of VGG16, with `F`
its activations by position and map,

    G = F^T F / positions,      distance = mean over stages of |G - G'| / |G'|,      G' of the real texture.

**Patch distance.** The 1-Wasserstein distance of the patches of two images along a random direction, averaged over
directions (sliced Wasserstein). It needs no network, and sees no further than a patch.

Both look at pixels outside of a known region alone, which all ways of synthesis that keep their exemplar have for
nothing. Invariant: both are 0 for equal images.
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from asyncpatch.metrics.networks import Vgg16Features
from asyncpatch.tokens import pool

Pixels = Float[np.ndarray | Array, "height width channel"]

PATCH = 8
"""Side of a patch: a part of a stone, or a joint with the bricks beside it."""

DIRECTIONS = 256
"""Of which the average is taken: its relative error is some percents, and equal directions are used for all images."""


def gram_distance(network: Vgg16Features, made: Pixels, real: Pixels, known: Bool[np.ndarray, "height width"]) -> float:
    """The distance of `made` from `real`, for images of a size that 16 divides."""
    maps = eqx.filter_jit(network.maps)(jnp.stack([jnp.asarray(made), jnp.asarray(real)]))
    distances = []
    for stage, activations in enumerate(maps):
        unknown = np.asarray(pool(jnp.asarray(~known[..., None], jnp.float32), 2**stage))[..., 0] == 1
        one, other = (np.asarray(each, np.float64)[unknown] for each in activations)
        of_made, of_real = (flat.T @ flat / len(flat) for flat in (one, other))
        distances.append(np.linalg.norm(of_made - of_real) / np.linalg.norm(of_real))
    return float(np.mean(distances))


def patch_distance(made: Pixels, real: Pixels, known: Bool[np.ndarray, "height width"]) -> float:
    """The distance of the patches of two images of one size, in the units of their pixels.

    Raises `ValueError` if no patch lies outside of the known region.
    """
    directions = np.random.default_rng(0).normal(size=(DIRECTIONS, PATCH**2 * made.shape[-1]))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    whole = ~_patches(known[..., None]).any(axis=1)
    if not whole.any():
        raise ValueError(
            f"no patch of {PATCH}x{PATCH} pixels lies outside of the known region; leave more unknown around it"
        )
    one, other = (np.sort(_patches(np.asarray(image))[whole] @ directions.T, axis=0) for image in (made, real))
    return float(np.abs(one - other).mean())


def _patches(image: np.ndarray) -> np.ndarray:
    """One row of values a patch."""
    windows = np.lib.stride_tricks.sliding_window_view(image, (PATCH, PATCH), (0, 1))
    return windows.reshape(windows.shape[0] * windows.shape[1], -1)
