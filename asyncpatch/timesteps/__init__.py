"""Laws of time fields for training."""

from asyncpatch.timesteps.asyncpatch import AsyncPatch as AsyncPatch
from asyncpatch.timesteps.base import AbstractTimestepSampler as AbstractTimestepSampler
from asyncpatch.timesteps.environment import Environment as Environment
from asyncpatch.timesteps.independent import Independent as Independent
from asyncpatch.timesteps.margins import Margins as Margins
from asyncpatch.timesteps.masked import Masked as Masked
from asyncpatch.timesteps.mean_beta import MeanBeta as MeanBeta
from asyncpatch.timesteps.on_path import OnPath as OnPath
from asyncpatch.timesteps.patch_forcing import PatchForcing as PatchForcing
from asyncpatch.timesteps.patchwise import Patchwise as Patchwise
from asyncpatch.timesteps.perlin import Perlin as Perlin
from asyncpatch.timesteps.regions import Regions as Regions
from asyncpatch.timesteps.synchronous import Synchronous as Synchronous
