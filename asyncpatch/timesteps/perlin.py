"""Two regions with smooth borders, each with its own time: Perlin noise, cut at a random rank.

Region-wise noise in the manner of RAD. The area of a region is uniform on `0..d` tokens of `d`, whatever the noise
looks like, since the cut is made by rank. With areas `a` and `1 - a` the mean is `a t1 + (1 - a) t2`; spread (variance
inside an image) `(1 - 1/d)/36`; the scale is the noise's period, uniform on `1..height` tokens.

Perlin noise is a sum over the corners of a square lattice of random slopes, faded out by the quintic
`6 s^5 - 15 s^4 + 10 s^3`. The fade of a corner is a product over the two axes, so the whole field is two products of
three matrices, which accelerators like better than the four gathers of the textbook.
"""

import math

import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray

from asyncpatch.timesteps.base import AbstractTimestepSampler


class Perlin(AbstractTimestepSampler):
    """Two times `~ U(0, 1)`, on either side of a level line of Perlin noise of a random period."""

    def __call__(self, key: PRNGKeyArray, height: int, width: int) -> Float[Array, "{height} {width}"]:
        period_key, noise_key, area_key, time_key = jr.split(key, 4)
        period = jr.randint(period_key, (), 1, height + 1)
        noise = perlin_noise(noise_key, period, height, width)
        area = jr.randint(area_key, (), 0, height * width + 1)
        cut = jnp.append(jnp.sort(noise.ravel()), jnp.inf)[area]
        inside_time, outside_time = jr.uniform(time_key, (2,))
        return jnp.where(noise < cut, inside_time, outside_time)


def perlin_noise(
    key: PRNGKeyArray, period: Int[Array, ""], height: int, width: int
) -> Float[Array, "{height} {width}"]:
    """Perlin noise at the centres of `height x width` pixels, its lattice `period >= 1` pixels wide (may be traced)."""
    angle = jr.uniform(key, (height + 1, width + 1), maxval=2 * math.pi)
    row_fade, row_slope = _corner_weights(period, height)
    col_fade, col_slope = _corner_weights(period, width)
    return row_slope @ jnp.sin(angle) @ col_fade.T + row_fade @ jnp.cos(angle) @ col_slope.T


def _corner_weights(
    period: Int[Array, ""], length: int
) -> tuple[Float[Array, "{length} {length}+1"], Float[Array, "{length} {length}+1"]]:
    """Along one axis, for each pixel and lattice line: the fade, and the fade times the distance.

    The lattice has a line more than pixels, enough for the shortest period; a longer one leaves the last lines unused.
    """
    lines = jnp.arange(length + 1, dtype=jnp.float32)
    position = (lines[:-1] + 0.5) / period.astype(lines.dtype)
    distance = position[:, None] - lines[None, :]
    near = jnp.maximum(1 - jnp.abs(distance), 0.0)
    fade = near**3 * (near * (6 * near - 15) + 10)
    return fade, fade * distance
