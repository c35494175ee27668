"""The patch discriminator: from an image to one number per site, above 0 for "real", below for "reconstructed".

Each level gathers 2x2 blocks of tokens and convolves them: with a 3x3 kernel a token of level `n` sees about `5 2^n`
pixels, so that what is judged is texture and not the image. Source: Isola et al. 2017 (arXiv 1611.07004), with strided
convolutions written as above, and RMS normalisation per token instead of batch normalisation, so that every image is
judged by itself.
"""

import dataclasses

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray

from asyncpatch.nn.layers import Conv, RMSNorm, draw_weights
from asyncpatch.nn.stages import MOST
from asyncpatch.ranges import check_number
from asyncpatch.shapes import Image
from asyncpatch.tokens import split_patches

LEAK = 0.2
"""Slope of the activation below 0."""


@dataclasses.dataclass(frozen=True)
class DiscriminatorConfig:
    """The shape of a `Discriminator`; each width halves the resolution."""

    channels: int
    """Channels of the image."""
    widths: tuple[int, ...] = (64, 128, 256)

    def __post_init__(self):
        check_number("channels", self.channels, lambda count: 1 <= count <= MOST, f"in 1 to {MOST:,}")
        if not self.widths or not 1 <= min(self.widths) <= MOST:
            raise ValueError(f"a discriminator has levels of 1 to {MOST:,} channels, got widths={self.widths}")

    def build(self, key: PRNGKeyArray) -> "Discriminator":
        """A discriminator with fresh weights."""
        return Discriminator(self, key)

    def check_image(self, height: int, width: int, channels: int) -> None:
        """Raises `ValueError` if images of this shape cannot be judged."""
        multiple = 2 ** len(self.widths)
        if channels != self.channels or height % multiple or width % multiple:
            raise ValueError(
                f"the discriminator takes images of {self.channels} channels whose sides are multiples of {multiple}, "
                f"got {height}x{width} of {channels}; resize them, or give it fewer widths"
            )


class Discriminator(eqx.Module):
    """Judges an image site by site."""

    config: DiscriminatorConfig = eqx.field(static=True)
    convolutions: list[Conv]
    norms: list[RMSNorm]
    last: Conv

    def __init__(self, config: DiscriminatorConfig, key: PRNGKeyArray):
        inputs = (config.channels, *config.widths[:-1])
        convolutions = [Conv(3, 4 * here, width) for here, width in zip(inputs, config.widths, strict=True)]
        self.config = config
        self.norms = [RMSNorm(width) for width in config.widths[1:]]
        self.convolutions, self.last = draw_weights((convolutions, Conv(3, config.widths[-1], 1)), key)

    def __call__(self, image: Image) -> Float[Array, "rows cols"]:
        """Raises `ValueError` before any compute if the image's shape does not fit."""
        self.config.check_image(*image.shape)
        x = image
        for level, convolution in enumerate(self.convolutions):
            x = convolution(split_patches(x, 2))
            x = jax.nn.leaky_relu(x if level == 0 else self.norms[level - 1](x), LEAK)
        return self.last(x)[..., 0]
