"""Batches: what the trainer asks of a data source, and the way from host memory to the mesh.

The stream of images is a function of the position alone: batch `n` is what step `n` learns from, so the data
position of a checkpoint is its step. A global batch is the processes' blocks joined in order; `Batch.index` is an
image's position in it, which its random key follows. So the numbers do not depend on how many processes and
devices share the work, except for the order of float sums.
"""

from collections.abc import Generator
from typing import Protocol, TypedDict, runtime_checkable

import equinox as eqx
import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Float32, Int, Int32

from asyncpatch.shapes import NULL_LABEL
from asyncpatch.train.mesh import batch_sharding


class HostBatch(TypedDict):
    """One process's block of a global batch, in host memory."""

    image: Float32[np.ndarray, "batch height width channel"]
    label: Int32[np.ndarray, " batch"]


@runtime_checkable
class BatchSource(Protocol):
    """Endless batches of this process's share of the images, the same ones at the same step for ever.

    `asyncpatch.data.batches` makes one.
    """

    def batch(self, step: int) -> HostBatch:
        """The batch of one step."""

    def iterate(self, start_step: int) -> Generator[HostBatch, None, None]:
        """The batches of `start_step`, `start_step + 1`, ... without end, until it is closed."""


class Batch(eqx.Module):
    """One global batch on the mesh; `index` is each image's position in it."""

    image: Float[Array, "batch height width channel"]
    label: Int[Array, " batch"]
    index: Int[Array, " batch"]


def put_batch(host: HostBatch, mesh: Mesh) -> Batch:
    """Assemble the global batch from every process's share."""
    local = len(host["label"])
    index = jax.process_index() * local + np.arange(local, dtype=np.int32)
    parts = (host["image"], host["label"], index)
    return Batch(*(jax.make_array_from_process_local_data(batch_sharding(mesh), part) for part in parts))


def check_batch(host: HostBatch, step: int, num_classes: int, parts: int) -> None:
    """Raise `ValueError` for a batch that the trainer cannot use: wrong shapes, labels or number of images.

    `parts` is what the global number of images must be a multiple of: microbatches times devices.
    """
    image, label = host["image"], host["label"]
    types = (image.dtype, label.dtype)
    if image.ndim != 4 or label.shape != image.shape[:1] or types != (np.float32, np.int32):
        raise ValueError(
            f"batch {step} has images {image.dtype}{list(image.shape)} and labels {label.dtype}{list(label.shape)}; "
            "give float32 images `batch height width channel` and one int32 label for each"
        )
    if (len(label) * jax.process_count()) % parts:
        raise ValueError(
            f"a batch of {len(label) * jax.process_count()} images cannot be split into {parts} equal parts "
            "(microbatches times devices); give a multiple"
        )
    wrong = (label < NULL_LABEL) | (label >= num_classes)
    if wrong.any():
        at = int(np.argmax(wrong))
        raise ValueError(
            f"batch {step} has the label {label[at]} at image {at}, outside {NULL_LABEL} (no class) "
            f"to {num_classes - 1}; set num_classes to the number of classes in the data, or mend the labels"
        )
