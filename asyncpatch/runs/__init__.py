"""What a run is made of; configuring, training, opening and giving away one; the models that come with the package."""

from asyncpatch.config import register as register
from asyncpatch.runs.difficulty import DifficultyExperiment as DifficultyExperiment
from asyncpatch.runs.difficulty import configure_head as configure_head
from asyncpatch.runs.difficulty import open_head as open_head
from asyncpatch.runs.difficulty import train_head as train_head
from asyncpatch.runs.experiment import DataConfig as DataConfig
from asyncpatch.runs.experiment import Experiment as Experiment
from asyncpatch.runs.experiment import open_batches as open_batches
from asyncpatch.runs.file import FileFormatError as FileFormatError
from asyncpatch.runs.file import write_file as write_file
from asyncpatch.runs.opened import Examples as Examples
from asyncpatch.runs.opened import Run as Run
from asyncpatch.runs.opening import open_run as open_run
from asyncpatch.runs.opening import shipped as shipped
from asyncpatch.runs.recipes import RECIPES as RECIPES
from asyncpatch.runs.recipes import Recipe as Recipe
from asyncpatch.runs.recipes import recipe as recipe
from asyncpatch.runs.sampling import SamplingConfig as SamplingConfig
from asyncpatch.runs.sampling import as_numpy as as_numpy
from asyncpatch.runs.sampling import four_tasks as four_tasks
from asyncpatch.runs.sampling import inpainting as inpainting
from asyncpatch.runs.sampling import labels_in_turn as labels_in_turn
from asyncpatch.runs.sampling import run_task as run_task
from asyncpatch.runs.training import configure as configure
from asyncpatch.runs.training import train_run as train_run
