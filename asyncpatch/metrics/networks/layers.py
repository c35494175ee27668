"""What image networks are made of: convolutions, pools and the way images come in.

Arrays are `batch height width channel` in float32, and every product is in full float32 precision, on accelerators
too: a distance of features is a number to compare across machines.
"""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from asyncpatch.metrics.networks.weights import Arrays

Images = Float[Array, "batch height width channel"]
Maps = Float[Array, "batch _rows _cols _maps"]
"""Activations; most layers change the three last axes."""

Padding = Literal["SAME", "VALID"] | tuple[tuple[int, int], tuple[int, int]]


class Convolution(eqx.Module):
    """A kernel and a bias. A kernel of one channel for inputs of many is applied to each input channel alone."""

    kernel: Float[Array, "rows cols fan_in channels"]
    bias: Float[Array, " channels"]

    def __call__(self, maps: Maps, stride: int = 1, padding: Padding = "SAME") -> Maps:
        if self.kernel.shape[2] < maps.shape[-1]:
            return _each_alone(maps, self.kernel, stride, padding) + self.bias[None, None, None]
        summed = lax.conv_general_dilated(
            maps,
            self.kernel,
            (stride, stride),
            padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=lax.Precision.HIGHEST,
        )
        return summed + self.bias[None, None, None]


def _each_alone(maps: Maps, kernel: Float[Array, "rows cols 1 channels"], stride: int, padding: Padding) -> Maps:
    """A convolution of every channel alone, as a sum of shifted maps: XLA's own is many times slower on a CPU."""
    sides, strides = kernel.shape[:2], (stride, stride)
    pads = lax.padtype_to_pads(maps.shape[1:3], sides, strides, padding) if isinstance(padding, str) else padding
    maps = jnp.pad(maps, ((0, 0), *pads, (0, 0)))
    rows, cols = ((length - side) // stride for length, side in zip(maps.shape[1:3], sides, strict=True))
    total = jnp.zeros(())
    for row, col in np.ndindex(*sides):
        shifted = maps[:, row : row + rows * stride + 1 : stride, col : col + cols * stride + 1 : stride]
        total = total + shifted * kernel[row, col, 0][None, None, None]
    return total


def convolution(arrays: Arrays, name: str) -> Convolution:
    """The convolution that PyTorch stores as `name.weight` (outputs first) and `name.bias`."""
    kernel = np.transpose(arrays[f"{name}.weight"], (2, 3, 1, 0))
    return Convolution(jnp.asarray(kernel), jnp.asarray(arrays[f"{name}.bias"]))


def normalized_convolution(arrays: Arrays, name: str, norm: str, epsilon: float) -> Convolution:
    """A convolution without bias and the batch normalisation after it, as one convolution."""
    mean, variance = arrays[f"{norm}.running_mean"], arrays[f"{norm}.running_var"].astype(np.float64)
    gain = arrays[f"{norm}.weight"] / np.sqrt(variance + epsilon)
    kernel = np.transpose(arrays[f"{name}.weight"], (2, 3, 1, 0)) * gain
    bias = arrays[f"{norm}.bias"] - mean * gain
    return Convolution(jnp.asarray(kernel, jnp.float32), jnp.asarray(bias, jnp.float32))


def convolution_shapes(name: str, kernel: tuple[int, int, int, int]) -> dict[str, tuple[int, ...]]:
    """What `convolution` reads; `kernel` is outputs, inputs, rows, columns."""
    return {f"{name}.weight": kernel, f"{name}.bias": kernel[:1]}


def normalized_shapes(name: str, norm: str, kernel: tuple[int, int, int, int]) -> dict[str, tuple[int, ...]]:
    """What `normalized_convolution` reads; `kernel` is outputs, inputs, rows, columns."""
    statistics = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.weight": kernel} | {f"{norm}.{statistic}": kernel[:1] for statistic in statistics}


def max_pool(maps: Maps, window: int, stride: int, padding: Literal["SAME", "VALID"] = "VALID") -> Maps:
    """The largest value of each window; padding never wins."""
    lowest = np.array(-np.inf, maps.dtype)  # of jnp, it would be traced, and JAX would have no gradient
    return lax.reduce_window(maps, lowest, lax.max, (1, window, window, 1), (1, stride, stride, 1), padding)


def mean_pool(maps: Maps, window: int) -> Maps:
    """The mean of each window at stride 1, over the sites that lie inside the map."""
    zero, sizes = jnp.array(0, maps.dtype), (1, window, window, 1)
    total = lax.reduce_window(maps, zero, lax.add, sizes, (1, 1, 1, 1), "SAME")
    sites = lax.reduce_window(jnp.ones_like(maps[:1, :, :, :1]), zero, lax.add, sizes, (1, 1, 1, 1), "SAME")
    return total / sites


def to_rgb(images: Images) -> Float[Array, "batch height width 3"]:
    """Images of three colours; grey ones repeat their channel."""
    if images.shape[-1] not in (1, 3):
        raise ValueError(f"these networks see images of 1 or 3 channels, got {images.shape[-1]}; decode latents first")
    return jnp.broadcast_to(images, (*images.shape[:-1], 3))


def resize(images: Images, side: int, antialias: bool) -> Float[Array, "batch {side} {side} channel"]:
    """Square images, by bilinear interpolation between the centres of pixels; `antialias` widens it to shrink."""
    batch, _, _, channel = images.shape
    return jax.image.resize(images, (batch, side, side, channel), "bilinear", antialias=antialias)


def standardize(images: Images, mean: tuple[float, ...], deviation: tuple[float, ...]) -> Images:
    """Shift and scale each channel."""
    centre, scale = (jnp.array(values, images.dtype)[None, None, None] for values in (mean, deviation))
    return (images - centre) / scale
