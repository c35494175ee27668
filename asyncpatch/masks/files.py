"""Known regions as PNG files, with their polarity stated by the caller and written into the file.

The file carries a text chunk (`POLARITY_CHUNK`) that says what white means. Reading takes the caller's word for files
without it, and refuses a file whose chunk says otherwise. Invariant: what `write_known` wrote, `read_known` reads to
the bit under the same polarity, and not at all under the other.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Array, Bool
from PIL import Image as Pillow
from PIL.PngImagePlugin import PngInfo

from asyncpatch.image_files import read_black_and_white
from asyncpatch.masks.polarity import Polarity, known_from_ones, ones_from_known
from asyncpatch.shapes import Known

WHITE = 255
"""What a mask file holds beside zeros."""

POLARITY_CHUNK = "Mask polarity"
"""Keyword of the text chunk; its text is the value of a `Polarity`."""


def write_known(path: Path, known: Bool[Array | np.ndarray, "height width"], polarity: Polarity) -> None:
    """Write a known region as a black and white PNG, white as `polarity` says."""
    if path.suffix.lower() != ".png":
        raise ValueError(
            f"a mask is written as PNG, which loses nothing and says its polarity, got {path}; name it .png"
        )
    text = PngInfo()
    text.add_text(POLARITY_CHUNK, polarity.value)
    Pillow.fromarray(ones_from_known(known, polarity) * np.uint8(WHITE)).save(path, pnginfo=text)


def read_known(path: Path, polarity: Polarity, height: int, width: int) -> Known:
    """The known region in an image file, whose white pixels mean what `polarity` says.

    Raises `ValueError` if the file says otherwise, is not of this size, is not pure black and white, has transparent
    pixels, or is no image that `asyncpatch.image_files` understands.
    """
    picture = read_black_and_white(path)
    stated = picture.texts.get(POLARITY_CHUNK, polarity.value)
    if stated != polarity.value:
        raise ValueError(
            f"{path} says of itself that {stated}, but is read as if {polarity.value}; give the polarity that it states"
        )
    if picture.see_through:
        raise ValueError(
            f"{path} has transparent pixels, and a mask is told by black and white alone; save it without an alpha "
            "channel, after painting the transparent pixels black or white"
        )
    grey = ~(picture.white | picture.black)
    if grey.any():
        raise ValueError(
            f"a mask is white or black and nothing between (here {polarity.value}), but {grey.sum()} pixels of {path} "
            "are grey; save it without compression losses and without smoothing"
        )
    return known_from_ones(picture.white, polarity, height, width)
