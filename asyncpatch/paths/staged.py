"""Groups of tokens one after another: autoregression as a path.

Generation walks the path from `r = 1` to `r = 0`. With `G` groups and an overlap `o`, and `s = 1 - r` the progress of
the generation, a token of group `g` is at

    t(r) = clip(1 + (1 - o) g - s (1 + (1 - o)(G - 1)), 0, 1)

so each group falls from 1 to 0 in a window of equal length, and neighbouring windows share the fraction `o` of it.
`o = 0` is strictly one group after another, `o = 1` is all of them together, the synchronous path.

The groups, their number and the overlap are array values: one compiled program serves every order of a grid.
"""

import equinox as eqx
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, PRNGKeyArray

from asyncpatch.paths.base import AbstractPath, AbstractPathLaw
from asyncpatch.paths.groups import check_groups, random_order
from asyncpatch.paths.patches import check_patch_sizes
from asyncpatch.shapes import TimeField


def _as_scalar(overlap: ArrayLike) -> Float[Array, ""]:
    return jnp.asarray(overlap, jnp.float32)


class StagedPath(AbstractPath):
    """Ordered groups; `groups` may be traced and is not checked here: numbers 0..G-1, each present."""

    groups: Int[Array, "height width"]
    overlap: Float[Array, ""]

    def __call__(self, r: Float[Array, ""]) -> TimeField:
        # The length is read off the same numbers as each group's start, so both ends are exact after rounding.
        starts = 1 + self.groups.astype(r.dtype) * (1 - self.overlap.astype(r.dtype))
        return jnp.clip(starts - (1 - r) * jnp.max(starts), 0.0, 1.0)


class Staged(AbstractPathLaw):
    """A fixed order, with certainty; the key is not used.

    `groups` holds one number per token, 0..G-1, group 0 generated first (see `asyncpatch.paths.groups`); `overlap` is
    in [0, 1]. Raises `TypeError` or `ValueError` for anything else.
    """

    groups: Int[Array, "height width"] = eqx.field(converter=check_groups)
    overlap: Float[Array, ""] = eqx.field(converter=_as_scalar, default=0.0)

    def __check_init__(self):
        _check_overlap(float(self.overlap))

    def sample(self, key: PRNGKeyArray, height: int, width: int) -> StagedPath:
        if self.groups.shape != (height, width):
            raise ValueError(
                f"the groups are given for a grid of {self.groups.shape[0]}x{self.groups.shape[1]} tokens, "
                f"but the path is asked for {height}x{width}; give one group number per token"
            )
        return StagedPath(self.groups, self.overlap)


class AnyOrder(AbstractPathLaw):
    """Patches one after another in a random order, every order as likely as any other."""

    patch: int
    overlap: float = 0.0

    def __check_init__(self):
        check_patch_sizes((self.patch,))
        _check_overlap(self.overlap)

    def sample(self, key: PRNGKeyArray, height: int, width: int) -> StagedPath:
        return StagedPath(random_order(key, height, width, self.patch), _as_scalar(self.overlap))


def _check_overlap(overlap: float) -> None:
    if not 0 <= overlap <= 1:
        raise ValueError(
            f"overlap must be in [0, 1], got {overlap}; 0 is one group after another, 1 is all groups together"
        )
