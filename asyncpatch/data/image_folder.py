"""A folder of images, one sub-folder for each class, as ImageNet is laid out.

`open()` decodes every file once, in threads, so that a damaged file is found before training and not in its
middle. Damaged files are counted, named in the log and left out; too large a share of them is an error.

Whatever a file holds becomes a square RGB image of 8 bits, as `asyncpatch/data/images.py` says, or counts as damaged.
"""

import dataclasses
import logging
import os
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
from jaxtyping import Int32
from rich.progress import track

from asyncpatch.data.base import AbstractRecords, AbstractSource, Record
from asyncpatch.data.images import read_image
from asyncpatch.data.staged import staged

logger = logging.getLogger(__name__)

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
FILES_WORTH_A_BAR = 2000  # some seconds of decoding
NAMES_IN_ERROR = 5  # the log names every file, the error only the first


@dataclasses.dataclass(frozen=True)
class ImageFolder(AbstractSource):
    """Images under `root/<class name>/`, cropped and resized to `size x size` RGB.

    Files below a class folder are found at any depth and taken in the order of their names; hidden files and those
    with another suffix than an image's are ignored. A folder in a bucket is copied first (`staged`). More than
    `max_corrupt_share` of damaged files stops the run.
    """

    root: str
    size: int
    max_corrupt_share: float = 0.01

    def __post_init__(self):
        if self.size < 1:
            raise ValueError(f"size must be at least 1 pixel, got {self.size}; give the side of the square images")
        if not 0 <= self.max_corrupt_share < 1:
            raise ValueError(
                f"max_corrupt_share must lie in [0, 1), got {self.max_corrupt_share}; 0.01 tolerates one in a hundred"
            )

    def open(self) -> "FolderRecords":
        class_names, paths, labels = _list_images(staged(self.root))
        readable = self._readable(paths)
        return FolderRecords(
            shape=(self.size, self.size, 3),
            class_names=class_names,
            paths=tuple(path for path, good in zip(paths, readable, strict=True) if good),
            labels=np.asarray(labels, np.int32)[np.asarray(readable)],
        )

    def _readable(self, paths: list[str]) -> list[bool]:
        """Which files can be decoded. Logs each that cannot; raises if they are too many."""

        def complaint(path: str) -> str | None:
            try:
                read_image(path, self.size)
            except (ValueError, OSError) as error:
                return f"{type(error).__name__}: {error}"
            return None

        with ThreadPool(os.cpu_count()) as pool:
            found = pool.imap(complaint, paths, chunksize=16)
            bar = track(found, "Checking images", total=len(paths), disable=len(paths) < FILES_WORTH_A_BAR)
            complaints = list(bar)
        corrupt = [path for path, text in zip(paths, complaints, strict=True) if text is not None]
        for path, text in zip(paths, complaints, strict=True):
            if text is not None:
                logger.warning("skipping corrupt image %s (%s)", path, text)
        if corrupt:
            logger.warning("skipped %d corrupt images of %d in %s", len(corrupt), len(paths), self.root)
        if len(corrupt) > self.max_corrupt_share * len(paths):
            raise ValueError(
                f"{len(corrupt)} of {len(paths)} images in {self.root} are corrupt, more than the share of "
                f"{self.max_corrupt_share} allowed; the first are {corrupt[:NAMES_IN_ERROR]}: mend or remove them, "
                "or raise max_corrupt_share"
            )
        return [text is None for text in complaints]


@dataclasses.dataclass(frozen=True, eq=False)
class FolderRecords(AbstractRecords):
    """Image files that decoded well when the folder was opened; each is decoded again when it is asked for."""

    paths: tuple[str, ...] = dataclasses.field(repr=False)
    labels: Int32[np.ndarray, " count"] = dataclasses.field(repr=False)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Record:
        return {"image": read_image(self.paths[index], self.shape[0]), "label": self.labels[index, ...]}


def _list_images(root: Path) -> tuple[tuple[str, ...], list[str], list[int]]:
    """Class names, and for each image file its path and class index."""
    if not root.is_dir():
        raise FileNotFoundError(f"no folder at {root}; give a folder with one sub-folder of images for each class")
    folders = sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not folders:
        raise ValueError(f"{root} has no sub-folders; put the images of each class into a sub-folder named after it")
    paths, labels = [], []
    for label, folder in enumerate(folders):
        inside = [str(path) for path in _image_files(folder)]
        if not inside:
            raise ValueError(
                f"class folder {folder} holds no image; add images ({', '.join(sorted(SUFFIXES))}) or remove the folder"
            )
        paths += inside
        labels += [label] * len(inside)
    return tuple(folder.name for folder in folders), paths, labels


def _image_files(folder: Path) -> list[Path]:
    found = folder.rglob("*")
    return sorted(
        path
        for path in found
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and not path.is_dir()
    )
