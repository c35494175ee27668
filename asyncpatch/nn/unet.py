"""A UNet in which every pixel has its own noise time.

The ADM family (arXiv 2105.05233): levels of residual blocks joined by halvings, a middle with attention, and the
same levels back with skip connections. Two things differ. The time field enters each block as time features
pooled to that block's resolution (see `asyncpatch.nn.layers`), and with `patch > 1` the two ends are light
layers at full resolution around a body that runs on patches.

**Ends on patches.** The stem sees each pixel beside its own time before it gathers a patch, and the head enlarges by
nearest neighbour and convolves at full resolution. No output weight belongs to a position inside a patch, so the
patch grid leaves no checker pattern in the image.

The network returns a raw velocity; `asyncpatch.nn.denoiser` makes it a denoiser. It starts at zero velocity.
"""

import dataclasses
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from asyncpatch.nn.blocks import AttentionBlock, ResidualBlock, double, enlarge, halve, keep
from asyncpatch.nn.layers import Conv, Film, RMSNorm, draw_weights, time_features
from asyncpatch.shapes import Image, Label, TimeField
from asyncpatch.tokens import pool, split_patches

STEM_TIME_FEATURES = 3
"""Cosine modes that the stem on patches sees beside each pixel: cheaper at full resolution than FiLM."""


@dataclasses.dataclass(frozen=True)
class UNetConfig:
    """The shape of a `UNet`."""

    channels: int
    """Channels of the image, 1 for grey and 3 for colour."""
    num_classes: int
    """Labels are `0 .. num_classes - 1`, or `NULL_LABEL`; 0 for a network without classes."""
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
    dropout: float = 0.0
    """Share of activations dropped inside blocks in training, below the first level."""
    patch: int = 1
    """The body runs on patches of `patch x patch` pixels; 1 runs it on pixels."""
    pixel_channels: int = 32
    """Channels of the full-resolution ends when `patch > 1`."""
    compute_dtype: str = "float32"
    """Type of activations and of the weights' working copies: `float32` or `bfloat16`."""
    rematerialise: bool = False
    """Recompute blocks in the backward pass instead of storing their activations."""

    def __post_init__(self):
        if len(self.attention) != len(self.multipliers):
            raise ValueError(
                f"attention says yes or no for each of the {len(self.multipliers)} levels of multipliers="
                f"{self.multipliers}, got {len(self.attention)} answers; give one per level"
            )
        if self.compute_dtype not in ("float32", "bfloat16"):
            raise ValueError(f"compute_dtype is float32 or bfloat16, got {self.compute_dtype!r}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is a share in [0, 1), got {self.dropout}")

    @property
    def multiple(self) -> int:
        """Height and width of an image must be multiples of this many pixels."""
        return self.patch * 2 ** (len(self.multipliers) - 1)

    def check_image(self, height: int, width: int, channels: int) -> None:
        """Raises `ValueError` if the network cannot take images of this shape."""
        if channels != self.channels:
            raise ValueError(f"the network takes images of {self.channels} channels, got {channels}")
        if height % self.multiple or width % self.multiple:
            raise ValueError(
                f"an image of {height}x{width} pixels cannot be cut into patches of {self.patch} and halved "
                f"{len(self.multipliers) - 1} times; pad or resize it to multiples of {self.multiple}"
            )


