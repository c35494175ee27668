"""A UNet of few and cheap layers, for small machines.

Full resolution is where a network learns most from an image and where its layers cost most: a convolution of few
channels over many pixels keeps a processor's multipliers idle. So there are few of them. Each level has `blocks`
residual blocks on the way down and as many on the way up, all of one width; between levels a 1x1 convolution gathers
2x2 blocks of tokens, or spreads a token over them, and the way up *adds* what the way down had. The bottom is wide,
with self-attention between its blocks. Beside the ADM family's UNet of the same full-resolution width
(`asyncpatch.nn.unet`) a train step costs a third, with one block a level and widths of 16, 32 and 64.

The time field enters every block as there, by the time features pooled to its resolution.
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from asyncpatch.nn.base import AbstractFieldNetwork, AbstractNetworkConfig
from asyncpatch.nn.blocks import AttentionBlock, ResidualBlock, double
from asyncpatch.nn.ends import PixelEnds
from asyncpatch.nn.layers import Conv, draw_weights
from asyncpatch.ranges import check_counts
from asyncpatch.sharding import forgets_gathered
from asyncpatch.tokens import pool, split_patches


@dataclasses.dataclass(frozen=True)
class LeanUNetConfig(AbstractNetworkConfig):
    """The shape of a `LeanUNet`; dropout is below its first level."""

    widths: tuple[int, ...]
    """Channels of each level; each after the first halves the resolution."""
    blocks: tuple[int, ...]
    """Residual blocks of each level above the bottom, on the way down and again on the way up."""
    middle_blocks: int = 2
    """Residual blocks of the bottom, with self-attention between them."""
    head: int = 32
    """Channels of one attention head."""
    embedding: int = 64
    """Channels of the label's embedding."""

    @property
    def multiple(self) -> int:
        """A token of the bottom."""
        return 2 ** (len(self.widths) - 1)

    def check(self) -> None:
        """A number of blocks for each level above the bottom, and heads that fill the bottom."""
        check_counts(middle_blocks=self.middle_blocks, head=self.head, embedding=self.embedding)
        if len(self.blocks) != len(self.widths) - 1 or not self.widths or min(self.widths) < 1:
            raise ValueError(
                f"blocks says how many each level above the bottom has, and widths={self.widths} has "
                f"{max(len(self.widths) - 1, 0)} of them, got {self.blocks}; give one number per level, and widths of "
                "at least 1"
            )
        if self.widths[-1] % self.head:
            raise ValueError(
                f"{self.widths[-1]} channels cannot be split into heads of {self.head}; give a head that divides them"
            )

    def build(self, key: PRNGKeyArray) -> "LeanUNet":
        """A network with fresh weights."""
        return LeanUNet(self, key)


class Level(eqx.Module):
    """All that belongs to one resolution above the bottom."""

    down: list[ResidualBlock]
    gather: Conv
    spread: Conv
    up: list[ResidualBlock]


class LeanUNet(AbstractFieldNetwork):
    """Velocity of every pixel from a noisy image, a time field and a label."""

    config: LeanUNetConfig = eqx.field(static=True)
    ends: PixelEnds
    labels: Float[Array, "rows embedding"]
    levels: list[Level]
    middle: list[ResidualBlock]
    attention: list[AttentionBlock]

    def __init__(self, config: LeanUNetConfig, key: PRNGKeyArray):
        def blocks(level: int, count: int) -> list[ResidualBlock]:
            width, dropout = config.widths[level], config.dropout if level > 0 else 0.0
            return [ResidualBlock(width, width, config.embedding, dropout) for _ in range(count)]

        levels = [
            Level(blocks(level, count), Conv(1, 4 * width, below), Conv(1, below, width), blocks(level, count))
            for level, (count, width, below) in enumerate(
                zip(config.blocks, config.widths[:-1], config.widths[1:], strict=True)
            )
        ]
        bottom = len(levels)
        middle = blocks(bottom, config.middle_blocks)
        attention = [AttentionBlock(config.widths[bottom], config.head) for _ in middle[1:]]
        ends = PixelEnds(config.channels, config.widths[0])
        labels = jnp.ones((config.num_classes + 1, config.embedding))
        self.config = config
        self.ends, self.labels, self.levels, self.middle, self.attention = draw_weights(
            (ends, labels, levels, middle, attention), key
        )

    @property
    def last(self) -> Conv:
        return self.ends.head

    def activations(self, z, features, embedding, key):
        """Down, through the bottom and up again, with dropout's key for each block."""
        count = 2 * sum(self.config.blocks) + self.config.middle_blocks
        keys = iter([None] * count if key is None else jr.split(key, count))
        run = jax.checkpoint(_run_block) if self.config.rematerialise else forgets_gathered(_run_block)
        pyramid = [features]
        for _ in self.levels:
            pyramid.append(features if features.shape[:2] == (1, 1) else pool(pyramid[-1], 2))

        x, aside = self.ends.enter(z, features, embedding)
        skips = []
        for level, here in zip(self.levels, pyramid[:-1], strict=True):
            for block in level.down:
                x = run(block, x, here, embedding, next(keys))
            skips.append(x)
            x = level.gather(split_patches(x, 2))
        for number, block in enumerate(self.middle):
            if number > 0:
                x = self.attention[number - 1](x)
            x = run(block, x, pyramid[-1], embedding, next(keys))
        for level, here, skip in zip(self.levels[::-1], pyramid[-2::-1], skips[::-1], strict=True):
            x = double(level.spread(x)) + skip
            for block in level.up:
                x = run(block, x, here, embedding, next(keys))
        return self.ends.leave(x, aside, features, embedding)


def _run_block(block, x, features, embedding, key):
    return block(x, features, embedding, key)
