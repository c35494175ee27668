"""How what a denoiser makes is seen: as the images that pictures and judges take.

Pixels are images already. Latents are scaled back and decoded, many at a time in one compiled program; values that
stray from [-1, 1] are clipped, as an image file would.
"""

import abc
import dataclasses
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from asyncpatch.data.latents import LatentScale
from asyncpatch.ranges import check_counts
from asyncpatch.shapes import Image


class AbstractView(abc.ABC):
    """From what a denoiser makes to images.

    To write one more: a frozen dataclass with `images`. No image may depend on another one of its batch.
    """

    @abc.abstractmethod
    def images(self, made: Float[Array, "batch rows cols features"]) -> Float[Array, "batch height width channel"]:
        """Images in [-1, 1]."""


@dataclasses.dataclass(frozen=True)
class PixelView(AbstractView):
    """Of a denoiser of images."""

    def images(self, made: Float[Array, "batch rows cols features"]) -> Float[Array, "batch height width channel"]:
        return jnp.clip(made, -1.0, 1.0)


@dataclasses.dataclass(frozen=True)
class LatentColours(AbstractView):
    """Latents of unit variance as colours, where their autoencoder is not at hand: a picture a pixel a site."""

    deviations: float = 3.0
    """What lies further from 0 is clipped."""

    def images(self, made: Float[Array, "batch rows cols features"]) -> Float[Array, "batch height width channel"]:
        return jnp.clip(made / self.deviations, -1.0, 1.0)


@dataclasses.dataclass(frozen=True, eq=False)
class LatentView(AbstractView):
    """Of a denoiser of latents: `decode` makes one image of the latents of one image, as the encoder gives them."""

    scale: LatentScale
    decode: Callable[[Float[Array, "rows cols features"]], Image]
    at_once: int = 32
    """Images that are decoded together: fewer take less memory."""

    def __post_init__(self):
        check_counts(at_once=self.at_once)

    def images(self, made: Float[Array, "batch rows cols features"]) -> Float[Array, "batch height width channel"]:
        return _decode_all(self.decode, self.scale.from_unit(made), min(self.at_once, len(made)))


@dataclasses.dataclass(frozen=True, eq=False)
class GivenBack(AbstractView):
    """Of another view, with the known pixels of one image put into all that it shows, to the bit."""

    view: AbstractView
    image: Float[Array, "height width channel"]
    known: Bool[Array, "height width"]

    def images(self, made: Float[Array, "batch rows cols features"]) -> Float[Array, "batch height width channel"]:
        seen = self.view.images(made)
        return give_back(seen, jnp.broadcast_to(self.image[None], seen.shape), self.known)


@eqx.filter_jit
def _decode_all(decode, latents, at_once):
    return jnp.clip(jax.lax.map(decode, latents, batch_size=at_once), -1.0, 1.0)


def give_back(
    made: Float[Array, "batch height width channel"],
    given: Float[Array, "batch height width channel"],
    known: Bool[Array, "*batch height width"],
) -> Float[Array, "batch height width channel"]:
    """Decoded images with the known pixels of those that were given, to the bit; `known` may be one region for all."""
    return jnp.where(known[..., None], given, made)
