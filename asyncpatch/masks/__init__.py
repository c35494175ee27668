"""Known regions for training and evaluation: their laws, sets of them with a hash, and their files.

Polarity: True is observed (`asyncpatch.shapes.Known`); what comes from elsewhere states its own (`Polarity`).
Invariant: every law leaves at least one token known and at least one unknown, and raises `ValueError` for a grid too
small for that.

The masks that inpainting is usually measured on are `Square`, `Extrema`, `Thin` and `Wide`. A published number names
its masks by their hash (`mask_hash`), so that two results can be told to rest on the same set.
"""

from asyncpatch.masks.base import AbstractMaskLaw as AbstractMaskLaw
from asyncpatch.masks.base import OneOf as OneOf
from asyncpatch.masks.boxes import Extrema as Extrema
from asyncpatch.masks.boxes import RandomBox as RandomBox
from asyncpatch.masks.boxes import Square as Square
from asyncpatch.masks.files import read_known as read_known
from asyncpatch.masks.files import write_known as write_known
from asyncpatch.masks.lama import Thin as Thin
from asyncpatch.masks.lama import Wide as Wide
from asyncpatch.masks.polarity import Polarity as Polarity
from asyncpatch.masks.polarity import check_known as check_known
from asyncpatch.masks.polarity import known_from_ones as known_from_ones
from asyncpatch.masks.polarity import ones_from_known as ones_from_known
from asyncpatch.masks.sets import PUBLISHED as PUBLISHED
from asyncpatch.masks.sets import STANDARD_COUNT as STANDARD_COUNT
from asyncpatch.masks.sets import STANDARD_SEED as STANDARD_SEED
from asyncpatch.masks.sets import mask_hash as mask_hash
from asyncpatch.masks.sets import mask_set as mask_set
from asyncpatch.masks.sets import published_set as published_set
from asyncpatch.masks.sides import Border as Border
from asyncpatch.masks.sides import Half as Half
from asyncpatch.masks.sides import Side as Side
from asyncpatch.masks.sites import OfSites as OfSites
