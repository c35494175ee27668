"""The leak score: what the known latents of a masked image tell of what is hidden.

An encoder sees many pixels in each latent site, so that a site whose own pixels are all known may still tell of hidden
ones near it, or of the fact that they are hidden. Three questions, each by distance to the hidden region, in sites:

    by_pixels   how far known latents move when hidden pixels are replaced by those of another image
    by_region   how far they are from the latents of the whole image, in which nothing is hidden
    probe       how often a small network tells the two apart, from known latents alone (`probe_accuracy`)

Movements are root mean squares in units of the latents' spread, their standard deviation over images and sites, channel
by channel. Invariant: an encoder that sees no hidden pixel has `by_pixels` of exactly 0.

`told`, `greyed` and `untold` are three ways to encode a masked image with one autoencoder: with its known region; as
those without one are usually called, with grey in the holes; and with the whole image, hidden pixels and all.
"""

import dataclasses
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from asyncpatch.nn import Autoencoder, known_sites

Images = Float[Array | np.ndarray, "batch height width channel"]
Regions = Bool[Array | np.ndarray, "batch height width"]
Latents = Float[Array | np.ndarray, "batch rows cols latent"]

Encode = Callable[[Images, Regions], Latents]
"""`(images, known) -> latents`: how masked images are encoded."""


def told(autoencoder: Autoencoder) -> Encode:
    """The encoder knows what is known."""
    return _in_batches(autoencoder.encode)


def greyed(autoencoder: Autoencoder) -> Encode:
    """Hidden pixels are grey, and the encoder takes them for known."""

    def encode(image, known):
        return autoencoder.encode(jnp.where(known[..., None], image, 0.0), jnp.ones_like(known))

    return _in_batches(encode)


def untold(autoencoder: Autoencoder) -> Encode:
    """The whole image is encoded, and its latents are masked afterwards."""
    return _in_batches(lambda image, known: autoencoder.encode(image, jnp.ones_like(known)))


def _in_batches(encode: Callable[[Array, Array], Array]) -> Encode:
    compiled = eqx.filter_jit(lambda images, known: jax.vmap(encode)(images, known))
    return lambda images, known: compiled(jnp.asarray(images), jnp.asarray(known))


@dataclasses.dataclass(frozen=True)
class Leak:
    """Of known sites at one distance to the hidden region."""

    distance: int
    """In sites: 1 touches the region, by a side or a corner."""
    sites: int
    """How many were measured."""
    by_pixels: float
    by_region: float
    """Movements in units of the spread."""


def leak_score(encode: Encode, images: Images, known: Regions, factor: int) -> list[Leak]:
    """By distance, nearest first, for images each with a known region of its own; sites are `factor` pixels wide.

    Raises `ValueError` if there are fewer than two images, or no known site in any.
    """
    images, known = np.asarray(images), np.asarray(known)
    if len(images) < 2 or known.shape != images.shape[:3]:
        raise ValueError(
            f"a leak score takes two images or more, each with the known region of its pixels, got {len(images)} images"
            f" and regions of shape {known.shape}; hidden pixels are replaced by those of the next image"
        )
    other = np.where(known[..., None], images, np.roll(images, 1, axis=0))
    whole, masked, changed = (
        np.asarray(encode(*pair), np.float64)
        for pair in ((images, np.ones_like(known)), (images, known), (other, known))
    )
    distance, spread = distances(known, factor), whole.std(axis=(0, 1, 2))
    if not distance.any():
        raise ValueError("no site is known in any image, so that nothing can leak; give regions with known sites")
    by_pixels, by_region = (
        np.square((moved - masked) / np.where(spread > 0, spread, 1.0)).mean(axis=-1) for moved in (changed, whole)
    )
    return [
        Leak(
            int(at),
            int((distance == at).sum()),
            float(np.sqrt(by_pixels[distance == at].mean())),
            float(np.sqrt(by_region[distance == at].mean())),
        )
        for at in np.unique(distance[distance > 0])
    ]


def distances(known: Regions, factor: int) -> Int[np.ndarray, "batch rows cols"]:
    """How many sites away the nearest hidden site is, diagonals counted as one; 0 for hidden sites.

    Raises `ValueError` for an image in which nothing is hidden.
    """
    sites = np.stack([np.asarray(known_sites(jnp.asarray(region), factor)) for region in known])
    whole = sites.all((1, 2))
    if whole.any():
        raise ValueError(f"nothing is hidden in image {int(np.argmax(whole))}; give regions that hide a pixel")
    _, rows, cols = sites.shape
    far, distance = sites, np.zeros(sites.shape, int)
    while far.any():
        distance += far
        around = np.pad(far, ((0, 0), (1, 1), (1, 1)), constant_values=True)
        far = np.all([around[:, i : i + rows, j : j + cols] for i in range(3) for j in range(3)], axis=0)
    return distance
