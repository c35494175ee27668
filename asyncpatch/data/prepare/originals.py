"""Encoded images as their publisher gives them, listed but not yet read.

Invariant: an original is a plain value, a hundred bytes or so, that any process can read on its own. A listing of
millions fits into memory, and shares of it can be dealt to workers.
"""

import abc
import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from asyncpatch.files import open_regular


@dataclasses.dataclass(frozen=True, slots=True)
class AbstractOriginal(abc.ABC):
    """One encoded image.

    To write one more: a frozen dataclass with slots whose fields say where the bytes are, and `read()`. `name` is the
    image's name within its split, the same in every layout of the data set; messages and reports use it.
    """

    name: str
    label: int

    @abc.abstractmethod
    def read(self) -> bytes:
        """The encoded bytes. Raises `OSError` if they cannot be had, `ValueError` if some are missing."""


@dataclasses.dataclass(frozen=True, slots=True)
class FileOriginal(AbstractOriginal):
    """A file, or the part of an uncompressed archive that holds one."""

    path: str
    start: int = 0
    length: int | None = None
    """Up to the end of the file if None."""

    def read(self) -> bytes:
        with open_regular(self.path) as file:
            file.seek(self.start)
            content = file.read(self.length)
        if self.length is not None and len(content) < self.length:
            raise ValueError(f"should hold {self.length} bytes, got {len(content)}: {self.path} is cut")
        return content


@dataclasses.dataclass(frozen=True, slots=True)
class LmdbOriginal(AbstractOriginal):
    """A value in an LMDB environment; its key is the name."""

    folder: str

    def read(self) -> bytes:
        with _open_once(self.folder).begin(buffers=False) as transaction:
            content = transaction.get(self.name.encode())
        if content is None:
            raise ValueError(f"is no longer in {self.folder}")
        return content


@functools.cache
def _open_once(folder: str) -> Any:
    """LMDB allows an environment to be open once in a process."""
    return open_lmdb(folder)


def open_lmdb(folder: str) -> Any:
    """The environment in `folder`, which is only read: without a lock file, and without reading ahead."""
    try:
        import lmdb  # not a dependency of the package
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'LSUN is stored in LMDB files: pip install "asyncpatch[data]" to read them'
        ) from error
    try:
        return lmdb.open(folder, readonly=True, lock=False, readahead=False, create=False)
    except lmdb.Error as error:
        raise ValueError(f"{folder} is no LMDB environment, or is cut ({error}); unpack it again") from error


@dataclasses.dataclass(frozen=True)
class Collection:
    """A listed data set. `splits` gives the originals of each split in the order in which they are stored."""

    title: str
    class_names: tuple[str, ...]
    splits: Mapping[str, tuple[AbstractOriginal, ...]] = dataclasses.field(repr=False)

    def check_counts(self, expected: Mapping[str, int]) -> None:
        """Raise `ValueError` unless every split holds exactly as many images as expected."""
        found = {split: len(originals) for split, originals in self.splits.items()}
        wrong = [
            f"{split} holds {found[split]:,}, expected {expected[split]:,}"
            for split in found
            if found[split] != expected[split]
        ]
        if wrong:
            raise ValueError(
                f"{self.title} is not complete, or is not the published one: {'; '.join(wrong)}. Fetch what is "
                "missing; if these are the images that you want, say how many you expect"
            )
