"""Preparation of published data sets: from the files as their publishers give them to `ArrayRecords`.

`imagenet` and `lsun_bedroom` list a data set as a `Collection` of encoded images; `prepare` decodes, crops and shrinks
them into a folder with one sub-folder for each split, and `check_prepared` verifies such a folder by its checksums.
"""

from asyncpatch.data.prepare.imagenet import IMAGENET_TRAIN, IMAGENET_VAL, imagenet
from asyncpatch.data.prepare.index import check_prepared
from asyncpatch.data.prepare.lsun import LSUN_BEDROOM_TRAIN, LSUN_BEDROOM_VAL, lsun_bedroom
from asyncpatch.data.prepare.originals import AbstractOriginal, Collection, FileOriginal, LmdbOriginal
from asyncpatch.data.prepare.run import prepare

__all__ = [
    "IMAGENET_TRAIN",
    "IMAGENET_VAL",
    "LSUN_BEDROOM_TRAIN",
    "LSUN_BEDROOM_VAL",
    "AbstractOriginal",
    "Collection",
    "FileOriginal",
    "LmdbOriginal",
    "check_prepared",
    "imagenet",
    "lsun_bedroom",
    "prepare",
]
