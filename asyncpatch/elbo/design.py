"""Designs: at which time fields the line integral of the bound is read, and with which weights.

For any curve `gamma` that rises from all-0 to all-1, the diffusion term of the bound is

    int_0^1 sum_i gamma_i'(r) D_i(gamma(r)) dr .

A design draws a path and a few points on it, with weights such that `sum_calls sum_i weight_i D_i(t)` has this
integral's mean over paths as its expectation. One call is one evaluation of the denoiser.

Invariant: every design is unbiased for every law of paths.
"""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from asyncpatch.paths import AbstractPath, AbstractPathLaw, derivative


class Points(eqx.Module):
    """Where to call the denoiser, with which noise, and what the error of each token weighs."""

    times: Float[Array, "calls height width"]
    weights: Float[Array, "calls height width"]
    noise: Float[Array, "calls height width channel"]


class AbstractDesign(eqx.Module):
    """A way to estimate the line integral along a random path.

    To write one more: implement `calls` and `draw`, unbiased for every law of paths, and enrol the class in
    `tests/test_elbo_bound.py`.
    """

    @property
    @abc.abstractmethod
    def calls(self) -> int:
        """Denoiser evaluations of one draw."""

    @abc.abstractmethod
    def draw(self, key: PRNGKeyArray, law: AbstractPathLaw, height: int, width: int, channels: int) -> Points:
        """The points of one random path for an image of this shape."""


class AllTokens(AbstractDesign):
    """One point at `r ~ U(0, 1)`; the errors of all tokens count, by how fast each token's time rises there."""

    @property
    def calls(self) -> int:
        return 1

    def draw(self, key: PRNGKeyArray, law: AbstractPathLaw, height: int, width: int, channels: int) -> Points:
        path_key, point_key, noise_key = jr.split(key, 3)
        path = law.sample(path_key, height, width)
        times, weights = _read(path, jr.uniform(point_key, (1,)))
        return Points(times, weights, jr.normal(noise_key, (1, height, width, channels)))


class OneToken(AbstractDesign):
    """One point at `r ~ U(0, 1)`; the error of one token counts, drawn in proportion to how fast its time rises.

    The walk's own estimate, one step at a time. It wastes what the denoiser says of all other tokens.
    """

    @property
    def calls(self) -> int:
        return 1

    def draw(self, key: PRNGKeyArray, law: AbstractPathLaw, height: int, width: int, channels: int) -> Points:
        path_key, point_key, token_key, noise_key = jr.split(key, 4)
        path = law.sample(path_key, height, width)
        times, weights = _read(path, jr.uniform(point_key, (1,)))
        token = jr.categorical(token_key, jnp.log(weights.ravel()))
        chosen = jax.nn.one_hot(token, height * width).reshape(weights.shape) * jnp.sum(weights)
        return Points(times, chosen, jr.normal(noise_key, (1, height, width, channels)))


class WholePath(AbstractDesign):
    """Points all along one path, one at random in each of `strata` equal pieces of it, with independent noise."""

    strata: int

    def __check_init__(self):
        if self.strata < 1:
            raise ValueError(f"strata must be at least 1, got {self.strata}; it is the number of points on a path")

    @property
    def calls(self) -> int:
        return self.strata

    def draw(self, key: PRNGKeyArray, law: AbstractPathLaw, height: int, width: int, channels: int) -> Points:
        path_key, point_key, noise_key = jr.split(key, 3)
        path = law.sample(path_key, height, width)
        inside = jr.uniform(point_key, (self.strata,))
        points = (jnp.arange(self.strata, dtype=inside.dtype) + inside) / self.strata
        times, weights = _read(path, points)
        return Points(times, weights / self.strata, jr.normal(noise_key, (self.strata, height, width, channels)))


class Antithetic(AbstractDesign):
    """Two points `r` and `1 - r` on one path, with noise of opposite sign: errors on either side tend to cancel."""

    @property
    def calls(self) -> int:
        return 2

    def draw(self, key: PRNGKeyArray, law: AbstractPathLaw, height: int, width: int, channels: int) -> Points:
        path_key, point_key, noise_key = jr.split(key, 3)
        path = law.sample(path_key, height, width)
        point = jr.uniform(point_key)
        times, weights = _read(path, jnp.stack([point, 1 - point]))
        noise = jr.normal(noise_key, (height, width, channels))
        return Points(times, weights / 2, jnp.stack([noise, -noise]))


def _read(
    path: AbstractPath, points: Float[Array, " calls"]
) -> tuple[Float[Array, "calls height width"], Float[Array, "calls height width"]]:
    """Times and slopes of a path at some points."""
    return jax.vmap(path)(points), jax.vmap(lambda r: derivative(path, r))(points)
