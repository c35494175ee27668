"""Textures to learn and to go on with: three photographs of scikit-image, crops of which are a data set.

A photograph of 512x512 pixels is halved, so that bricks and stones fit a crop, and its contrast is stretched. A band
of `HELD_OUT` rows across its middle is never trained on: exemplars, and the real surroundings that what grows from
them is compared with, are cut from there.
"""

import dataclasses
import functools

import numpy as np
from jaxtyping import UInt8

from asyncpatch.data.base import AbstractRecords, AbstractSource, Record
from asyncpatch.data.images import shrink
from asyncpatch.ranges import check_counts

NAMES = ("brick", "grass", "gravel")
"""What scikit-image calls the photographs; the label of a texture is its place."""

SIDE = 256
"""Of a photograph once it is halved."""

HELD_OUT = ((80, 176),)
"""Rows that are never trained on: a band between those that are, as bricks grow from the top row to the bottom one."""

TRAINED_ON = ((0, 80), (176, 256))

DARKEST, LIGHTEST = 1, 99
"""Percentiles of a photograph that become black and white: as they come, the photographs are nearly grey."""


@functools.cache
def photograph(name: str) -> UInt8[np.ndarray, "256 256 1"]:
    """A texture, halved and stretched."""
    try:
        from skimage import data
    except ImportError as error:
        raise ImportError("the textures come with scikit-image: pip install 'asyncpatch[metrics]'") from error
    halved = shrink(getattr(data, name)()[..., None], SIDE).astype(np.float64)
    dark, light = np.percentile(halved, (DARKEST, LIGHTEST))
    return np.rint(((halved - dark) / (light - dark)).clip(0, 1) * 255).astype(np.uint8)


@dataclasses.dataclass(frozen=True)
class TextureCrops(AbstractSource):
    """Every square of `side` pixels that lies within one of `bands`, which are rows from a first to before a last."""

    bands: tuple[tuple[int, int], ...] = TRAINED_ON
    side: int = 32

    def __post_init__(self):
        check_counts(side=self.side)
        if not self.bands or any(not 0 <= first <= last - self.side <= SIDE - self.side for first, last in self.bands):
            raise ValueError(
                f"crops of {self.side} rows are cut from bands of rows within 0 to {SIDE}, got {self.bands}; give "
                f"bands that are {self.side} rows high or more"
            )

    def open(self) -> "CropRecords":
        tops = np.concatenate([np.arange(first, last - self.side + 1) for first, last in self.bands])
        return CropRecords((self.side, self.side, 1), NAMES, tops)


@dataclasses.dataclass(frozen=True, eq=False)
class CropRecords(AbstractRecords):
    """Crops by texture, then by row and column of their top left corner."""

    tops: np.ndarray = dataclasses.field(repr=False)

    @property
    def columns(self) -> int:
        """Where a crop may begin, from left to right."""
        return SIDE - self.shape[1] + 1

    def __len__(self) -> int:
        return len(NAMES) * len(self.tops) * self.columns

    def __getitem__(self, index: int) -> Record:
        texture, place = divmod(index, len(self.tops) * self.columns)
        row, left = divmod(place, self.columns)
        top, side = self.tops[row], self.shape[0]
        crop = photograph(NAMES[texture])[top : top + side, left : left + side]
        return {"image": crop, "label": np.asarray(texture, np.int32)}
