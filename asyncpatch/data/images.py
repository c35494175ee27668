"""Any image file to a square RGB image of 8 bits: the one decoder of everything that reads image files.

In this order: the file is decoded whole, and a file that ends early is an error; its rotation tag (EXIF) is applied; it
becomes RGB of 8 bits, where 16-bit values keep their high byte, transparent pixels show white, and grey, CMYK and
palettes are converted as Pillow does; the largest centred square is cut out; the square is brought to `size`.

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

import numpy as np
from jaxtyping import Integer, UInt8
from PIL import ExifTags, Image

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What shows an image upright, by the value of its rotation tag."""


def read_image(file: str | io.BytesIO, size: int) -> UInt8[np.ndarray, "{size} {size} 3"]:
    """Decode a file and bring it to a square RGB image. Raises what Pillow raises on a file that it cannot decode."""
    with Image.open(file) as opened:
        opened.load()
        image = _to_rgb(_upright(opened))
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    if side >= size:
        return shrink(np.asarray(square), size)
    return np.asarray(square.resize((size, size), Image.Resampling.BICUBIC))


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


def _upright(image: Image.Image) -> Image.Image:
    try:
        tag = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # broken tags raise errors of many kinds, and say nothing about the pixels
        tag = None
    turn = TURNS.get(tag)
    return image if turn is None else image.transpose(turn)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("holds floating-point pixels of unknown range; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        # Pillow would clip 16-bit values at 255 instead of scaling them.
        image = Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")
