"""Which picture files are photographs: a rule by figures, and a list of names where figures do not tell.

A folder of wallpapers holds photographs, drawings, renderings and paintings. Of the square in the middle of a picture,
brought to 512x512 by area means, two figures are taken:

    flat      the share of pixels that are, in all channels, what their right neighbour is
    colours   the number of different colours, as a share of the pixels

A camera's noise makes neighbours differ and colours many; a drawing has areas of one colour. Pictures out of focus have
fewer colours than drawings with texture, so no bound parts the two kinds: the bounds leave out what is nearly grey or
nearly one colour, photographs among it. Renderings are shipped without loss (PNG, WebP), photographs as cameras write
them (JPEG), hence the suffixes. The drawings that are left, of the packages that the sieve was made for, are named:
they were looked at.

The sieve errs on other folders. `Look` says what became of every file and why; read the list before training on it.
"""

import dataclasses
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from asyncpatch.data.images import to_square
from asyncpatch.data.prepare.near_duplicates import small_hash
from asyncpatch.data.prepare.shards import sha256_of
from asyncpatch.image_files import ImageFileError, read_rgb
from asyncpatch.ranges import check_counts, check_share

FIGURE_SIDE = 512
"""Side of the square that figures are taken of: they fall with the size of a picture."""

DRAWN = (
    "backgrounds/Infinite-Sea",
    "backgrounds/analogpattern",
    "backgrounds/string.jpg",
    "mate/abstract/Elephants",
    "wallpapers/Autumn/",
    "wallpapers/Honeywave/",
    "wallpapers/SafeLanding/",
    "wallpapers/Shell/",
    "wallpapers/Volna/",
)
"""Paintings, renderings and composites of Debian's packages whose figures are a photograph's, by a part of the path."""


@dataclasses.dataclass(frozen=True)
class Look:
    """What was seen of a file. Figures are NaN where the file was not decoded."""

    path: str
    sha256: str
    left_out: str
    """Why it is no picture of the set; empty if it is one."""
    height: int = 0
    width: int = 0
    flat: float = float("nan")
    colours: float = float("nan")
    hash: int = 0
    """By which near-duplicates are found."""


@dataclasses.dataclass(frozen=True)
class Sieve:
    """The rule."""

    suffixes: tuple[str, ...] = (".jpg", ".jpeg")
    """Kinds of files that photographs come in."""
    least_side: int = 512
    """Pixels of the shorter side, at least: below it are previews."""
    most_flat: float = 0.35
    least_colours: float = 0.06
    drawn: tuple[str, ...] = DRAWN
    """What is left out whatever the figures say: paths that have one of these after a slash."""

    def __post_init__(self):
        check_counts(least_side=self.least_side)
        check_share("most_flat", self.most_flat)
        check_share("least_colours", self.least_colours)
        if not self.suffixes:
            raise ValueError("suffixes is empty, so that no file would pass; give .jpg, for one")

    def look(self, path: Path) -> Look:
        """Look at a file. A file that cannot be decoded is left out like any other."""
        sha256 = sha256_of(path)
        if path.suffix.lower() not in self.suffixes:
            return Look(str(path), sha256, f"is no {' or '.join(self.suffixes)}")
        named = [name for name in self.drawn if f"/{name}" in path.as_posix()]
        if named:
            return Look(str(path), sha256, f"is known to be drawn ({named[0]})")
        try:
            picture = read_rgb(path)
        except ImageFileError as error:
            return Look(str(path), sha256, str(error))
        height, width, _ = picture.shape
        if min(height, width) < self.least_side:
            return Look(str(path), sha256, f"is smaller than {self.least_side} pixels", height, width)
        flat, colours = figures(picture)
        reason = self._objection(flat, colours)
        return Look(str(path), sha256, reason, height, width, flat, colours, small_hash(picture))

    def _objection(self, flat: float, colours: float) -> str:
        if flat > self.most_flat:
            return f"is drawn, or out of focus: flat {flat:.3f} is above {self.most_flat}"
        if colours < self.least_colours:
            return f"is grey, drawn, or of one colour: colours {colours:.3f} is below {self.least_colours}"
        return ""


def figures(picture: UInt8[np.ndarray, "height width 3"]) -> tuple[float, float]:
    """`flat` and `colours` of a picture, both in [0, 1]."""
    square = to_square(picture, FIGURE_SIDE).astype(np.int32)
    equal = (square[:, 1:] == square[:, :-1]).all(-1)
    packed = square @ np.array([65536, 256, 1], np.int32)
    return float(equal.mean()), len(np.unique(packed)) / packed.size
