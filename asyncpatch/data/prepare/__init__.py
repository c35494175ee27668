"""Preparation of published data sets: from the files as their publishers give them to `ArrayRecords`.

`imagenet`, `lsun_bedroom`, `emoji` and `photographs` (of any folders) list a data set as a `Collection` of encoded
images; `prepare` decodes, crops and shrinks them into a folder with one sub-folder for each split, and `check_prepared`
verifies such a folder by its checksums.
"""

from asyncpatch.data.prepare.emoji import emoji
from asyncpatch.data.prepare.imagenet import IMAGENET_TRAIN, IMAGENET_VAL, imagenet
from asyncpatch.data.prepare.index import check_prepared
from asyncpatch.data.prepare.lsun import LSUN_BEDROOM_TRAIN, LSUN_BEDROOM_VAL, lsun_bedroom
from asyncpatch.data.prepare.originals import AbstractOriginal, Collection, FileOriginal, LmdbOriginal
from asyncpatch.data.prepare.photographs import Photographs, installed_folders, photographs
from asyncpatch.data.prepare.run import prepare
from asyncpatch.data.prepare.sieve import Look, Sieve

__all__ = [
    "IMAGENET_TRAIN",
    "IMAGENET_VAL",
    "LSUN_BEDROOM_TRAIN",
    "LSUN_BEDROOM_VAL",
    "AbstractOriginal",
    "Collection",
    "FileOriginal",
    "LmdbOriginal",
    "Look",
    "Photographs",
    "Sieve",
    "check_prepared",
    "emoji",
    "imagenet",
    "installed_folders",
    "lsun_bedroom",
    "photographs",
    "prepare",
]
