"""Curves of time fields from all-clean to all-noise, their laws, and orders of generation."""

from asyncpatch.paths.base import AbstractPath as AbstractPath
from asyncpatch.paths.base import AbstractPathLaw as AbstractPathLaw
from asyncpatch.paths.base import derivative as derivative
from asyncpatch.paths.clock import clock as clock
from asyncpatch.paths.clock import time_of_clock as time_of_clock
from asyncpatch.paths.environment import Environment as Environment
from asyncpatch.paths.environment import EnvironmentPath as EnvironmentPath
from asyncpatch.paths.environment import log_shared_time as log_shared_time
from asyncpatch.paths.groups import check_groups as check_groups
from asyncpatch.paths.groups import outwards as outwards
from asyncpatch.paths.groups import random_order as random_order
from asyncpatch.paths.groups import raster as raster
from asyncpatch.paths.groups import spiral as spiral
from asyncpatch.paths.learned import Learned as Learned
from asyncpatch.paths.learned import WarpedPath as WarpedPath
from asyncpatch.paths.learned import start_learning as start_learning
from asyncpatch.paths.patches import check_patch_fits as check_patch_fits
from asyncpatch.paths.patches import check_patch_sizes as check_patch_sizes
from asyncpatch.paths.patches import draw_patch_size as draw_patch_size
from asyncpatch.paths.staged import AnyOrder as AnyOrder
from asyncpatch.paths.staged import Staged as Staged
from asyncpatch.paths.staged import StagedPath as StagedPath
from asyncpatch.paths.synchronous import Synchronous as Synchronous
from asyncpatch.paths.synchronous import SynchronousPath as SynchronousPath
from asyncpatch.paths.window import Window as Window
from asyncpatch.paths.window import WindowPath as WindowPath
