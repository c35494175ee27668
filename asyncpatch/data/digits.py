"""The embedded default: 1797 handwritten digits of 8x8 pixels, which come with scikit-learn."""

import dataclasses
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from asyncpatch.data.base import AbstractSource, InMemoryRecords

SIZE = 8
MAX_STROKE = 16  # scikit-learn stores how many of 4x4 bitmap pixels were set, 0 to 16
FILE = "sklearn/datasets/data/digits.csv.gz"
"""Where it stores them. The file is read without scikit-learn's code, which takes longer to import than JAX."""


@dataclasses.dataclass(frozen=True)
class Digits(AbstractSource):
    """Handwritten digits, 8x8, one channel, ten classes. Needs no file and no network."""

    def open(self) -> InMemoryRecords:
        strokes, labels = np.split(_table(), [SIZE * SIZE], axis=1)
        images = np.rint(strokes * (255 / MAX_STROKE)).astype(np.uint8)
        return InMemoryRecords(
            shape=(SIZE, SIZE, 1),
            class_names=tuple(str(digit) for digit in range(10)),
            images=images.reshape(-1, SIZE, SIZE, 1),
            labels=labels[:, 0].astype(np.int32),
        )


def _table() -> UInt8[np.ndarray, "images 65"]:
    """Each image's pixels, row by row, and its label."""
    file = Path(str(distribution("scikit-learn").locate_file(FILE)))
    if file.exists():
        return np.loadtxt(file, np.uint8, delimiter=",")
    from sklearn.datasets import load_digits  # a version that stores them elsewhere

    return np.column_stack(load_digits(return_X_y=True)).astype(np.uint8)
