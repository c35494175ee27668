"""Paths through the time hypercube, and laws of random paths.

A path is a curve of time fields: at `r = 0` every token is clean, at `r = 1` every token is noise, and no token's
time ever falls in between. A random point of a random path is a training time field, a grid on a path walked
backwards is a generation plan, and the line integral of the denoising error along a path is a likelihood bound.

Invariants: exactly 0 at `r = 0`, exactly 1 at `r = 1`, never falling, in [0, 1].
"""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from asyncpatch.shapes import TimeField


class AbstractPath(eqx.Module):
    """One curve from all-0 to all-1.

    To write one more: hold whatever was drawn as array fields, implement `__call__` for one `r`, differentiable
    almost everywhere, and keep the two ends exact in float32. Its law is an `AbstractPathLaw` beside it.
    """

    @abc.abstractmethod
    def __call__(self, r: Float[Array, ""]) -> TimeField:
        """The time field at `r` in [0, 1]."""


class AbstractPathLaw(eqx.Module):
    """A law of random paths.

    To write one more: implement `sample` so that it runs inside `jit` and `vmap` (`height` and `width` are static),
    raise `ValueError` for a grid it cannot serve, and enrol the class in `tests/test_paths.py`.
    """

    @abc.abstractmethod
    def sample(self, key: PRNGKeyArray, height: int, width: int) -> AbstractPath:
        """A random path for a grid of `height x width` tokens."""


def derivative(path: AbstractPath, r: Float[Array, ""]) -> TimeField:
    """How fast each token's time rises: `d path / d r`, never negative. At a kink it lies between the two slopes."""
    return jax.jvp(path, (r,), (jnp.ones_like(r),))[1]
