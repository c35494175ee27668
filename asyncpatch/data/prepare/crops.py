"""Square crops of large pictures, as originals that shards are made of.

The side of a crop is drawn log-uniformly, so that every scale is seen as often as any other; its place uniformly. A
crop is brought to the size of the set by area means, as every image is.

Invariant: a crop is named by the picture, the digest of its file, and the square, so that the recipe of a prepared
folder names all that its pixels depend on; a file that has changed since it was listed is refused.
"""

import dataclasses
import functools
import hashlib
import io
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from asyncpatch.data.prepare.originals import AbstractOriginal
from asyncpatch.data.prepare.sieve import Look
from asyncpatch.files import open_regular
from asyncpatch.image_files import read_rgb


@dataclasses.dataclass(frozen=True, slots=True)
class CropOriginal(AbstractOriginal):
    """A square of a picture. Reading it gives a file without compression (PPM), which takes no longer than a copy."""

    path: str
    sha256: str
    top: int
    left: int
    side: int

    def read(self) -> bytes:
        picture = _decode(self.path, self.sha256)
        square = picture[self.top : self.top + self.side, self.left : self.left + self.side]
        if square.shape[:2] != (self.side, self.side):
            raise ValueError(f"lies outside the picture, which has {picture.shape[0]}x{picture.shape[1]} pixels")
        file = io.BytesIO()
        Image.fromarray(square).save(file, "PPM")
        return file.getvalue()


def draw_crops(look: Look, count: int, least_side: int, seed: int) -> tuple[CropOriginal, ...]:
    """`count` crops of a picture, of `least_side` up to its shorter side: a function of the seed and the file."""
    rng = np.random.default_rng([seed, int(look.sha256[:16], 16)])
    most = min(look.height, look.width)
    if most < least_side:
        raise ValueError(
            f"{look.path} is {look.height}x{look.width}, which has no crop of {least_side} pixels; give a smaller size"
        )
    crops = []
    for _ in range(count):
        side = min(most, round(np.exp(rng.uniform(np.log(least_side), np.log(most)))))
        top, left = (int(rng.integers(length - side + 1)) for length in (look.height, look.width))
        name = f"{Path(look.path).name} {look.sha256[:16]} {top}+{left}+{side}"
        crops.append(CropOriginal(name, 0, look.path, look.sha256, top, left, side))
    return tuple(crops)


@functools.lru_cache(maxsize=1)  # crops come picture by picture
def _decode(path: str, sha256: str) -> UInt8[np.ndarray, "height width 3"]:
    with open_regular(path) as file:
        content = file.read()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError(f"is of {path}, which has changed since it was listed; start again")
    return read_rgb(io.BytesIO(content))
