"""Batches: what the trainer asks of a data source, and the way from host memory to the mesh.

The stream of images is a function of the position alone: batch `n` is what step `n` learns from, so the data
position of a checkpoint is its step. Process `p` of `P` holds the images `p, p + P, p + 2P, ...` of each global
batch; `Batch.index` carries these positions, and an image's random key follows its position. So the numbers do
not depend on how many processes and devices share the work, except for the order of float sums.
"""

from collections.abc import Iterator, Mapping
from typing import Protocol, runtime_checkable

import equinox as eqx
import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from asyncpatch.shapes import NULL_LABEL
from asyncpatch.train.mesh import batch_sharding

HostBatch = Mapping[str, np.ndarray]
"""`image`: float32, `local height width channel`; `label`: integers, `local`."""


@runtime_checkable
class BatchSource(Protocol):
    """Endless batches of this process's share of the images, the same ones at the same step for ever."""

    def batch(self, step: int) -> HostBatch:
        """The batch of one step."""

    def iterate(self, start_step: int) -> Iterator[HostBatch]:
        """The batches of `start_step`, `start_step + 1`, ... without end."""


class Batch(eqx.Module):
    """One global batch on the mesh; `index` is each image's position in it."""

    image: Float[Array, "batch height width channel"]
    label: Int[Array, " batch"]
    index: Int[Array, " batch"]


def put_batch(host: HostBatch, mesh: Mesh) -> Batch:
    """Assemble the global batch from every process's share."""
    index = np.arange(len(host["label"]), dtype=np.int32) * jax.process_count() + jax.process_index()
    parts = (host["image"], host["label"].astype(np.int32), index)
    return Batch(*(jax.make_array_from_process_local_data(batch_sharding(mesh), part) for part in parts))


def check_batch(host: HostBatch, step: int, num_classes: int, parts: int) -> None:
    """Raise `ValueError` for a batch that the trainer cannot use: wrong shapes, labels or number of images.

    `parts` is what the global number of images must be a multiple of: microbatches times devices.
    """
    image, label = host["image"], host["label"]
    if image.ndim != 4 or image.dtype != np.float32 or label.shape != image.shape[:1]:
        raise ValueError(
            f"batch {step} has images {image.dtype}{list(image.shape)} and labels {list(label.shape)}; "
            "give float32 images `batch height width channel` and one label for each"
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
