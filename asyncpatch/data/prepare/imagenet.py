"""ImageNet (ILSVRC2012) as published: archives, or the folders that Kaggle and most clusters unpack them to.

    train   ILSVRC2012_img_train.tar, an archive of one archive for each class, n01440764.tar and so on
            or train/n01440764/*.JPEG, or ILSVRC/Data/CLS-LOC/train/n01440764/*.JPEG
    val     ILSVRC2012_img_val.tar, or val/*.JPEG, or ILSVRC/Data/CLS-LOC/val/*.JPEG
            or val/n01440764/*.JPEG, as many unpack it
    names and labels of val: see imagenet_labels.py

Where several are there, the first is taken. Nothing is unpacked: images are read from where they lie in an archive.
Classes are numbered in the order of their synset ids. Training images are taken in the order of class and file name,
validation images in that of the file name, so every layout gives the same listing.
"""

import contextlib
import dataclasses
import operator
import tarfile
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from asyncpatch.data.image_folder import SUFFIXES
from asyncpatch.data.prepare.imagenet_labels import find_first, read_class_names, read_val_synsets
from asyncpatch.data.prepare.originals import Collection, FileOriginal

IMAGENET_TRAIN, IMAGENET_VAL = 1_281_167, 50_000

TRAIN = ("ILSVRC2012_img_train.tar", "train", "ILSVRC/Data/CLS-LOC/train")
VAL = ("ILSVRC2012_img_val.tar", "val", "ILSVRC/Data/CLS-LOC/val")


class _Found(NamedTuple):
    """An image that is there, not yet known to be of a class."""

    name: str
    path: str
    start: int = 0
    length: int | None = None

    def labelled(self, label: int) -> FileOriginal:
        return FileOriginal(self.name, label, self.path, self.start, self.length)


def imagenet(root: str | Path, train: int = IMAGENET_TRAIN, val: int = IMAGENET_VAL) -> Collection:
    """List the images below `root`, which must be `train` and `val` many.

    Archives have no index: reading where 1.3 million images begin takes minutes on a fast disk.
    """
    root = Path(root)
    names = read_class_names(root)
    labels = {synset: label for label, synset in enumerate(sorted(names))}
    splits = {"train": _list_train(root, labels), "val": _list_val(root, labels)}
    collection = Collection("ImageNet", tuple(f"{synset} {names[synset]}" for synset in labels), splits)
    collection.check_counts({"train": train, "val": val})
    return collection


def _list_train(root: Path, labels: Mapping[str, int]) -> tuple[FileOriginal, ...]:
    place = find_first(root, TRAIN)
    if place.is_dir():
        return _list_class_folders(place, labels)
    found = sorted(_archived_classes(place))
    _check_classes({image.name.split("/")[0] for image in found}, labels, place)
    return tuple(image.labelled(labels[image.name.split("/")[0]]) for image in found)


def _list_val(root: Path, labels: Mapping[str, int]) -> tuple[FileOriginal, ...]:
    place = find_first(root, VAL)
    if place.is_dir() and any(entry.is_dir() for entry in place.iterdir()):
        return _without_classes(_list_class_folders(place, labels))
    found = sorted(_folder_images(place) if place.is_dir() else _archived_images(place))
    synsets = read_val_synsets(root)
    unknown = [image.name for image in found if synsets.get(Path(image.name).stem) not in labels]
    if unknown:
        raise ValueError(
            f"{len(unknown)} images in {place} have no label or one of an unknown class, the first is {unknown[0]}; "
            "check that labels, class names and images are of one release"
        )
    return tuple(image.labelled(labels[synsets[Path(image.name).stem]]) for image in found)


def _list_class_folders(place: Path, labels: Mapping[str, int]) -> tuple[FileOriginal, ...]:
    folders = sorted(entry for entry in place.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    _check_classes({folder.name for folder in folders}, labels, place)
    return tuple(
        image._replace(name=f"{folder.name}/{image.name}").labelled(labels[folder.name])
        for folder in folders
        for image in sorted(_folder_images(folder))
    )


def _without_classes(originals: tuple[FileOriginal, ...]) -> tuple[FileOriginal, ...]:
    """The same named and ordered as where there are no class folders."""
    named = (dataclasses.replace(original, name=Path(original.name).name) for original in originals)
    return tuple(sorted(named, key=operator.attrgetter("name")))


def _folder_images(folder: Path) -> Iterator[_Found]:
    return (_Found(path.name, str(path)) for path in folder.iterdir() if _is_image(path.name))


def _archived_images(archive: Path) -> Iterator[_Found]:
    with _open_tar(archive) as members:
        for member in members:
            if member.isfile() and _is_image(member.name):
                yield _Found(Path(member.name).name, str(archive), member.offset_data, member.size)


def _archived_classes(archive: Path) -> Iterator[_Found]:
    """The same for an archive of archives; a name begins with its class."""
    with _open_tar(archive) as classes:
        for inner in classes:
            if not inner.isfile() or not inner.name.endswith(".tar"):
                continue
            with _open_tar(archive, classes.extractfile(inner)) as members:
                for member in members:
                    if member.isfile() and _is_image(member.name):
                        name = f"{Path(inner.name).stem}/{Path(member.name).name}"
                        yield _Found(name, str(archive), inner.offset_data + member.offset_data, member.size)


@contextlib.contextmanager
def _open_tar(archive: Path, inner: Any = None) -> Generator[tarfile.TarFile, None, None]:
    """The members of an uncompressed archive, or of one inside it."""
    try:
        with tarfile.open(archive, "r:", fileobj=inner) as members:
            yield members
    except tarfile.TarError as error:
        raise ValueError(f"{archive} is cut, damaged or no plain archive ({error}); fetch it again") from error


def _is_image(name: str) -> bool:
    path = Path(name)
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def _check_classes(found: set[str], labels: Mapping[str, int], place: Path) -> None:
    unknown, absent = sorted(found - set(labels)), sorted(set(labels) - found)
    if unknown or absent:
        raise ValueError(
            f"{place} should hold the {len(labels)} classes of the synset list: it has {len(unknown)} others "
            f"{unknown[:3]}, and lacks {len(absent)} {absent[:3]}; fetch what is missing, move away what is too many"
        )
