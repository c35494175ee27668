"""One uniform time per token. The mean sits at 1/2 with deviation `1/sqrt(12 d)` for `d` tokens, so that nearly clean
and nearly noisy images are never seen; spread (variance inside an image) 1/12; the scale is one token.
"""

import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from asyncpatch.timesteps.base import AbstractTimestepSampler


class Independent(AbstractTimestepSampler):
    """`t_i ~ U(0, 1)` independently."""

    def __call__(self, key: PRNGKeyArray, height: int, width: int) -> Float[Array, "{height} {width}"]:
        return jr.uniform(key, (height, width))
