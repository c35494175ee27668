"""Sources and records: where images come from, before any arithmetic.

A *source* is a frozen dataclass of plain values: it says where images are and can be written to a JSON config.
`open()` checks that they are there and returns *records*: `records[i]` is one uint8 image, or the float32 latents of
one, with its class index.

Invariants: all images of a data set have one shape; `records[i]` depends on `i` alone; records can be pickled,
because Grain hands them to its worker processes.
"""

import abc
import dataclasses
from typing import TypedDict

import numpy as np
from jaxtyping import Float32, Int32, UInt8


class Record(TypedDict):
    """One image as it is stored, pixels or the latents of an autoencoder, and the index of its class."""

    image: UInt8[np.ndarray, "height width channel"] | Float32[np.ndarray, "height width channel"]
    label: Int32[np.ndarray, ""]


@dataclasses.dataclass(frozen=True, eq=False)
class AbstractRecords(abc.ABC):
    """Random access to the images of an opened source.

    `shape` is `(height, width, channel)` of every image; `class_names[label]` names a class.
    """

    shape: tuple[int, int, int]
    class_names: tuple[str, ...]

    @abc.abstractmethod
    def __len__(self) -> int:
        """The number of images, at least 1."""

    @abc.abstractmethod
    def __getitem__(self, index: int) -> Record:
        """The image and label at `index`, with `0 <= index < len(self)`."""


class AbstractSource(abc.ABC):
    """Says where images are.

    To write one more: a frozen dataclass whose fields are plain values (or other sources), and `open()`, which
    raises a clear error before any training starts if the images are missing, damaged or of no use, and returns
    `InMemoryRecords` or a class of its own. Enrol it in `tests/test_data.py`. Wrap a source to change it; `Folds` does.
    """

    @abc.abstractmethod
    def open(self) -> AbstractRecords:
        """Check the images and return access to them."""


@dataclasses.dataclass(frozen=True, eq=False)
class InMemoryRecords(AbstractRecords):
    """Records of a data set that is small enough to be held as one array."""

    images: UInt8[np.ndarray, "count height width channel"] = dataclasses.field(repr=False)
    labels: Int32[np.ndarray, " count"] = dataclasses.field(repr=False)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Record:
        return {"image": self.images[index], "label": self.labels[index, ...]}
