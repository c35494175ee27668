"""Orders of generation, as one group number per token: group 0 is generated first, then group 1, and so on.

Tokens of one group are generated together. Invariant: the numbers are 0..G-1 and each of them occurs.
"""

import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Int, Integer, PRNGKeyArray

from asyncpatch.paths.patches import check_patch_fits, check_patch_sizes


def raster(height: int, width: int, patch: int) -> Int[Array, "{height} {width}"]:
    """Patch by patch, row after row, from the top left corner."""
    rows, cols = _cells(height, width, patch)
    return _spread(jnp.arange(rows * cols).reshape(rows, cols), height, width, patch)


def spiral(height: int, width: int, patch: int) -> Int[Array, "{height} {width}"]:
    """Patch by patch along a spiral from the centre outwards: each patch touches the one before it."""
    rows, cols = _cells(height, width, patch)
    row, col = np.mgrid[:rows, :cols]
    ring = np.minimum(np.minimum(row, rows - 1 - row), np.minimum(col, cols - 1 - col))
    outside = rows * cols - (rows - 2 * ring) * (cols - 2 * ring)
    # Clockwise along each ring: the steps from its top left corner to its top right corner, and down to the next.
    across, down = cols - 1 - 2 * ring, rows - 1 - 2 * ring
    to_left, to_top = col - ring, row - ring
    along = np.select(
        [row == ring, col == cols - 1 - ring, row == rows - 1 - ring],
        [to_left, across + to_top, across + down + (across - to_left)],
        default=2 * across + down + (down - to_top),
    )
    inwards = outside + along
    return _spread(jnp.asarray(rows * cols - 1 - inwards), height, width, patch)


def random_order(key: PRNGKeyArray, height: int, width: int, patch: int) -> Int[Array, "{height} {width}"]:
    """Patch by patch in a random order, every order as likely as any other."""
    rows, cols = _cells(height, width, patch)
    return _spread(jr.permutation(key, rows * cols).reshape(rows, cols), height, width, patch)


def outwards(known: ArrayLike, patch: int) -> Int[Array, "height width"]:
    """Ring after ring of `patch` tokens around what is known, all tokens of a ring together; known ones are in group 0.

    A token's ring is that of its distance to the nearest known token, the larger one of those in rows and in columns.
    Raises `TypeError` for an array that is not boolean, and `ValueError` if nothing is known.
    """
    reached = np.asarray(known)
    check_patch_sizes((patch,))
    if reached.dtype != bool:
        raise TypeError(f"known must be boolean, True where a token is observed, got {reached.dtype}; compare it")
    if reached.ndim != 2 or not reached.any():
        raise ValueError(
            f"rings grow around known tokens of a grid, got shape {reached.shape} with {reached.sum()} known; give a "
            "region that knows something, or another order"
        )
    groups, ring = np.zeros(reached.shape, np.int32), 0
    while not reached.all():
        near = reached
        for axis in (0, 1):
            padded = np.pad(near, [(patch, patch) if side == axis else (0, 0) for side in (0, 1)])
            near = np.lib.stride_tricks.sliding_window_view(padded, 2 * patch + 1, axis).any(-1)
        groups[near & ~reached] = ring
        reached, ring = near, ring + 1
    return jnp.asarray(groups)


def check_groups(groups: ArrayLike) -> Int[Array, "height width"]:
    """A user's order as an int32 array.

    Raises `TypeError` if the numbers are not integers, and `ValueError` if they are not one number per token or
    not exactly 0..G-1.
    """
    numbers = np.asarray(groups)
    if not np.issubdtype(numbers.dtype, np.integer):
        raise TypeError(
            f"group numbers must be integers, got an array of {numbers.dtype}; convert with groups.astype(int)"
        )
    if numbers.ndim != 2 or numbers.size == 0:
        raise ValueError(f"groups must be one number per token, height x width, got shape {numbers.shape}")
    present = np.unique(numbers)
    if present[0] != 0 or present[-1] != len(present) - 1:
        missing = _first_missing(present)
        raise ValueError(
            f"group numbers must be 0..G-1 with none left out, got {len(present)} groups from {present[0]} to "
            f"{present[-1]} (missing, at most five shown: {missing}); renumber with "
            "numpy.unique(groups, return_inverse=True)[1].reshape(groups.shape)"
        )
    return jnp.asarray(numbers, jnp.int32)


def _first_missing(present: Integer[np.ndarray, " groups"], count: int = 5) -> list[int]:
    """The first few of 0, 1, .. below the largest number that do not occur. Its cost is that of `present`, and not that
    of the largest number.
    """
    candidates = range(min(len(present) + count, max(int(present[-1]), 0)))
    occurring = set(present[present >= 0][: len(candidates)].tolist())
    return [number for number in candidates if number not in occurring][:count]


def _cells(height: int, width: int, patch: int) -> tuple[int, int]:
    """Rows and columns of patches, counting those cut off at the edge."""
    check_patch_sizes((patch,))
    check_patch_fits(patch, height, width)
    return -(-height // patch), -(-width // patch)


def _spread(per_cell: Int[Array, "rows cols"], height: int, width: int, patch: int) -> Int[Array, "{height} {width}"]:
    rows, cols = np.arange(height) // patch, np.arange(width) // patch
    return per_cell[rows[:, None], cols[None, :]].astype(jnp.int32)
