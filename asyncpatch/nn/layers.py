"""Layers of one image, channels last: convolution, normalisation, time features and spatial FiLM.

Every array is `height width channel` and every layer is a pure function of it, so that `jax.vmap` turns a
convolution over one image into the batched one without a transpose.

**Time features.** A time field becomes `cos(pi k t)` for `k = 0 .. TIME_FEATURES - 1`, a complete basis of smooth
functions of a time. Pooled over a block of tokens these are the cosine moments of the times inside the block,
so that an inner layer still sees how times are spread below its resolution. One 1x1 map of the pooled features
then is the scale and shift of a layer (`Film`): it can be any smooth function of a token's time.

Normalisation is per token (RMS over channels): statistics never mix tokens at different noise times.
"""

import math
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from asyncpatch.nn.draw import unit_normals
from asyncpatch.nn.products import product
from asyncpatch.shapes import TimeField
from asyncpatch.sharding import gathered

TIME_FEATURES = 16
"""Cosine modes of a time; the sixteenth resolves changes over 1/15 of the time axis."""

RMS_EPSILON = 1e-6
"""Added to a mean square before its root; far below the unit scale of activations, far above float32 rounding."""


Layer = TypeVar("Layer")


def draw_weights(layers: Layer, key: PRNGKeyArray) -> Layer:
    """Turn freshly built layers into randomly initialised ones.

    A layer is built with every weight equal to its initial standard deviation. This multiplies all weights (arrays
    with two axes or more) by unit normals; gains and biases, which are vectors, keep their values. One draw serves
    the whole network: a hundred small ones take XLA half a minute to compile.
    """
    leaves, tree = jax.tree.flatten(layers)
    weights = [number for number, leaf in enumerate(leaves) if eqx.is_array(leaf) and leaf.ndim >= 2]
    normals = unit_normals(key, [leaves[number].shape for number in weights])
    for number, normal in zip(weights, normals, strict=True):
        leaves[number] = leaves[number] * normal
    return jax.tree.unflatten(tree, leaves)


class Conv(eqx.Module):
    """A `size x size` convolution with zero padding that keeps height and width."""

    weight: Float[Array, "size size inputs outputs"]
    bias: Float[Array, " outputs"]

    def __init__(self, size: int, inputs: int, outputs: int, gain: float = 1.0):
        """Weights of deviation `gain / sqrt(fan_in)`; `gain = 0` starts at zero."""
        self.weight = jnp.full((size, size, inputs, outputs), gain / math.sqrt(size * size * inputs))
        self.bias = jnp.zeros(outputs)

    def __call__(self, x: Float[Array, "height width inputs"]) -> Float[Array, "height width outputs"]:
        weight = gathered(self.weight)
        if weight.shape[0] == 1:
            return product(x, weight[0, 0]) + self.bias[None, None]
        convolved = jax.lax.conv_general_dilated(
            x[None], weight, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return convolved[0] + self.bias[None, None]


class RMSNorm(eqx.Module):
    """Scale each token to unit mean square over its channels, then by a learned gain."""

    gain: Float[Array, " channel"]

    def __init__(self, channels: int):
        self.gain = jnp.ones(channels)

    def __call__(self, x: Float[Array, "height width channel"]) -> Float[Array, "height width channel"]:
        return unit_rms(x) * self.gain[None, None]


@jax.custom_jvp
def unit_rms(x: Float[Array, "*shape channel"]) -> Float[Array, "*shape channel"]:
    """Divide by the root mean square over the last axis, which is taken in float32 whatever the input's type."""
    return x * _one_over_rms(x)


@unit_rms.defjvp
def _slope_of_unit_rms(primals, tangents):
    """The tangent without its part along the result. JAX's own rule says the same in twice as many operations."""
    (x,), (slope,) = primals, tangents
    factor = _one_over_rms(x)
    result = x * factor
    products = result.astype(jnp.float32) * slope.astype(jnp.float32)
    along = jnp.mean(products, axis=-1, keepdims=True).astype(x.dtype)
    return result, factor * (slope - result * along)


def _one_over_rms(x: Float[Array, "*shape channel"]) -> Float[Array, "*shape 1"]:
    mean_square = jnp.mean(jnp.square(x.astype(jnp.float32)), axis=-1, keepdims=True)
    return jax.lax.rsqrt(mean_square + RMS_EPSILON).astype(x.dtype)


def time_features(t: TimeField) -> Float[Array, "height width features"]:
    """Cosine series of each time: `cos(pi k t)`, the first of them the constant 1."""
    return jnp.cos(math.pi * jnp.arange(TIME_FEATURES, dtype=t.dtype)[None, None] * t[..., None])


class Film(eqx.Module):
    """Normalise, then scale and shift by a linear map of the time features, plus one of the label's embedding.

    The features may have one row and column: then the same scale and shift hold for every token, which is how a
    network with a scalar time is run.
    """

    from_time: Float[Array, "features twice_channels"]
    from_label: Float[Array, "embedding twice_channels"]

    def __init__(self, channels: int, embedding: int):
        self.from_time = jnp.full((TIME_FEATURES, 2 * channels), 1 / TIME_FEATURES)
        self.from_label = jnp.full((embedding, 2 * channels), 1 / TIME_FEATURES / math.sqrt(embedding))

    def __call__(
        self,
        x: Float[Array, "height width channel"],
        features: Float[Array, "rows cols features"],
        embedding: Float[Array, " embedding"],
    ) -> Float[Array, "height width channel"]:
        from_label = (embedding @ gathered(self.from_label))[None, None]
        # Scale and shift are two products: the halves of one would be cut apart, and their gradients joined.
        to_scale, to_shift = jnp.split(gathered(self.from_time), 2, axis=-1)
        label_scale, label_shift = jnp.split(from_label, 2, axis=-1)
        scale = product(features, to_scale) + label_scale
        shift = product(features, to_shift) + label_shift
        return unit_rms(x) * (1 + scale) + shift
