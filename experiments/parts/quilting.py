"""Image quilting: a texture sewn together from blocks of its exemplar. Efros and Freeman, SIGGRAPH 2001.

The canvas is filled with square blocks in raster order, each overlapping those above it and to its left. A block is
drawn at random from all blocks of the exemplar whose squared difference from what lies in the overlap is at most
`1 + tolerance` times the least one. It is sewn in along the seams of least squared difference through the two overlaps,
which dynamic programming finds:

    E[i, j] = e[i, j] + min(E[i-1, j-1], E[i-1, j], E[i-1, j+1])

Invariant: every pixel is one of the exemplar's, and the middle of a block, which no seam reaches, is a patch of it.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int

from asyncpatch.ranges import check_counts, check_number

Pixels = Float[np.ndarray, "height width channel"]


@dataclasses.dataclass(frozen=True)
class Quilting:
    """Sides of blocks and of their overlaps in pixels, and how much worse than the best one a block may fit."""

    block: int = 12
    overlap: int = 4
    tolerance: float = 0.1

    def __post_init__(self):
        check_counts(block=self.block, overlap=self.overlap)
        check_number("overlap", self.overlap, lambda size: 2 * size <= self.block, "at most half a block")
        check_number("tolerance", self.tolerance, lambda share: share >= 0, "at least 0")

    def __call__(
        self, rng: np.random.Generator, exemplar: Pixels, height: int, width: int
    ) -> Float[np.ndarray, "{height} {width} channel"]:
        """A canvas of the exemplar's texture. Raises `ValueError` for an exemplar that is smaller than a block."""
        block, step = self.block, self.block - self.overlap
        if min(exemplar.shape[:2]) < block:
            raise ValueError(
                f"an exemplar of {exemplar.shape[0]}x{exemplar.shape[1]} holds no block of {block}x{block}; "
                "give a smaller block"
            )
        blocks = np.lib.stride_tricks.sliding_window_view(exemplar, (block, block), (0, 1))
        blocks = np.moveaxis(blocks.reshape(-1, exemplar.shape[2], block, block), 1, -1)
        rows, cols = (max(1, -(-(side - self.overlap) // step)) for side in (height, width))
        canvas = np.zeros((rows * step + self.overlap, cols * step + self.overlap, exemplar.shape[2]))
        for row, col in np.ndindex(rows, cols):
            place = canvas[row * step : row * step + block, col * step : col * step + block]
            shared = np.zeros((block, block), bool)
            shared[: self.overlap if row else 0] = True
            shared[:, : self.overlap if col else 0] = True
            chosen = blocks[self._choose(rng, blocks, place, shared)]
            stays = self._seams(((place - chosen) ** 2).sum(-1), row > 0, col > 0)
            place[:] = np.where(stays[..., None], place, chosen)
        return canvas[:height, :width]

    def _choose(
        self,
        rng: np.random.Generator,
        blocks: Float[np.ndarray, "blocks block block channel"],
        place: Float[np.ndarray, "block block channel"],
        shared: Bool[np.ndarray, "block block"],
    ) -> int:
        """The number of a block that fits what lies in the overlap."""
        misfit = ((blocks[:, shared] - place[shared][None]) ** 2).sum((1, 2))
        return int(rng.choice(np.flatnonzero(misfit <= (1 + self.tolerance) * misfit.min())))

    def _seams(
        self, errors: Float[np.ndarray, "block block"], above: bool, left: bool
    ) -> Bool[np.ndarray, "block block"]:
        """Which pixels of a place stay as they are: those beyond the seams."""
        stays, along = np.zeros(errors.shape, bool), np.arange(self.overlap)
        if left:
            stays[:, : self.overlap] |= along[None] < cheapest_seam(errors[:, : self.overlap])[:, None]
        if above:
            stays[: self.overlap] |= along[:, None] < cheapest_seam(errors[: self.overlap].T)[None]
        return stays


def cheapest_seam(errors: Float[np.ndarray, "length across"]) -> Int[np.ndarray, " length"]:
    """For every step along the first axis the place across it, at most one from the last, of least total error."""
    length, across = errors.shape
    total = errors.astype(np.float64)
    for i in range(1, length):
        padded = np.pad(total[i - 1], 1, constant_values=np.inf)
        total[i] += np.minimum(np.minimum(padded[:-2], padded[1:-1]), padded[2:])
    seam = np.zeros(length, int)
    seam[-1] = total[-1].argmin()
    for i in range(length - 2, -1, -1):
        first = max(seam[i + 1] - 1, 0)
        seam[i] = first + np.argmin(total[i, first : min(seam[i + 1] + 2, across)])
    return seam
