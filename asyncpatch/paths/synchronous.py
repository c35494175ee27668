"""The diagonal of the hypercube: all tokens share one time, as in ordinary diffusion."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from asyncpatch.paths.base import AbstractPath, AbstractPathLaw


class SynchronousPath(AbstractPath):
    """`t_i(r) = r` for every token."""

    height: int = eqx.field(static=True)
    width: int = eqx.field(static=True)

    def __call__(self, r: Float[Array, ""]) -> Float[Array, "{self.height} {self.width}"]:
        return jnp.full((self.height, self.width), r)


class Synchronous(AbstractPathLaw):
    """The diagonal, with certainty; the key is not used."""

    def sample(self, key: PRNGKeyArray, height: int, width: int) -> SynchronousPath:
        return SynchronousPath(height, width)
