"""The two blocks of the UNet: a convolutional residual block with spatial FiLM, and self-attention.

Both start as the identity (their last map starts at zero), up to a change of resolution or channels. What the
transformer needs of them is a function here.
Sources: ADM (arXiv 2105.05233) for their order; arXiv 2010.04245 for normalised queries and keys.
"""

import re
from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from einops import repeat
from jaxtyping import Array, Float, PRNGKeyArray

from asyncpatch.nn.layers import Conv, Film, RMSNorm, unit_rms
from asyncpatch.tokens import pool

AMPERE = 8.0
"""The compute capability of the first NVIDIA cards with bfloat16."""


def halve(x: Float[Array, "height width channel"]) -> Float[Array, "rows cols channel"]:
    """Mean of each 2x2 block."""
    return pool(x, 2)


def double(x: Float[Array, "height width channel"]) -> Float[Array, "rows cols channel"]:
    """Each token twice in each direction. Convolutions after it see no seams, unlike after depth-to-space."""
    return enlarge(x, 2)


def keep(x: Float[Array, "height width channel"]) -> Float[Array, "height width channel"]:
    """No change of resolution."""
    return x


def enlarge(x: Float[Array, "height width channel"], factor: int) -> Float[Array, "rows cols channel"]:
    """Nearest-neighbour enlargement by an integer factor."""
    # A broadcast, whose gradient is a sum; `jnp.repeat` is a gather, whose gradient is a slow scatter.
    return repeat(x, "height width channel -> (height fy) (width fx) channel", fy=factor, fx=factor)


def attend(
    query: Float[Array, "tokens heads head"],
    key: Float[Array, "tokens heads head"],
    value: Float[Array, "tokens heads head"],
) -> Float[Array, "tokens heads head"]:
    """The mean of the values that each query finds, weighted by the softmax of its products with the keys."""
    kernel = attention_kernel(jax.local_devices()[0], query.dtype, query.shape[-1])
    # Inside, JAX takes the softmax in float32 and relies on implicit promotion to get there and back.
    with jax.numpy_dtype_promotion("standard"):
        return jax.nn.dot_product_attention(query, key, value, implementation=kernel)


def attention_kernel(device: Any, dtype: jnp.dtype, head: int) -> Literal["cudnn", "xla"]:
    """What computes attention on a device: cuDNN's kernel, which never holds the products of all queries with all keys
    (arXiv 2307.08691), where the card, the type and the channels of a head are such as it takes; XLA elsewhere.
    """
    capability = getattr(device, "compute_capability", "")  # AMD's cards have names there
    takes = dtype == jnp.bfloat16 and head % 8 == 0 and head <= 128
    return "cudnn" if takes and re.fullmatch(r"[0-9.]+", capability) and float(capability) >= AMPERE else "xla"


class ResidualBlock(eqx.Module):
    """Norm, resample, convolve; FiLM, dropout, convolve; add to the (resampled) input."""

    norm: RMSNorm
    first: Conv
    film: Film
    second: Conv
    skip: Conv | None
    resample: Callable = eqx.field(static=True)
    dropout: float = eqx.field(static=True)

    def __init__(self, inputs: int, outputs: int, embedding: int, dropout: float, resample: Callable = keep):
        self.norm = RMSNorm(inputs)
        self.first = Conv(3, inputs, outputs)
        self.film = Film(outputs, embedding)
        self.second = Conv(3, outputs, outputs, gain=0.0)
        self.skip = None if inputs == outputs else Conv(1, inputs, outputs)
        self.resample = resample
        self.dropout = dropout

    def __call__(
        self,
        x: Float[Array, "height width inputs"],
        features: Float[Array, "rows cols features"],
        embedding: Float[Array, " embedding"],
        key: PRNGKeyArray | None,
    ) -> Float[Array, "new_height new_width outputs"]:
        """`features` are those of the output's resolution; `key = None` turns dropout off."""
        hidden = self.first(self.resample(jax.nn.silu(self.norm(x))))
        hidden = jax.nn.silu(self.film(hidden, features, embedding))
        if key is not None and self.dropout > 0:
            kept = jr.bernoulli(key, 1 - self.dropout, hidden.shape)
            hidden = jnp.where(kept, hidden / (1 - self.dropout), 0.0)
        shortcut = self.resample(x)
        if self.skip is not None:
            shortcut = self.skip(shortcut)
        return shortcut + self.second(hidden)


class AttentionBlock(eqx.Module):
    """Every token attends to every token; queries and keys have unit RMS with a learned gain."""

    norm: RMSNorm
    query_key_value: Conv
    query_gain: Float[Array, " head"]
    key_gain: Float[Array, " head"]
    output: Conv
    heads: int = eqx.field(static=True)

    def __init__(self, channels: int, head: int):
        """Raises `ValueError` if heads of `head` channels do not fill `channels`."""
        if channels % head:
            raise ValueError(f"{channels} channels cannot be split into heads of {head}; give a head that divides them")
        self.norm = RMSNorm(channels)
        self.query_key_value = Conv(1, channels, 3 * channels)
        self.query_gain = jnp.ones(head)
        self.key_gain = jnp.ones(head)
        self.output = Conv(1, channels, channels, gain=0.0)
        self.heads = channels // head

    def __call__(self, x: Float[Array, "height width channel"]) -> Float[Array, "height width channel"]:
        height, width, channels = x.shape
        projected = self.query_key_value(self.norm(x)).reshape(height * width, 3, self.heads, -1)
        query, key, value = projected[:, 0], projected[:, 1], projected[:, 2]
        query = unit_rms(query) * self.query_gain[None, None]
        key = unit_rms(key) * self.key_gain[None, None]
        return x + self.output(attend(query, key, value).reshape(height, width, channels))
