"""Where images come from: sources, transforms of stored images, batches by step, and the converter.

A source (`Digits`, `IdxFiles`, `TextureCrops`, `ImageFolder`, `ArrayRecords`, or `Folds` of one) opens into records;
`batches` turns records into an endless stream; `write_array_records` turns any source into ArrayRecord files.
"""

from asyncpatch.data.array_records import ArrayRecords
from asyncpatch.data.base import AbstractRecords, AbstractSource, InMemoryRecords, Record
from asyncpatch.data.convert import write_array_records
from asyncpatch.data.digits import Digits
from asyncpatch.data.folds import Folds, hold_out
from asyncpatch.data.idx import IdxFiles
from asyncpatch.data.image_folder import ImageFolder
from asyncpatch.data.opening import open_once
from asyncpatch.data.pipeline import Batch, Batches, batches
from asyncpatch.data.textures import TextureCrops
from asyncpatch.data.transforms import AbstractTransform, PadTo, RandomFlip, check_image, to_float, to_uint8

__all__ = [
    "AbstractRecords",
    "AbstractSource",
    "AbstractTransform",
    "ArrayRecords",
    "Batch",
    "Batches",
    "Digits",
    "Folds",
    "IdxFiles",
    "ImageFolder",
    "InMemoryRecords",
    "PadTo",
    "RandomFlip",
    "Record",
    "TextureCrops",
    "batches",
    "check_image",
    "hold_out",
    "open_once",
    "to_float",
    "to_uint8",
    "write_array_records",
]
