"""Prepare ImageNet, LSUN bedrooms, photographs or emoji for training, from the files as their publishers give them.

    python -m experiments.prepare_data imagenet --root /data/imagenet --size 64 --output /data/imagenet64
    python -m experiments.prepare_data lsun --root /data/lsun --size 256 --output /data/lsun256
    python -m experiments.prepare_data photographs --size 64 --output /data/photographs64
    python -m experiments.prepare_data emoji --root package --output /data/emoji64
    python -m experiments.prepare_data check --output /data/imagenet64

Then train on `ArrayRecords("/data/imagenet64/train")`, and validate on `.../val`. After an interruption give the same
command again: it goes on where it stopped. The docstrings of `asyncpatch/data/prepare/imagenet.py` and `lsun.py` say
which files must be there; docs/data.md tells of the photographs and the emoji.
"""

import os
from pathlib import Path

from rich.console import Console

from asyncpatch.data import prepare as preparation
from asyncpatch.data.prepare import Sieve
from experiments.parts.command import run_command
from experiments.parts.looks import describe_looks, write_looks
from experiments.parts.preparing import prepare_beside_a_bar


def imagenet(
    root: Path,
    size: int,
    output: Path,
    train: int = preparation.IMAGENET_TRAIN,
    val: int = preparation.IMAGENET_VAL,
    workers: int = os.cpu_count() or 1,
    max_corrupt_share: float = 0.0,
) -> None:
    """Prepare ImageNet (ILSVRC2012).

    Args:
        root: the folder that holds the archives, or the folders `train` and `val`.
        size: side of the prepared images in pixels.
        output: a new folder, or one that an earlier run began.
        train: training images that must be there.
        val: validation images that must be there.
        workers: processes that decode.
        max_corrupt_share: share of damaged images to leave out; more is an error.
    """
    console = Console(stderr=True)
    console.print("Listing the images; archives take minutes.")
    prepare_beside_a_bar(preparation.imagenet(root, train, val), size, output, workers, max_corrupt_share, console)


def lsun(
    root: Path,
    size: int,
    output: Path,
    train: int = preparation.LSUN_BEDROOM_TRAIN,
    val: int = preparation.LSUN_BEDROOM_VAL,
    workers: int = os.cpu_count() or 1,
    max_corrupt_share: float = 0.0,
) -> None:
    """Prepare LSUN bedrooms.

    Args:
        root: the folder that holds `bedroom_train_lmdb` and `bedroom_val_lmdb`.
        size: side of the prepared images in pixels.
        output: a new folder, or one that an earlier run began.
        train: training images that must be there.
        val: validation images that must be there.
        workers: processes that decode.
        max_corrupt_share: share of damaged images to leave out; more is an error.
    """
    console = Console(stderr=True)
    console.print("Listing the images.")
    prepare_beside_a_bar(preparation.lsun_bedroom(root, train, val), size, output, workers, max_corrupt_share, console)


def photographs(
    size: int,
    output: Path,
    folders: tuple[Path, ...] = (),
    crops: int = 512,
    held_out_share: float = 0.2,
    seed: int = 0,
    sieve: Sieve = Sieve(),
    workers: int = os.cpu_count() or 1,
) -> None:
    """Prepare crops of the photographs below folders, split by picture.

    Every image file is named on standard output, with what became of it and why: read that before training.

    Args:
        size: side of the prepared images in pixels.
        output: a new folder, or one that an earlier run began.
        folders: where pictures are looked for, at any depth; Debian's folders of wallpapers if none is given.
        crops: crops of each picture.
        held_out_share: share of the pictures whose crops are not trained on.
        seed: of the split and of the crops.
        sieve: what counts as a photograph.
        workers: processes that decode.
    """
    console = Console(stderr=True)
    console.print("Looking at the pictures.")
    places = folders or preparation.installed_folders()
    found = preparation.photographs(places, size, crops, held_out_share, seed, sieve)
    for line in describe_looks(found):
        print(line)
    prepare_beside_a_bar(found.collection, size, output, workers, 0.0, console)
    write_looks(output / "pictures.json", found)


def emoji(root: Path, output: Path, size: int = 64, workers: int = 0) -> None:
    """Prepare the emoji of npm's emoji-datasource-google, the category as the class.

    Args:
        root: the folder `package` that its archive unpacks to.
        output: a new folder, or one that an earlier run began.
        size: side of the prepared images in pixels; they are stored with 64.
        workers: processes that decode.
    """
    prepare_beside_a_bar(preparation.emoji(root), size, output, workers, 0.0, Console(stderr=True))


def check(output: Path) -> None:
    """Verify a prepared folder by its checksums.

    Args:
        output: the folder.
    """
    index = preparation.check_prepared(output)
    shards = sum(len(split["shards"]) for split in index["splits"].values())
    print(f"{shards} shards are as they were prepared; checksum of all: {index['sha256']}")


if __name__ == "__main__":
    run_command({"imagenet": imagenet, "lsun": lsun, "photographs": photographs, "emoji": emoji, "check": check})
