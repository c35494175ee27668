"""The laws of training times by the name that the command line gives them."""

from asyncpatch.masks import Square
from asyncpatch.paths import Environment as EnvironmentLaw
from asyncpatch.paths import Window
from asyncpatch.timesteps import (
    AsyncPatch,
    Environment,
    Independent,
    Masked,
    MeanBeta,
    OnPath,
    PatchForcing,
    Patchwise,
    Perlin,
    Regions,
    Synchronous,
)

PATCHES = (1, 2, 4, 8)
"""Patch sizes of the training laws on the command line, unless others are given."""

LAWS = {
    "async-patch": AsyncPatch(PATCHES),
    "synchronous": Synchronous(),
    "independent": Independent(),
    "patchwise": Patchwise(PATCHES),
    "perlin": Perlin(),
    "mean-beta": MeanBeta(),
    "patch-forcing": PatchForcing(PATCHES),
    "masked-square": Masked(Square()),
    "window-path": OnPath(Window(PATCHES)),
    "environment": Environment(EnvironmentLaw(PATCHES, spread=(0.0, 3.0))),
    "regions": Regions(PATCHES),
}
"""The laws of training times by the name that the command line gives them."""
