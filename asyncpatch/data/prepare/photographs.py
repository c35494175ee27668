"""Photographs of folders as a data set of crops, split by picture.

Every image file below the folders is looked at (`Sieve`); what passes is grouped by a small hash, so that one picture
in several sizes counts once, in its largest; pictures are dealt to training and held-out, and crops are cut last. So no
two crops of different splits show one picture, and a split is as diverse as its pictures are many.
"""

import dataclasses
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from asyncpatch.data.image_folder import SUFFIXES
from asyncpatch.data.prepare.crops import draw_crops
from asyncpatch.data.prepare.near_duplicates import group_near
from asyncpatch.data.prepare.originals import Collection
from asyncpatch.data.prepare.sieve import Look, Sieve
from asyncpatch.ranges import check_counts, check_share

DEBIAN_FOLDERS = ("/usr/share/backgrounds", "/usr/share/wallpapers")
"""Where Debian's packages put wallpapers."""

DEBIAN_PACKAGES = (
    "mate-backgrounds",
    "plasma-workspace-wallpapers",
    "lomiri-wallpapers-16.04",
    "lomiri-wallpapers-20.04",
)
"""Those of Debian 12 that hold photographs; `gnome-backgrounds` holds drawings alone."""

LEAST_SHRINKING = 2
"""The smallest crops have so many times the side of the images: enlarged details of a photograph are blurred."""


@dataclasses.dataclass(frozen=True)
class Photographs:
    """What was found, and what of it is trained on."""

    collection: Collection
    looks: tuple[Look, ...]
    """Every file, in the order of its path."""
    held_out: frozenset[str]
    """Digests of the pictures that are not trained on."""


def photographs(
    folders: Sequence[str | Path], size: int, crops: int, held_out_share: float, seed: int, sieve: Sieve
) -> Photographs:
    """List `crops` crops of every photograph below `folders`, for images of `size` pixels.

    Raises `FileNotFoundError` if a folder is not there or holds no image, `ValueError` if fewer than two pictures
    pass: one to train on, one to hold out.
    """
    check_counts(size=size, crops=crops)
    check_share("held_out_share", held_out_share)
    looks = _count_once(tuple(sieve.look(path) for path in _image_files(folders)))
    taken = [look for look in looks if not look.left_out]
    if len(taken) < 2:
        raise ValueError(
            f"{len(taken)} of {len(looks)} image files in {', '.join(map(str, folders))} pass as photographs; two at "
            f"least are needed, to train on one and hold out the other: {_install()}, or loosen the sieve"
        )
    by_draw = sorted(taken, key=lambda look: hashlib.sha256(f"{seed} {look.sha256}".encode()).digest())
    number = min(len(taken) - 1, max(1, round(held_out_share * len(taken))))
    parts = {"train": by_draw[number:], "val": by_draw[:number]}
    splits = {
        split: tuple(
            crop
            for look in sorted(looks_of_split, key=lambda look: look.path)
            for crop in draw_crops(look, crops, LEAST_SHRINKING * size, seed)
        )
        for split, looks_of_split in parts.items()
    }
    collection = Collection("photographs", ("photograph",), splits)
    return Photographs(collection, looks, frozenset(look.sha256 for look in parts["val"]))


def _count_once(looks: tuple[Look, ...]) -> tuple[Look, ...]:
    """Leave out all but the largest of what shows the same picture."""
    passed = [i for i, look in enumerate(looks) if not look.left_out]
    changed = dict(enumerate(looks))
    for group in group_near([looks[i].hash for i in passed]):
        members = [passed[place] for place in group]
        largest = max(members, key=lambda i: (looks[i].height * looks[i].width, -i))
        for i in members:
            if i != largest:
                reason = f"shows what {Path(looks[largest].path).name} shows"
                changed[i] = dataclasses.replace(looks[i], left_out=reason)
    return tuple(changed.values())


def _image_files(folders: Sequence[str | Path]) -> list[Path]:
    """Files with an image's suffix, each once, links to others among them left out."""
    missing = [str(folder) for folder in folders if not Path(folder).is_dir()]
    if missing or not folders:
        raise FileNotFoundError(f"there is no folder {' and '.join(missing)}; {_install()}, or give other folders")
    found = {path.resolve() for folder in folders for path in _walk(Path(folder))}
    if not found:
        raise FileNotFoundError(f"no image file in {', '.join(map(str, folders))}; {_install()}, or give other folders")
    return sorted(found)


def _walk(folder: Path) -> Iterator[Path]:
    for place, _, names in os.walk(folder, followlinks=False):
        for name in names:
            path = Path(place, name)
            if path.suffix.lower() in SUFFIXES and not name.startswith(".") and path.is_file():
                yield path


def installed_folders() -> tuple[str, ...]:
    """Those of `DEBIAN_FOLDERS` that are there. Raises `FileNotFoundError` if none is."""
    there = tuple(folder for folder in DEBIAN_FOLDERS if Path(folder).is_dir())
    if not there:
        raise FileNotFoundError(f"neither {' nor '.join(DEBIAN_FOLDERS)} is there; {_install()}, or give other folders")
    return there


def _install() -> str:
    return f"install photographs (on Debian: apt-get install {' '.join(DEBIAN_PACKAGES)})"
