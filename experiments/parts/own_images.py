"""A user's image and mask, brought to what a run's network was trained on, both in the same way.

First fitted, if that was asked for: `crop` cuts the largest centred square out and brings it to the network's size, as
folders of images are read; `resize` brings the whole image there, whatever its proportions. Then the transforms of the
run's data, so that an image of the data's own size is padded as the data was.

A mask has the size of the image file, and goes the same way without any smoothing, or that of the network. What a
transform adds around an image is known: it is the same in every image.
"""

import dataclasses
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image as Pillow

from asyncpatch.data import AbstractTransform, check_image, to_float
from asyncpatch.data.images import resize, to_square
from asyncpatch.image_files import read_black_and_white, read_grey, read_rgb
from asyncpatch.masks import Polarity, known_from_ones, read_known
from asyncpatch.shapes import Known

Fit = Literal["none", "crop", "resize"]
"""How an image of another size is brought to the network's: not at all, and it is refused if it does not fit."""

WHITE = 255


@dataclasses.dataclass(frozen=True)
class Given:
    """What the network is given: the image in [-1, 1], and the size that its file had."""

    image: Float[np.ndarray, "height width channel"]
    file_size: tuple[int, int]


def read_image(
    path: Path, shape: tuple[int, int, int], transforms: tuple[AbstractTransform, ...] = (), fit: Fit = "none"
) -> Given:
    """An image file as the network takes it. Raises `ValueError` if it does not come to the network's size."""
    pixels = read_grey(path) if shape[2] == 1 else read_rgb(path)
    size = pixels.shape[:2]
    try:
        fitted = _transformed(_fitted(pixels, shape, fit), transforms)
        image = to_float(fitted)
        check_image(image, shape)
    except ValueError as error:
        wanted = f"{shape[0]}x{shape[1]}"
        raise ValueError(
            f"{path} is {size[0]}x{size[1]} (height x width), and the network takes {wanted}: {error}. --fit crop cuts "
            "out the middle and scales it, --fit resize scales the whole"
        ) from error
    return Given(image, size)


def read_mask(
    path: Path,
    height: int,
    width: int,
    file_size: tuple[int, int] | None = None,
    transforms: tuple[AbstractTransform, ...] = (),
    fit: Fit = "none",
) -> Known:
    """A mask file, white where the image is known, for an image whose file had this size.

    Raises `ValueError` unless it is pure black and white and of the image's size or the network's.
    """
    if file_size is None or file_size == (height, width):
        return read_known(path, Polarity.ONES_ARE_KNOWN, height, width)
    found = read_black_and_white(path).white.shape
    if found == (height, width):
        return read_known(path, Polarity.ONES_ARE_KNOWN, height, width)
    if found != file_size:
        raise ValueError(
            f"{path} is {found[0]}x{found[1]} (height x width); a mask has the size of its image, "
            f"{file_size[0]}x{file_size[1]}, or of the network, {height}x{width}: resize it with nearest neighbours"
        )
    known = np.asarray(read_known(path, Polarity.ONES_ARE_KNOWN, *file_size))
    values = _nearest(known.astype(np.uint8)[..., None] * np.uint8(WHITE), (height, width), fit)
    marked = _transformed(values, transforms)[..., 0]
    inside = _transformed(np.full_like(values, WHITE), transforms)[..., 0] == WHITE
    if not np.isin(marked, (0, WHITE)).all():
        raise ValueError(f"the transforms of the run's data change a mask's values; give {path} as {height}x{width}")
    return known_from_ones((marked == WHITE) | ~inside, Polarity.ONES_ARE_KNOWN, height, width)


def read_strength(
    path: Path,
    height: int,
    width: int,
    transforms: tuple[AbstractTransform, ...] = (),
    fit: Fit = "none",
) -> Float[np.ndarray, "{height} {width}"]:
    """A map of strengths, from black (0, kept) to white (1, made anew), brought to the network's size as images are.

    What a transform adds around an image is kept. Raises `ValueError` for a map that does not come to that size.
    """
    pixels = read_grey(path)
    try:
        fitted = _fitted(pixels, (height, width, 1), fit)
        values, inside = (_transformed(part, transforms) for part in (fitted, np.full_like(fitted, WHITE)))
        check_image(to_float(values), (height, width, 1))
    except ValueError as error:
        raise ValueError(
            f"{path} is {pixels.shape[0]}x{pixels.shape[1]} (height x width); a map of strengths has the size of its "
            f"image: {error}. --fit brings both to the network's"
        ) from error
    return np.where(inside == WHITE, values, 0)[..., 0].astype(np.float32) / WHITE


def _fitted(
    pixels: UInt8[np.ndarray, "height width channel"], shape: tuple[int, int, int], fit: Fit
) -> UInt8[np.ndarray, "new_height new_width channel"]:
    height, width, _ = shape
    if fit == "none":
        return pixels
    if height != width:
        raise ValueError("only networks of square images have their images fitted; crop or resize it beforehand")
    if fit == "crop":
        return to_square(pixels, height)
    if pixels.shape[0] == pixels.shape[1]:
        return resize(pixels, height)
    channels = [Pillow.fromarray(pixels[..., i]) for i in range(pixels.shape[2])]
    scaled = [channel.resize((width, height), Pillow.Resampling.BOX) for channel in channels]
    return np.stack([np.asarray(channel) for channel in scaled], axis=-1)


def _nearest(
    mask: UInt8[np.ndarray, "height width 1"], size: tuple[int, int], fit: Fit
) -> UInt8[np.ndarray, "new_height new_width 1"]:
    """The mask fitted as its image was: each pixel takes the value at its middle."""
    if fit == "none":
        return mask
    if fit == "crop":
        side = min(mask.shape[:2])
        top, left = (mask.shape[0] - side) // 2, (mask.shape[1] - side) // 2
        mask = mask[top : top + side, left : left + side]
    rows, columns = ((2 * np.arange(new) + 1) * old // (2 * new) for new, old in zip(size, mask.shape, strict=False))
    return mask[rows[:, None], columns[None, :]]


def _transformed(
    pixels: UInt8[np.ndarray, "height width channel"], transforms: tuple[AbstractTransform, ...]
) -> UInt8[np.ndarray, "new_height new_width channel"]:
    rng = np.random.default_rng(0)  # the same draws for an image and its mask
    for transform in transforms:
        pixels = transform(pixels, rng)
    return pixels
