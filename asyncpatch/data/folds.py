"""Deterministic parts of a source, for validation.

Record `i` belongs to fold `i mod count`. Sources that list one class after the other (folders do) thus give every
fold nearly the same share of each class, and a source that grows at its end keeps its older records in place.

Invariant: the folds are disjoint and together hold every record once.
"""

import dataclasses

import numpy as np
from jaxtyping import Int64

from asyncpatch.data.base import AbstractRecords, AbstractSource, Record
from asyncpatch.data.opening import open_once


@dataclasses.dataclass(frozen=True)
class Folds(AbstractSource):
    """The records of `source` whose index, modulo `count`, is one of `chosen`."""

    source: AbstractSource
    count: int
    chosen: tuple[int, ...]

    def __post_init__(self):
        if not self.chosen or len(set(self.chosen)) < len(self.chosen):
            raise ValueError(f"chosen folds must be distinct and at least one, got {self.chosen}; name each once")
        if not all(0 <= fold < self.count for fold in self.chosen):
            raise ValueError(f"chosen folds must lie in [0, {self.count}), got {self.chosen}; raise count or drop some")

    def open(self) -> AbstractRecords:
        records = open_once(self.source)
        indices = np.flatnonzero(np.isin(np.arange(len(records)) % self.count, self.chosen))
        if not len(indices):
            raise ValueError(
                f"folds {self.chosen} of {self.count} are empty: the source holds {len(records)} images; "
                "choose a smaller fold count"
            )
        return SelectedRecords(records.shape, records.class_names, records, indices)


def hold_out(source: AbstractSource, one_in: int = 10) -> tuple[Folds, Folds]:
    """Training and held-out parts of a source: one record in `one_in` is held out."""
    if one_in < 2:
        raise ValueError(f"one_in must be at least 2 to leave something to train on, got {one_in}; give 10 for a tenth")
    return Folds(source, one_in, tuple(range(1, one_in))), Folds(source, one_in, (0,))


@dataclasses.dataclass(frozen=True, eq=False)
class SelectedRecords(AbstractRecords):
    """Some records of another data set, in its order."""

    records: AbstractRecords
    indices: Int64[np.ndarray, " count"] = dataclasses.field(repr=False)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Record:
        return self.records[int(self.indices[index])]
