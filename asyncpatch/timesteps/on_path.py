"""A random point of a random path: any law of paths is a training law.

Mean, spread and scale are those of the paths. A network trained this way has a likelihood bound on the same paths.
"""

import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from asyncpatch.paths import AbstractPathLaw
from asyncpatch.timesteps.base import AbstractTimestepSampler


class OnPath(AbstractTimestepSampler):
    """`path(r)` with the path drawn from `path_law` and `r ~ U(0, 1)`."""

    path_law: AbstractPathLaw

    def __call__(self, key: PRNGKeyArray, height: int, width: int) -> Float[Array, "{height} {width}"]:
        path_key, point_key = jr.split(key)
        return self.path_law.sample(path_key, height, width)(jr.uniform(point_key))
