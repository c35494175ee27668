"""Where images come from: sources, transforms of stored images, batches by step, and the converter.

A source (`Digits`, `IdxFiles`, `TextureCrops`, `ImageFolder`, `ArrayRecords`, or `Folds` of one) opens into records;
`batches` turns records into an endless stream; `write_array_records` turns any source into ArrayRecord files, and
`write_latents` into the latents of an autoencoder, which are a source too (`Latents`).
"""

from asyncpatch.data.array_records import ArrayRecords
from asyncpatch.data.base import AbstractRecords, AbstractSource, InMemoryRecords, Record
from asyncpatch.data.convert import write_array_records
from asyncpatch.data.digits import Digits
from asyncpatch.data.encoding import Encoder, write_latents
from asyncpatch.data.folds import Folds, hold_out
from asyncpatch.data.idx import IdxFiles
from asyncpatch.data.image_folder import ImageFolder
from asyncpatch.data.latents import Latents, LatentScale, latents_in, latents_of
from asyncpatch.data.opening import open_once
from asyncpatch.data.pipeline import Batch, Batches, WorkerError, batches, changed_shape
from asyncpatch.data.textures import TextureCrops
from asyncpatch.data.transforms import (
    AbstractTransform,
    PadTo,
    RandomFlip,
    Shrink,
    check_image,
    to_float,
    to_network,
    to_uint8,
)
from asyncpatch.data.views import AbstractView, GivenBack, LatentColours, LatentView, PixelView, give_back

__all__ = [
    "AbstractRecords",
    "AbstractSource",
    "AbstractTransform",
    "AbstractView",
    "ArrayRecords",
    "Batch",
    "Batches",
    "Digits",
    "Encoder",
    "Folds",
    "GivenBack",
    "IdxFiles",
    "ImageFolder",
    "InMemoryRecords",
    "LatentColours",
    "LatentScale",
    "LatentView",
    "Latents",
    "PadTo",
    "PixelView",
    "RandomFlip",
    "Record",
    "Shrink",
    "TextureCrops",
    "WorkerError",
    "batches",
    "changed_shape",
    "check_image",
    "give_back",
    "hold_out",
    "latents_in",
    "latents_of",
    "open_once",
    "to_float",
    "to_network",
    "to_uint8",
    "write_array_records",
    "write_latents",
]
