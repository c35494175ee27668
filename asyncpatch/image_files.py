"""Image files: the one decoder of everything that reads them, be it a folder, an archive, a user's image or a mask.

A file is decoded whole, and one that ends early is an error; its rotation tag (EXIF) is applied; it becomes RGB of 8
bits, where 16-bit values keep their high byte, transparent pixels show white, and grey, CMYK and palettes are converted
as Pillow does. Of an animation or of several pages the first picture is taken.

What is not understood is refused, never guessed at: formats other than `FORMATS` (Pillow would start other programs for
some), floating-point and 32-bit pixels, whose range no file states, signed ones, 12-bit ones and inverted 16-bit ones,
which Pillow reads wrongly, and 16-bit files with nothing above 255, which hold 8-bit values in the wrong type.

A mask is told by pure black and white, so for it no value is rounded: see `read_black_and_white`.
"""

import io
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Shaped, UInt8
from PIL import ExifTags, Image, UnidentifiedImageError

from asyncpatch.files import open_regular

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""What is tried, whatever a file's name ends with."""

MAX_PIXELS = 2**26
"""Of one image, 8192 x 8192: a file of some kilobytes can announce any number."""

MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr")
"""Kinds of 8-bit pixels, as Pillow calls them, whose range and meaning are known."""

SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N")
BITS_PER_SAMPLE, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339
"""Tags of TIFF: bits, whether 0 is white, and whether samples are unsigned (1)."""

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


class ImageFileError(ValueError):
    """A file that is no image, is damaged, or holds pixels whose meaning is not known."""


class BlackAndWhite(NamedTuple):
    """A picture for reading a mask off: which pixels are purely white, which purely black, and the file's texts."""

    white: Bool[np.ndarray, "height width"]
    black: Bool[np.ndarray, "height width"]
    see_through: bool
    texts: dict[Any, Any]


class _Decoded(NamedTuple):
    """Upright, and either of 16 bits (grey), or of 8 in one of `MODES`."""

    image: Image.Image
    halved: bool
    """Whether Pillow has dropped the low bytes of 16-bit colours."""


