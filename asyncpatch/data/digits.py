"""The embedded default: 1797 handwritten digits of 8x8 pixels, which come with scikit-learn."""

import dataclasses

import numpy as np

from asyncpatch.data.base import AbstractSource, InMemoryRecords

MAX_STROKE = 16  # scikit-learn stores how many of 4x4 bitmap pixels were set, 0 to 16


@dataclasses.dataclass(frozen=True)
class Digits(AbstractSource):
    """Handwritten digits, 8x8, one channel, ten classes. Needs no file and no network."""

    def open(self) -> InMemoryRecords:
        from sklearn.datasets import load_digits  # as slow to import as JAX, and no worker process needs it

        digits = load_digits()
        images = np.rint(digits.images * (255 / MAX_STROKE)).astype(np.uint8)[..., None]
        return InMemoryRecords(
            shape=images.shape[1:],
            class_names=tuple(str(name) for name in digits.target_names),
            images=images,
            labels=digits.target.astype(np.int32),
        )
