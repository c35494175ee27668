"""An image on a larger canvas: what outpainting beyond the border and the synthesis of texture are given.

    canvas, known = on_canvas(image, 96, 96)
    Task(synchronous(50, 96, 96), known)                                    everything around it together
    Task(staged(outwards(known, 8), 50, overlap=0.5), known)                ring after ring, from the image outwards

Nothing else tells these tasks from inpainting. A canvas that is larger than the images of training is for a denoiser
that takes it: `asyncpatch.process.Windowed` makes one.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from asyncpatch.shapes import Image


def on_canvas(
    image: Image, height: int, width: int, corner: tuple[int, int] | None = None
) -> tuple[Float[Array, "{height} {width} channel"], Bool[Array, "{height} {width}"]]:
    """A canvas of `height` x `width` tokens with `image` on it and zeros around it, and the region that is known.

    `corner` is the row and column of the image's top left token; the image lies in the middle if it is not given.
    Raises `ValueError` if the image is larger than the canvas or sticks out of it.
    """
    rows, cols, channels = image.shape
    if rows > height or cols > width:
        raise ValueError(
            f"an image, or exemplar, of {rows}x{cols} is larger than its canvas of {height}x{width} (height x width); "
            "give a larger canvas, or a crop of the image"
        )
    top, left = ((height - rows) // 2, (width - cols) // 2) if corner is None else corner
    if not (0 <= top <= height - rows and 0 <= left <= width - cols):
        raise ValueError(
            f"an image of {rows}x{cols} with its corner at {(top, left)} sticks out of a canvas of {height}x{width}; "
            f"keep the corner within {(0, 0)} to {(height - rows, width - cols)}"
        )
    place = np.s_[top : top + rows, left : left + cols]
    canvas = jnp.zeros((height, width, channels), image.dtype).at[place].set(image)
    return canvas, jnp.zeros((height, width), bool).at[place].set(True)
