"""The same picture in several files: found by a small hash, counted once.

The hash is of 64 bits: the picture is brought to 8 rows of 9 grey values, whatever its shape, and each bit says whether
a value is brighter than its left neighbour. It stays nearly the same under resizing, compression and a change of
brightness; a detail cut out of a picture, or a mirrored one, has another.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image

ROWS, COLUMNS = 8, 9

NEAR = 6
"""Bits, of 64, in which two files of one picture may differ. Two unrelated ones differ in so few with a probability of
5e-12, if their bits are fair."""


def small_hash(picture: UInt8[np.ndarray, "height width 3"]) -> int:
    """The hash of a picture, below 2**64."""
    grey = Image.fromarray(picture).convert("L").resize((COLUMNS, ROWS), Image.Resampling.BOX)
    values = np.asarray(grey).astype(np.int16)
    bits = (values[:, 1:] > values[:, :-1]).ravel()
    return int("".join("1" if bit else "0" for bit in bits), 2)


def distance(a: int, b: int) -> int:
    """Bits in which two hashes differ."""
    return (a ^ b).bit_count()


def group_near(hashes: Sequence[int]) -> list[list[int]]:
    """Places of `hashes` in groups: two are in one group if a chain of neighbours at most `NEAR` bits apart joins
    them. Groups, and the places in each, are in rising order."""
    group = list(range(len(hashes)))
    for i, a in enumerate(hashes):
        for j in range(i):
            if distance(a, hashes[j]) <= NEAR and group[i] != group[j]:
                merged, kept = max(group[i], group[j]), min(group[i], group[j])
                group = [kept if number == merged else number for number in group]
    return [[i for i, number in enumerate(group) if number == first] for first in sorted(set(group))]
