"""Pictures of images, known regions and time fields: plain functions from arrays to pixels, and pixels to files.

Pixels are enlarged without smoothing, so that what is shown is what was computed. Time fields are drawn from dark
(0, clean) to light (1, noise); pixels that are not known are drawn in a flat colour.
"""

import io
from pathlib import Path

import numpy as np
from jaxtyping import Array, Bool, Float, UInt8
from PIL import Image as Pillow

from asyncpatch.places import Place, place, replace_bytes

HIDDEN_COLOUR = (0.95, 0.55, 0.25)
"""What stands for a pixel that was not given."""

GAP = 2
"""Pixels of white between tiles, before enlargement."""

Values = np.ndarray | Array
"""Images and regions may come from the host or from a device."""

Pixels = UInt8[np.ndarray, "_ _ 3"]


def colour(image: Float[Values, "height width channel"]) -> Pixels:
    """[-1, 1] to colours. Of more than three channels the first three are shown, of less the first, as grey."""
    values = np.asarray(image)
    grey_or_colour = np.repeat(values[..., :1], 3, axis=-1) if values.shape[-1] < 3 else values[..., :3]
    return np.rint((grey_or_colour.clip(-1, 1) + 1) * 127.5).astype(np.uint8)


def colour_known(image: Float[Values, "height width channel"], known: Bool[Values, "height width"]) -> Pixels:
    """An image of which only the known part is shown."""
    hidden = np.rint(np.asarray(HIDDEN_COLOUR) * 255).astype(np.uint8)
    return np.where(np.asarray(known)[..., None], colour(image), hidden)


def colour_time(t: Float[Values, "height width"]) -> Pixels:
    """A time field."""
    from matplotlib import colormaps  # as slow to import as all else here, and most programs draw no time

    return (colormaps["viridis"](np.asarray(t, float))[..., :3] * 255).astype(np.uint8)


def tile(rows: list[list[Pixels]]) -> Pixels:
    """Pictures of one size in rows, with white between them."""
    height, width, _ = rows[0][0].shape
    columns = max(len(row) for row in rows)
    sheet = np.full(((height + GAP) * len(rows) + GAP, (width + GAP) * columns + GAP, 3), 255, np.uint8)
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            top, left = GAP + i * (height + GAP), GAP + j * (width + GAP)
            sheet[top : top + height, left : left + width] = picture
    return sheet


def enlarge(pixels: Pixels, target_width: int = 720) -> Pillow.Image:
    """Enlarged by the whole number that brings it nearest below `target_width` pixels; `.show()` shows it."""
    factor = max(1, target_width // pixels.shape[1])
    size = (pixels.shape[1] * factor, pixels.shape[0] * factor)
    return Pillow.fromarray(pixels).resize(size, Pillow.Resampling.NEAREST)


def save(pixels: Pixels, path: str | Place, target_width: int = 720) -> Place:
    """Write a picture, enlarged as by `enlarge`, as PNG: whole or not at all."""
    written, path = io.BytesIO(), place(path)
    enlarge(pixels, target_width).save(written, "PNG")
    replace_bytes(path, written.getvalue())
    return path


def grid(images: Float[Values, "batch height width channel"], columns: int) -> Pixels:
    """Images in rows of `columns`."""
    pictures = [colour(image) for image in images]
    return tile([pictures[i : i + columns] for i in range(0, len(pictures), columns)])


def before_and_after(
    given: Float[Values, "batch height width channel"],
    known: Bool[Values, "height width"],
    made: Float[Values, "batch height width channel"],
) -> Pixels:
    """Three rows: the original, what the sampler was given of it, and what it made."""
    return each_before_and_after(given, np.broadcast_to(known, given.shape[:3]), made)


def each_before_and_after(
    given: Float[Values, "batch height width channel"],
    known: Bool[Values, "batch height width"],
    made: Float[Values, "batch height width channel"],
) -> Pixels:
    """The same three rows, with a known region for each image."""
    shown = [colour_known(image, region) for image, region in zip(given, known, strict=True)]
    return tile([[colour(image) for image in given], shown, [colour(image) for image in made]])


def by_strength(
    given: Float[Values, "batch height width channel"],
    strength: Float[Values, "height width"],
    made: Float[Values, "batch height width channel"],
) -> Pixels:
    """Three rows: the original, the strength that it was changed with, drawn as a time field, and what was made."""
    return tile([[colour(image) for image in given], [colour_time(strength)] * len(given), [colour(i) for i in made]])


def moments(
    times: Float[Values, "batch frames height width"],
    noisy: Float[Values, "batch frames height width channel"],
    data: Float[Values, "batch frames height width channel"],
    final: Float[Values, "batch height width channel"],
) -> list[Pixels]:
    """The rows of `strip` for several images beside each other, one picture a moment: what `animate` takes.

    Those of one image alone lie beside each other.
    """
    done = np.zeros_like(times[:, 0])
    fields, seen, told = (
        np.concatenate([np.asarray(part), np.asarray(last)[:, None]], axis=1)
        for part, last in ((times, done), (noisy, final), (data, final))
    )
    sheets = [
        [[colour_time(t) for t in fields[:, at]], *([colour(z) for z in part[:, at]] for part in (seen, told))]
        for at in range(fields.shape[1])
    ]
    return [tile(rows if len(fields) > 1 else [[row[0] for row in rows]]) for rows in sheets]


HELD = 12
"""Moments that the end of an animation is shown for."""


def animate(frames: list[Pixels], path: str | Path, target_width: int = 480, seconds: float = 0.12) -> Path:
    """Write pictures of one size as an endless animation, `seconds` each, without loss; the suffix is .webp or .gif."""
    first, *others = [enlarge(frame, target_width) for frame in frames]
    milliseconds = [round(seconds * 1000)] * len(others) + [round(seconds * 1000 * HELD)]
    webp = {"lossless": True, "method": 6} if Path(path).suffix == ".webp" else {}
    first.save(path, None, save_all=True, append_images=others, duration=milliseconds, loop=0, **webp)
    return Path(path)


def strip(
    times: Float[Values, "frames height width"],
    noisy: Float[Values, "frames height width channel"],
    data: Float[Values, "frames height width channel"],
    final: Float[Values, "height width channel"],
) -> Pixels:
    """Three rows: the time field as it falls, the noisy image at these times, and the estimate that was made of it."""
    done = np.zeros_like(times[0])
    fields = [colour_time(t) for t in [*times, done]]
    return tile([fields, *([colour(image) for image in [*images, final]] for images in (noisy, data))])