def read_rgb(file: str | Path | io.BytesIO) -> UInt8[np.ndarray, "height width 3"]:
    """Decode a file. Raises `ImageFileError`, which names it, for one that cannot be decoded or is not understood."""
    image = _decode(file).image
    if image.mode in SIXTEEN_BITS:
        image = Image.fromarray((_sixteen(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return np.asarray(image.convert("RGB"))


def read_grey(file: str | Path | io.BytesIO) -> UInt8[np.ndarray, "height width 1"]:
    """The same in shades of grey."""
    return np.asarray(Image.fromarray(read_rgb(file)).convert("L"))[..., None]


def read_black_and_white(file: str | Path | io.BytesIO) -> BlackAndWhite:
    """Decode a file without rounding. Raises as `read_rgb` does."""
    image, halved = _decode(file)
    if halved:
        raise ImageFileError(f"{_name(file)} has colours of 16 bits; save a mask in 8 bits, black and white")
    see_through = image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema() != (255, 255)
    if image.mode in SIXTEEN_BITS:
        values, highest = _sixteen(image)[..., None], 65535
    else:
        values, highest = np.asarray(image.convert("RGB")), 255
    return BlackAndWhite((values == highest).all(-1), (values == 0).all(-1), see_through, dict(image.info))


def _decode(file: str | Path | io.BytesIO) -> _Decoded:
    try:
        if isinstance(file, io.BytesIO):
            return _decode_open(file)
        with open_regular(file) as opened:
            return _decode_open(opened)
    except (MemoryError, FileNotFoundError):
        raise
    except UnidentifiedImageError as error:
        raise ImageFileError(
            f"{_name(file)} is no image of a known kind, which are {', '.join(FORMATS)}; convert it to one of them"
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageFileError(f"{_name(file)} has more than the {MAX_PIXELS:,} pixels allowed; shrink it") from error
    except Exception as error:  # on damaged files Pillow's readers raise errors of nearly every kind
        raise ImageFileError(f"{_name(file)} cannot be read: {error}") from error


def _name(file: str | Path | io.BytesIO) -> str:
    """Bytes in memory have none: Pillow's would be an address, which no two runs have in common."""
    return "the file" if isinstance(file, io.BytesIO) else str(file)


def _decode_open(file: Any) -> _Decoded:
    with Image.open(file, formats=FORMATS) as opened:
        sixteen = _has_sixteen_bits(opened)  # before `load`, which forgets it
        _check(opened, sixteen)
        opened.load()
        # PNG and PGM of 16 bits are "I" in some releases of Pillow: 32 bits wide, with 16 of them used.
        if opened.mode == "I":
            image = Image.fromarray(np.asarray(opened).clip(0, 65535).astype(np.uint16))
        else:
            image = opened.copy()
        image.info = opened.info
        image = _upright(image, opened)
    if image.mode in SIXTEEN_BITS and 0 < (highest := int(_sixteen(image).max())) < 256:
        raise ValueError(
            f"it has 16 bits, but no value above {highest}: it seems to hold 8-bit values; save it as such"
        )
    return _Decoded(image, sixteen and image.mode not in SIXTEEN_BITS)


def _check(opened: Image.Image, sixteen: bool) -> None:
    """Refuse what would be misread, before any pixel is decoded."""
    width, height = opened.size
    if width * height > MAX_PIXELS:
        raise ValueError(f"it is {width}x{height}, more than the {MAX_PIXELS:,} pixels allowed; shrink it")
    advice = "save it with 8 or 16 bits, unsigned"
    if opened.mode == "F":
        raise ValueError(f"it holds floating-point pixels of unknown range; {advice}")
    if opened.mode == "I" and opened.format == "TIFF":
        raise ValueError(f"it holds 32-bit or signed pixels of unknown range; {advice}")
    if opened.mode not in (*MODES, *SIXTEEN_BITS, "I"):
        raise ValueError(f"it holds pixels of the kind {opened.mode}; save it as grey or RGB")
    wide = sixteen or opened.mode in (*SIXTEEN_BITS, "I")
    if wide and "transparency" in opened.info:
        raise ValueError("it has 16 bits and a transparent colour; save it with an alpha channel, or without")
    tags = getattr(opened, "tag_v2", {}) if opened.format == "TIFF" else {}
    bits, unsigned = _every(tags.get(BITS_PER_SAMPLE, 1)), _every(tags.get(SAMPLE_FORMAT, 1))
    if unsigned - {1} or bits - {1, 2, 4, 8, 16}:
        raise ValueError(f"it is a TIFF of {sorted(bits)} bits and sample format {sorted(unsigned)}; {advice}")
    if wide and tags.get(PHOTOMETRIC) == 0:
        raise ValueError(f"it is a TIFF of 16 bits in which 0 is white; {advice}, 0 being black")


def _has_sixteen_bits(opened: Image.Image) -> bool:
    """As the file is stored, whatever Pillow makes of it: the arguments of its decoders say."""
    arguments = [argument for tile in getattr(opened, "tile", ()) for argument in _every(tile[3])]
    highest = [argument for argument in arguments if opened.format == "PPM" and isinstance(argument, int)]
    return any(re.search("16[BLN]", str(argument)) for argument in arguments) or max(highest, default=0) > 255


def _every(value: object) -> set:
    return set(value) if isinstance(value, tuple) else {value}


def _sixteen(image: Image.Image) -> Shaped[np.ndarray, "height width"]:
    return np.asarray(image).astype(np.uint16)


def _upright(image: Image.Image, opened: Image.Image) -> Image.Image:
    try:
        tag = opened.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # broken tags raise errors of many kinds, and say nothing about the pixels
        tag = None
    turn = TURNS.get(tag)
    return image if turn is None else image.transpose(turn)