class PixelEnds(eqx.Module):
    """Input and output on pixels: one convolution each."""

    stem: Conv
    norm: RMSNorm
    head: Conv

    def __init__(self, config: UNetConfig):
        self.stem = Conv(3, config.channels, config.base)
        self.norm = RMSNorm(config.base)
        self.head = Conv(3, config.base, config.channels, gain=0.0)

    def enter(self, z: Image, features: Float[Array, "rows cols features"], embedding: Float[Array, " embedding"]):
        """What the body works on, and what `leave` needs."""
        return self.stem(z), None

    def leave(self, x, aside, features, embedding) -> Image:
        """The velocity."""
        return self.head(jax.nn.silu(self.norm(x)))


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

    def __init__(self, config: UNetConfig):
        pixel = config.pixel_channels
        self.stem = Conv(3, config.channels + STEM_TIME_FEATURES, pixel)
        self.stem_norm = RMSNorm(pixel)
        self.gather = Conv(1, config.patch**2 * pixel, config.base)
        self.norm = RMSNorm(config.base)
        self.spread = Conv(1, config.base, pixel)
        self.mix = Conv(3, 2 * pixel, pixel)
        self.mix_film = Film(pixel, config.base)
        self.head = Conv(3, pixel, config.channels, gain=0.0)
        self.patch = config.patch

    def enter(self, z: Image, features: Float[Array, "rows cols features"], embedding: Float[Array, " embedding"]):
        """What the body works on, and the pixels' own features, which `leave` needs."""
        times = jnp.broadcast_to(features[..., 1 : 1 + STEM_TIME_FEATURES], (*z.shape[:2], STEM_TIME_FEATURES))
        pixels = jax.nn.silu(self.stem_norm(self.stem(jnp.concatenate([z, times], axis=-1))))
        return self.gather(split_patches(pixels, self.patch)), pixels

    def leave(self, x, aside, features, embedding) -> Image:
        """The velocity."""
        spread = enlarge(self.spread(jax.nn.silu(self.norm(x))), self.patch)
        mixed = self.mix(jnp.concatenate([spread, aside], axis=-1))
        return self.head(jax.nn.silu(self.mix_film(mixed, features, embedding)))


class Stage(eqx.Module):
    """A residual block, and self-attention after it where the level has it."""

    block: ResidualBlock
    attention: AttentionBlock | None

    def __call__(self, x, features, embedding, key):
        x = self.block(x, features, embedding, key)
        return x if self.attention is None else self.attention(x)


class UNet(eqx.Module):
    """Velocity of every pixel from a noisy image, a time field and a label."""

    config: UNetConfig = eqx.field(static=True)
    ends: PixelEnds | PatchEnds
    labels: Float[Array, "rows base"]
    down: list[Stage]
    middle: list[Stage]
    up: list[Stage]

    def __init__(self, config: UNetConfig, key: PRNGKeyArray):
        ends = (PixelEnds if config.patch == 1 else PatchEnds)(config)
        labels = jnp.ones((config.num_classes + 1, config.base))
        self.config = config
        self.ends, self.labels, (self.down, self.middle, self.up) = draw_weights(
            (ends, labels, _build_body(config)), key
        )

    def __call__(self, z: Image, t: TimeField, label: Label, key: PRNGKeyArray | None = None) -> Image:
        """The velocity; `key` draws dropout in training, and `None` turns it off.

        Raises `ValueError` before any compute if the image's shape does not fit the network.
        """
        return self.from_features(z, time_features(t), label, key)

    def from_features(
        self,
        z: Image,
        features: Float[Array, "rows cols features"],
        label: Label,
        key: PRNGKeyArray | None = None,
    ) -> Image:
        """The velocity from time features of every pixel, or of one row and column: one time for the image."""
        self.config.check_image(*z.shape)
        dtype = jnp.dtype(self.config.compute_dtype)
        net, z, features = jax.tree.map(
            lambda leaf: leaf.astype(dtype) if eqx.is_inexact_array(leaf) else leaf, (self, z, features)
        )
        embedding = jax.nn.silu(net.labels[jnp.where(label < 0, self.config.num_classes, label)])
        return net._run(z, features, embedding, key).astype(jnp.float32)

    def _run(self, z, features, embedding, key):
        stages = len(self.down) + len(self.middle) + len(self.up)
        keys = iter([None] * stages if key is None else jr.split(key, stages))
        pyramid = self._pyramid(features)
        run = jax.checkpoint(_run_stage) if self.config.rematerialise else _run_stage

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
