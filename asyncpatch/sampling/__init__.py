"""Sampling: step rules, and the one loop that runs any plan."""

from asyncpatch.sampling.base import AbstractStepRule as AbstractStepRule
from asyncpatch.sampling.base import Denoise as Denoise
from asyncpatch.sampling.ddim import DDIM as DDIM
from asyncpatch.sampling.ddim import StochasticCoefficient as StochasticCoefficient
from asyncpatch.sampling.faults import SamplingError as SamplingError
from asyncpatch.sampling.heun import Heun as Heun
from asyncpatch.sampling.look_ahead import LookAhead as LookAhead
from asyncpatch.sampling.loop import History as History
from asyncpatch.sampling.loop import sample as sample
from asyncpatch.sampling.loop import sample_with_history as sample_with_history
from asyncpatch.sampling.multistep import Multistep as Multistep
from asyncpatch.sampling.repaint import RePaintTimes as RePaintTimes
from asyncpatch.sampling.repaint import repaint as repaint
from asyncpatch.sampling.repaint import repaint_times as repaint_times
