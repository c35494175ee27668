"""The convolutional part of AlexNet, in torchvision's form: five convolutions, wide strides at first.

Weights carry torchvision's names (`features.0.weight`, ...). An image needs `SMALLEST_SIDE` pixels or more to survive
both pools.
"""

import equinox as eqx
import jax

from asyncpatch.metrics.networks.layers import Convolution, Images, Maps, convolution, convolution_shapes, max_pool
from asyncpatch.metrics.networks.weights import Arrays

_KERNELS = {
    "features.0": (64, 3, 11, 11),
    "features.3": (192, 64, 5, 5),
    "features.6": (384, 192, 3, 3),
    "features.8": (256, 384, 3, 3),
    "features.10": (256, 256, 3, 3),
}

ALEXNET_LAYERS = tuple(_KERNELS)
"""The names of the convolutions, in order."""

ALEXNET_SHAPES = {
    key: shape for name, kernel in _KERNELS.items() for key, shape in convolution_shapes(name, kernel).items()
}

_POOL_BEFORE = (1, 2)
"""The layers that see their input pooled."""

SMALLEST_SIDE = 31


class AlexNet(eqx.Module):
    """Images, standardised as the caller sees fit, to the activations after each of the five convolutions."""

    layers: tuple[Convolution, ...]

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> "AlexNet":
        """From weights by torchvision's names."""
        return cls(tuple(convolution(arrays, name) for name in ALEXNET_LAYERS))

    def __call__(self, images: Images) -> tuple[Maps, ...]:
        if min(images.shape[1:3]) < SMALLEST_SIDE:
            raise ValueError(
                f"AlexNet needs images of {SMALLEST_SIDE} pixels a side or more, got {images.shape[1]} by "
                f"{images.shape[2]}: enlarge the images, or use VGG16"
            )
        first, *rest = self.layers
        activations = [jax.nn.relu(first(images, stride=4, padding=((2, 2), (2, 2))))]
        for index, layer in enumerate(rest, start=1):
            below = max_pool(activations[-1], 3, 2) if index in _POOL_BEFORE else activations[-1]
            activations.append(jax.nn.relu(layer(below)))
        return tuple(activations)
