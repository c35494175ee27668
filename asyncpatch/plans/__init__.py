"""Plans: the falling sequence of time fields that one generation follows."""

from asyncpatch.plans.adaptive import Adaptive as Adaptive
from asyncpatch.plans.adaptive import ByDifficulty as ByDifficulty
from asyncpatch.plans.adaptive import DualSpeed as DualSpeed
from asyncpatch.plans.adaptive import easiest as easiest
from asyncpatch.plans.along_path import autoregressive as autoregressive
from asyncpatch.plans.along_path import from_path as from_path
from asyncpatch.plans.along_path import on_grid as on_grid
from asyncpatch.plans.along_path import shifted as shifted
from asyncpatch.plans.along_path import staged as staged
from asyncpatch.plans.along_path import synchronous as synchronous
from asyncpatch.plans.base import AbstractPlan as AbstractPlan
from asyncpatch.plans.canvas import on_canvas as on_canvas
from asyncpatch.plans.fixed import FixedPlan as FixedPlan
from asyncpatch.plans.fixed import check_plan as check_plan
from asyncpatch.plans.strength import with_strength as with_strength
from asyncpatch.plans.task import Task as Task
