"""The check of labels that come from outside, before anything is computed with them."""

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from asyncpatch.shapes import NULL_LABEL


def check_labels(labels: Array, images: int, num_classes: int | None) -> None:
    """Check that there is a label for each image and that a denoiser of `num_classes` knows it; `None` knows all.

    Values of traced labels are not looked at. Raises `ValueError` for a shape other than `(images,)` and for a label
    that is neither a class nor `NULL_LABEL`, and `TypeError` for labels that are not int32.
    """
    if labels.shape != (images,):
        raise ValueError(
            f"{images} images need {images} labels, got shape {labels.shape}; "
            f"give {NULL_LABEL} for an image without a class"
        )
    if labels.dtype != jnp.int32:
        raise TypeError(f"labels are int32 class indices, got dtype {labels.dtype}; convert them")
    if isinstance(labels, Tracer):
        return
    values = np.asarray(labels)
    last = np.inf if num_classes is None else num_classes - 1
    wrong = values[(values < NULL_LABEL) | (values > last)]
    if wrong.size:
        classes = "class indices" if num_classes is None else f"one of {num_classes} classes, counted from 0"
        raise ValueError(f"got a label of {wrong[0]}; give {classes}, or {NULL_LABEL} for no class")
