"""Ordinary diffusion: one time for the whole image. Mean U(0, 1), no spread, the scale is the image."""

import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from asyncpatch.timesteps.base import AbstractTimestepSampler


class Synchronous(AbstractTimestepSampler):
    """One `t ~ U(0, 1)` for all tokens."""

    def __call__(self, key: PRNGKeyArray, height: int, width: int) -> Float[Array, "{height} {width}"]:
        return jnp.full((height, width), jr.uniform(key))
