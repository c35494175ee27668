"""The two halves of an autoencoder: stages of residual blocks with spatial FiLM, from pixels to latents and back.

Blocks are those of the UNets. Where these take the features of a time field, the halves of an autoencoder take those of
a field that is 0 where a pixel is known and 1 where it is hidden: a known token's time is 0 there, too. Pooled to a
level, the features say what share of a token is known. Normalisation is per token: a mean over the whole image would
tell every site of the hidden region.

Without attention a site sees only the pixels near it (`Stages.reach`), so that far from the hidden region latents are
those of the whole image, to the bit. Full resolution costs most and may have no block at all, as in
`asyncpatch.nn.lean_unet`.
"""

import dataclasses
import itertools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from asyncpatch.nn.blocks import AttentionBlock, ResidualBlock, double
from asyncpatch.nn.layers import Conv, RMSNorm
from asyncpatch.ranges import check_counts, check_number
from asyncpatch.shapes import Image
from asyncpatch.tokens import pool, split_patches

MOST = 2**20
"""Of whatever a shape counts: channels, blocks, codes."""

Features = Float[Array, "_rows _cols features"]
Latents = Float[Array, "rows cols latent"]


@dataclasses.dataclass(frozen=True)
class Stages:
    """The shape of an encoder, or of a decoder: both are listed from pixels to latents."""

    widths: tuple[int, ...]
    """Channels of each level; each after the first halves the resolution."""
    blocks: tuple[int, ...]
    """Residual blocks of each level."""
    attention: int = 0
    """Self-attention blocks, each after one of the last level's first residual blocks."""
    head: int = 64
    """Channels of one attention head."""

    def __post_init__(self):
        check_counts(head=self.head)
        if not self.widths or len(self.blocks) != len(self.widths) or not 1 <= min(self.widths) <= MOST:
            raise ValueError(
                f"blocks says how many each level has, got widths={self.widths} and blocks={self.blocks}; give one "
                f"number of blocks for each width, and widths of 1 to {MOST:,}"
            )
        if min(self.blocks) < 0 or max(self.blocks) > MOST:
            raise ValueError(f"a level has 0 to {MOST:,} blocks, got {self.blocks}; give another number")
        last = self.blocks[-1]
        check_number("attention", self.attention, lambda count: 0 <= count <= last, f"in 0 to {last}, the last blocks")
        if self.attention and self.widths[-1] % self.head:
            raise ValueError(
                f"{self.widths[-1]} channels cannot be split into heads of {self.head}; give a head that divides them"
            )

    @property
    def factor(self) -> int:
        """Pixels of a side of a latent site."""
        return 2 ** (len(self.widths) - 1)

    @property
    def reach(self) -> int | float:
        """How many sites beyond its own an encoder's site sees: each 3x3 convolution adds a token of its level."""
        if self.attention:
            return math.inf
        pixels = 1 + sum(2 * count * 2**level for level, count in enumerate(self.blocks))
        return math.ceil(pixels / self.factor)


class Stage(eqx.Module):
    """The blocks of one resolution."""

    blocks: list[ResidualBlock]
    attention: list[AttentionBlock]

    def __init__(self, stages: Stages, level: int):
        width, last = stages.widths[level], level == len(stages.widths) - 1
        # No label: a single constant stands in the place of its embedding.
        self.blocks = [ResidualBlock(width, width, embedding=1, dropout=0.0) for _ in range(stages.blocks[level])]
        self.attention = [AttentionBlock(width, stages.head) for _ in range(stages.attention if last else 0)]

    def __call__(self, x: Image, features: Features, rematerialise: bool) -> Image:
        run = jax.checkpoint(_run_block) if rematerialise else _run_block
        for number, block in enumerate(self.blocks):
            x = run(block, x, features)
            if number < len(self.attention):
                x = self.attention[number](x)
        return x


class Encoder(eqx.Module):
    """From an image, and a channel that is 1 where it is known, to unquantised latents."""

    stem: Conv
    stages: list[Stage]
    gather: list[Conv]
    norm: RMSNorm
    last: Conv

    def __init__(self, stages: Stages, channels: int, latent_channels: int):
        widths = stages.widths
        self.stem = Conv(3, channels + 1, widths[0])
        self.stages = [Stage(stages, level) for level in range(len(widths))]
        self.gather = [Conv(1, 4 * width, below) for width, below in itertools.pairwise(widths)]
        self.norm = RMSNorm(widths[-1])
        self.last = Conv(1, widths[-1], latent_channels)

    def __call__(self, x: Image, features: Features, rematerialise: bool) -> Latents:
        x = self.stem(x)
        pyramid = pooled(features, len(self.stages))
        for level, stage in enumerate(self.stages):
            if level > 0:
                x = self.gather[level - 1](split_patches(x, 2))
            x = stage(x, pyramid[level], rematerialise)
        return self.last(jax.nn.silu(self.norm(x)))


class Decoder(eqx.Module):
    """From latents to what the last layer reads, at full resolution. Nearest-neighbour enlargement leaves no seams."""

    stem: Conv
    stages: list[Stage]
    spread: list[Conv]
    norm: RMSNorm
    last: Conv

    def __init__(self, stages: Stages, channels: int, latent_channels: int):
        widths = stages.widths
        self.stem = Conv(3, latent_channels, widths[-1])
        self.stages = [Stage(stages, level) for level in range(len(widths))]
        self.spread = [Conv(1, below, width) for width, below in itertools.pairwise(widths)]
        self.norm = RMSNorm(widths[0])
        self.last = Conv(3, widths[0], channels)

    def __call__(
        self, latents: Latents, features: Features, rematerialise: bool
    ) -> Float[Array, "height width hidden"]:
        x = self.stem(latents)
        pyramid = pooled(features, len(self.stages))
        for level in reversed(range(len(self.stages))):
            x = self.stages[level](x, pyramid[level], rematerialise)
            if level > 0:
                x = double(self.spread[level - 1](x))
        return jax.nn.silu(self.norm(x))


def pooled(features: Features, levels: int) -> list[Float[Array, "_ _ features"]]:
    """The features of each level, from full resolution down."""
    return [features if level == 0 else pool(features, 2**level) for level in range(levels)]


def _run_block(block: ResidualBlock, x: Image, features: Features) -> Image:
    return block(x, features, jnp.ones(1, x.dtype), None)
