"""A law of paths with parameters to learn: an environment, and one monotone warp of time per group of tokens.

    t_i(r) = warp_g(i)( base_i(r) ),      base ~ Environment(spread c)

A warp is piecewise linear on `pieces` equal pieces, and rises on each by a positive share of 1, a softmax of free
numbers, so that no value of the parameters makes a path that falls. Since a noise schedule is a warp that all tokens
share, the law holds per-group schedules too (MuLAN, arXiv 2312.13236): they are its paths at `c = 0`.

The bound of a denoiser on the law is differentiable in `log_spread` and `log_rises`; all else stays as it is.

Invariant: exactly 0 at `r = 0`, exactly 1 at `r = 1`, never falling, for all values of the parameters.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray

from asyncpatch.paths.base import AbstractPath, AbstractPathLaw
from asyncpatch.paths.environment import EnvironmentPath
from asyncpatch.paths.groups import check_groups
from asyncpatch.paths.patches import check_patch_fits, check_patch_sizes
from asyncpatch.shapes import TimeField
from asyncpatch.tokens import share_over_patches


class WarpedPath(AbstractPath):
    """An environment's path with the times of each token warped; `rises` sum to 1 over the pieces."""

    base: EnvironmentPath
    rises: Float[Array, "height width pieces"]

    def __call__(self, r: Float[Array, ""]) -> TimeField:
        return warp(self.base(r), self.rises)


class Learned(AbstractPathLaw):
    """Rates `E^c`, one per patch, with `c = exp(log_spread)`, and a warp per group; see the module.

    `groups` holds one number per token, 0..G-1 (see `asyncpatch.paths.groups`). `start` makes one whose warps change
    nothing. A `log_spread` of minus infinity is `c = 0`.
    """

    log_spread: Float[Array, ""]
    log_rises: Float[Array, "groups pieces"]
    groups: Int[Array, "height width"] = eqx.field(converter=check_groups)
    patch: int = 1

    def __check_init__(self):
        check_patch_sizes((self.patch,))
        check_patch_fits(self.patch, *self.groups.shape)
        named, warps = int(self.groups.max()) + 1, self.log_rises.shape[0]
        if named != warps:
            raise ValueError(f"the groups name {named} warps, but {warps} are given; give one row of log_rises a group")

    def sample(self, key: PRNGKeyArray, height: int, width: int) -> WarpedPath:
        if self.groups.shape != (height, width):
            raise ValueError(
                f"the groups are given for a grid of {self.groups.shape[0]}x{self.groups.shape[1]} tokens, "
                f"but the path is asked for {height}x{width}; learn a law for this grid"
            )
        # -Gumbel is the logarithm of an exponential variable.
        log_rates = jnp.exp(self.log_spread) * share_over_patches(
            -jr.gumbel(key, (height, width)), jnp.int32(self.patch)
        )
        return WarpedPath(EnvironmentPath(log_rates), jax.nn.softmax(self.log_rises, axis=-1)[self.groups])


def start_learning(groups: Int[Array, "height width"], spread: float, pieces: int = 8, patch: int = 1) -> Learned:
    """The law before it has learned: an environment of this spread, all warps the identity."""
    if not 0 < spread < float("inf"):
        raise ValueError(f"spread must be positive to be learned, got {spread}; give one such as 0.5")
    if pieces < 1:
        raise ValueError(f"a warp needs at least one piece, got {pieces}")
    rises = jnp.zeros((int(jnp.max(groups)) + 1, pieces))
    return Learned(jnp.log(jnp.float32(spread)), rises, groups, patch)


def warp(t: TimeField, rises: Float[Array, "height width pieces"]) -> TimeField:
    """Each token's time on its own piecewise linear curve from 0 to 1."""
    pieces = rises.shape[-1]
    progress = jnp.clip(pieces * t[..., None] - jnp.arange(pieces, dtype=t.dtype)[None, None, :], 0.0, 1.0)
    warped = jnp.sum(rises * progress, axis=-1)
    # The rises sum to 1 up to rounding; the end must be exact, with the slope of its left.
    return warped + jax.lax.stop_gradient(jnp.where(t >= 1, 1.0, jnp.minimum(warped, 1.0)) - warped)
