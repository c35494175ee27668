"""The two ends of a network: from the image to what its body works on, and from there to the velocity.

On pixels an end is one convolution. **Ends on patches** are light layers at full resolution: the stem sees each
pixel beside its own time before it gathers a patch, and the head enlarges by nearest neighbour and convolves at full
resolution. No output weight belongs to a position inside a patch, so the patch grid leaves no checker pattern in the
image.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from asyncpatch.nn.blocks import enlarge
from asyncpatch.nn.layers import Conv, Film, RMSNorm
from asyncpatch.shapes import Image
from asyncpatch.tokens import split_patches

STEM_TIME_FEATURES = 3
"""Cosine modes that the stem on patches sees beside each pixel: cheaper at full resolution than FiLM."""


class PixelEnds(eqx.Module):
    """Input and output on pixels: one convolution each."""

    stem: Conv
    norm: RMSNorm
    head: Conv

    def __init__(self, channels: int, width: int):
        self.stem = Conv(3, channels, width)
        self.norm = RMSNorm(width)
        self.head = Conv(3, width, channels, gain=0.0)

    def enter(self, z: Image, features: Float[Array, "rows cols features"], embedding: Float[Array, " embedding"]):
        """What the body works on, and what `leave` needs."""
        return self.stem(z), None

    def leave(self, x, aside, features, embedding) -> Float[Array, "height width hidden"]:
        """What `head` makes the velocity of."""
        return jax.nn.silu(self.norm(x))


class PatchEnds(eqx.Module):
    """Input and output at full resolution around a body on patches."""

    stem: Conv
    stem_norm: RMSNorm
    gather: Conv
    norm: RMSNorm
    spread: Conv
    mix: Conv
    mix_film: Film
    head: Conv
    patch: int = eqx.field(static=True)

    def __init__(self, channels: int, width: int, patch: int, pixel_channels: int):
        """Around a body of `width` channels, which is also the size of the label's embedding."""
        self.stem = Conv(3, channels + STEM_TIME_FEATURES, pixel_channels)
        self.stem_norm = RMSNorm(pixel_channels)
        self.gather = Conv(1, patch**2 * pixel_channels, width)
        self.norm = RMSNorm(width)
        self.spread = Conv(1, width, pixel_channels)
        self.mix = Conv(3, 2 * pixel_channels, pixel_channels)
        self.mix_film = Film(pixel_channels, width)
        self.head = Conv(3, pixel_channels, channels, gain=0.0)
        self.patch = patch

    def enter(self, z: Image, features: Float[Array, "rows cols features"], embedding: Float[Array, " embedding"]):
        """What the body works on, and the pixels' own features, which `leave` needs."""
        times = jnp.broadcast_to(features[..., 1 : 1 + STEM_TIME_FEATURES], (*z.shape[:2], STEM_TIME_FEATURES))
        pixels = jax.nn.silu(self.stem_norm(self.stem(jnp.concatenate([z, times], axis=-1))))
        return self.gather(split_patches(pixels, self.patch)), pixels

    def leave(self, x, aside, features, embedding) -> Float[Array, "height width hidden"]:
        """What `head` makes the velocity of."""
        spread = enlarge(self.spread(jax.nn.silu(self.norm(x))), self.patch)
        mixed = self.mix(jnp.concatenate([spread, aside], axis=-1))
        return jax.nn.silu(self.mix_film(mixed, features, embedding))
