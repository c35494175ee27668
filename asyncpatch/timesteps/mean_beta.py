"""Uniform mean, exactly: the sum over the image is drawn first and then split between halves, again and again.

A block of `n` tokens with mean `m` gives its first half a mean between the least and the most that leave both halves in
[0, 1], at a fraction `Beta(a, a)` of the way, `a = (n - 1 - (n mod 2))^1.05`; the second half gets what is left. At the
end the tokens are permuted. The mean is U(0, 1) and exact; the spread has no closed form and narrows towards the ends;
the scale is one token. Source: Spatial Reasoning Models (arXiv 2502.21075), appendix C.

All blocks of a level split at once, `log2` levels in all. Fractions come from the polar form of the symmetric Beta law,
`(1 + sqrt(1 - U^(2/(2a-1))) cos(2 pi V))/2` (G. Ulrich 1984), which needs no rejection.
"""

import math

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from asyncpatch.timesteps.base import AbstractTimestepSampler

SHARPNESS = 1.05
"""The exponent of the source: how fast the halves of larger blocks agree."""


class MeanBeta(AbstractTimestepSampler):
    """Times with an exactly uniform mean, spread by recursive Beta splits over single tokens."""

    def __call__(self, key: PRNGKeyArray, height: int, width: int) -> Float[Array, "{height} {width}"]:
        mean_key, split_key, place_key = jr.split(key, 3)
        times = split_mean(split_key, jr.uniform(mean_key), height * width)
        # Sorting by random bits permutes in one sort, where `jr.permutation` takes two of this length.
        _, times = jax.lax.sort_key_val(jr.bits(place_key, times.shape), times)
        return times.reshape(height, width)


def split_mean(key: PRNGKeyArray, mean: Float[Array, ""], count: int) -> Float[Array, "{count}"]:
    """`count` times in [0, 1] with this mean, by recursive splitting; their order still shows the blocks."""
    sizes, means = np.array([count]), mean[None]
    levels = (count - 1).bit_length()
    uniforms = jr.uniform(key, (2, 2**levels - 1))
    for level in range(levels):
        first, second = sizes // 2, sizes - sizes // 2
        # A block of one token has nothing to split: its first half is empty, and dropped at the end.
        filled = np.maximum(first, 1)
        inverse_share = jnp.asarray(sizes / filled, means.dtype)
        least = jnp.maximum(1 - (1 - means) * inverse_share, 0.0)
        most = jnp.minimum(means * inverse_share, 1.0)
        concentration = np.maximum(sizes - 1 - sizes % 2, 1) ** SHARPNESS
        blocks = slice(2**level - 1, 2 ** (level + 1) - 1)
        first_means = least + (most - least) * _symmetric_beta(uniforms[:, blocks], concentration)
        second_means = means + (means - first_means) * jnp.asarray(first / second, means.dtype)
        means = jnp.stack([first_means, second_means], axis=1).ravel()
        sizes = np.stack([first, second], axis=1).ravel()
    return jnp.clip(means[np.flatnonzero(sizes)], 0.0, 1.0)


def _symmetric_beta(uniforms: Float[Array, "2 blocks"], concentration: np.ndarray) -> Float[Array, "blocks"]:
    """Draws of `Beta(a, a)`, one per entry `a >= 1` of `concentration`, each made of two uniform numbers."""
    exponent = jnp.asarray(2 / (2 * concentration - 1), uniforms.dtype)
    # 1 - U^exponent loses all its digits for a large concentration; expm1 keeps them.
    squared_radius = -jnp.expm1(exponent * jnp.log(uniforms[0]))
    return (1 + jnp.sqrt(squared_radius) * jnp.cos(2 * math.pi * uniforms[1])) / 2
