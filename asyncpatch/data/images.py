"""Any image file to a square RGB image of 8 bits: what folders and prepared data sets are made of.

The file is decoded as `asyncpatch/image_files.py` says, the largest centred square is cut out, and the square is
brought to `size`.

Shrinking takes areas: an output pixel is the mean of the stored values (gamma as stored) over the square of the input
that it covers, input pixels on its border counting by the part inside. The mean is exact and rounded once, halves up,
so the result is that of no particular machine or library. Nothing overshoots, and averaging is its own
composition: the 64x64 image is the 4x4 mean of the 256x256 one, up to the rounding of the latter.

Others shrink otherwise, and figures are comparable only within one way. The centre crop of guided-diffusion (ADM)
halves by 2x2 means while the shorter side is at least twice `size`, goes on with a bicubic filter, which overshoots at
edges, and crops last. Pillow's BOX filter gives each input pixel whole to one output pixel, so at fractional factors
neighbours average different numbers of pixels. Most loaders of ImageNet ignore rotation tags.

A square smaller than `size` is enlarged with Pillow's bicubic filter.
"""

import io
from pathlib import Path

import numpy as np
from jaxtyping import Integer, UInt8
from PIL import Image

from asyncpatch.image_files import read_rgb


def read_image(file: str | Path | io.BytesIO, size: int) -> UInt8[np.ndarray, "{size} {size} 3"]:
    """Decode a file and bring it to a square RGB image. Raises `ImageFileError` on one that it cannot decode."""
    return to_square(read_rgb(file), size)


def to_square(
    image: UInt8[np.ndarray, "height width channel"], size: int
) -> UInt8[np.ndarray, "{size} {size} channel"]:
    """The largest centred square, brought to `size`."""
    height, width, _ = image.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return resize(image[top : top + side, left : left + side], size)


def resize(image: UInt8[np.ndarray, "side side channel"], size: int) -> UInt8[np.ndarray, "{size} {size} channel"]:
    """Means over areas if it is to become smaller, Pillow's bicubic filter if larger."""
    if len(image) >= size:
        return shrink(image, size)
    channels = [
        Image.fromarray(image[..., i]).resize((size, size), Image.Resampling.BICUBIC) for i in range(image.shape[2])
    ]
    return np.stack([np.asarray(channel) for channel in channels], axis=-1)


def shrink(image: UInt8[np.ndarray, "side side channel"], size: int) -> UInt8[np.ndarray, "{size} {size} channel"]:
    """Means over areas, for `size` of at most the image's side."""
    side, _, channel = image.shape
    area = side**2
    total = np.int32 if 2 * 256 * area < 2**31 else np.int64  # so that no sum overflows
    rows = _sums(image.reshape(side, -1), size, total).reshape(size, side, channel)
    columns = _sums(rows.swapaxes(0, 1).reshape(side, -1), size, total).reshape(size, size, channel)
    means = (2 * columns + area) // (2 * area)
    return means.astype(np.uint8).swapaxes(0, 1)


def _sums(values: Integer[np.ndarray, "side width"], size: int, total: type) -> Integer[np.ndarray, "{size} width"]:
    """`size` times the sums over `size` equal parts of the first axis: a part's weights are integers of sum `side`."""
    side, part = len(values), np.arange(size)
    sums = np.zeros((size, values.shape[1]), total)
    for offset in range(-(-side // size) + 1):
        row = part * side // size + offset
        overlap = np.minimum((part + 1) * side, (row + 1) * size) - np.maximum(part * side, row * size)
        sums += values[np.minimum(row, side - 1)] * overlap.clip(0).astype(total)[:, None]
    return sums
