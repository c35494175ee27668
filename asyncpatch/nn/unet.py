"""A UNet in which every pixel has its own noise time.

The ADM family (arXiv 2105.05233): levels of residual blocks joined by halvings, a middle with attention, and the
same levels back with skip connections. Two things differ. The time field enters each block as time features
pooled to that block's resolution (see `asyncpatch.nn.layers`), and with `patch > 1` the two ends are light
layers at full resolution around a body that runs on patches (see `asyncpatch.nn.ends`).
"""

import dataclasses
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from asyncpatch.nn.base import AbstractFieldNetwork, AbstractNetworkConfig
from asyncpatch.nn.blocks import AttentionBlock, ResidualBlock, double, halve, keep
from asyncpatch.nn.ends import PatchEnds, PixelEnds
from asyncpatch.nn.layers import Conv, draw_weights
from asyncpatch.sharding import forgets_gathered
from asyncpatch.tokens import pool


@dataclasses.dataclass(frozen=True)
class UNetConfig(AbstractNetworkConfig):
    """The shape of a `UNet`; dropout is below its first level."""

    base: int
    """Channels of the first level."""
    multipliers: tuple[int, ...]
    """Channels of each level as multiples of `base`; each level after the first halves the resolution."""
    blocks: int
    """Residual blocks of each level on the way down; the way up has one more."""
    attention: tuple[bool, ...]
    """Whether the blocks of each level are followed by self-attention."""
    middle_blocks: int = 2
    """Residual blocks at the bottom, with self-attention between them."""
    head: int = 64
    """Channels of one attention head."""
    patch: int = 1
    """The body runs on patches of `patch x patch` pixels; 1 runs it on pixels."""
    pixel_channels: int = 32
    """Channels of the full-resolution ends when `patch > 1`."""

    @property
    def multiple(self) -> int:
        """A patch after the body's halvings."""
        return self.patch * 2 ** (len(self.multipliers) - 1)

    def check(self) -> None:
        """One answer on attention per level."""
        if len(self.attention) != len(self.multipliers):
            raise ValueError(
                f"attention says yes or no for each of the {len(self.multipliers)} levels of multipliers="
                f"{self.multipliers}, got {len(self.attention)} answers; give one per level"
            )

    def build(self, key: PRNGKeyArray) -> "UNet":
        """A UNet with fresh weights."""
        return UNet(self, key)


class Stage(eqx.Module):
    """A residual block, and self-attention after it where the level has it."""

    block: ResidualBlock
    attention: AttentionBlock | None

    def __call__(self, x, features, embedding, key):
        x = self.block(x, features, embedding, key)
        return x if self.attention is None else self.attention(x)


class UNet(AbstractFieldNetwork):
    """Velocity of every pixel from a noisy image, a time field and a label."""

    config: UNetConfig = eqx.field(static=True)
    ends: PixelEnds | PatchEnds
    labels: Float[Array, "rows base"]
    down: list[Stage]
    middle: list[Stage]
    up: list[Stage]

    def __init__(self, config: UNetConfig, key: PRNGKeyArray):
        if config.patch == 1:
            ends = PixelEnds(config.channels, config.base)
        else:
            ends = PatchEnds(config.channels, config.base, config.patch, config.pixel_channels)
        labels = jnp.ones((config.num_classes + 1, config.base))
        self.config = config
        self.ends, self.labels, (self.down, self.middle, self.up) = draw_weights(
            (ends, labels, _build_body(config)), key
        )

    @property
    def last(self) -> Conv:
        return self.ends.head

    def activations(self, z, features, embedding, key):
        """Down, through the middle and up again, with dropout's key for each stage."""
        stages = len(self.down) + len(self.middle) + len(self.up)
        keys = iter([None] * stages if key is None else jr.split(key, stages))
        pyramid = self._pyramid(features)
        run = jax.checkpoint(_run_stage) if self.config.rematerialise else forgets_gathered(_run_stage)

        x, aside = self.ends.enter(z, features, embedding)
        skips, level = [x], 0
        for stage in self.down:
            level += stage.block.resample is halve
            x = run(stage, x, pyramid[level], embedding, next(keys))
            skips.append(x)
        for stage in self.middle:
            x = run(stage, x, pyramid[level], embedding, next(keys))
        for stage in self.up:
            level -= stage.block.resample is double
            if stage.block.resample is not double:
                x = jnp.concatenate([x, skips.pop()], axis=-1)
            x = run(stage, x, pyramid[level], embedding, next(keys))
        return self.ends.leave(x, aside, features, embedding)

    def _pyramid(self, features):
        """Time features at each level's resolution; those of a single time are the same at all."""
        levels = len(self.config.multipliers)
        if features.shape[:2] == (1, 1):
            return [features] * levels
        pyramid = [pool(features, self.config.patch)]
        for _ in range(levels - 1):
            pyramid.append(pool(pyramid[-1], 2))
        return pyramid


def _run_stage(stage, x, features, embedding, key):
    return stage(x, features, embedding, key)


def _build_body(config: UNetConfig) -> tuple[list[Stage], list[Stage], list[Stage]]:
    widths = [config.base * multiplier for multiplier in config.multipliers]

    def stage(inputs: int, level: int, attend: bool, resample: Callable = keep) -> Stage:
        dropout = config.dropout if level > 0 or len(widths) == 1 else 0.0
        block = ResidualBlock(inputs, widths[level], config.base, dropout, resample)
        return Stage(block, AttentionBlock(widths[level], config.head) if attend else None)

    down, skips, width = [], [config.base], config.base
    for level, attend in enumerate(config.attention):
        for _ in range(config.blocks):
            down.append(stage(width, level, attend))
            width = widths[level]
            skips.append(width)
        if level < len(widths) - 1:
            down.append(stage(width, level, False, halve))
            skips.append(width)

    last = len(widths) - 1
    middle = [stage(width, last, i < config.middle_blocks - 1) for i in range(config.middle_blocks)]

    up = []
    for level, attend in reversed(list(enumerate(config.attention))):
        for _ in range(config.blocks + 1):
            up.append(stage(width + skips.pop(), level, attend))
            width = widths[level]
        if level > 0:
            up.append(stage(width, level, False, double))
    return down, middle, up
