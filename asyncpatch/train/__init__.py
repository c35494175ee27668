"""Training: state, the compiled step, the loop, checkpoints and the mesh."""

from asyncpatch.train.batch import Batch as Batch
from asyncpatch.train.batch import BatchSource as BatchSource
from asyncpatch.train.batch import put_batch as put_batch
from asyncpatch.train.interrupt import TERMINATED_STATUS as TERMINATED_STATUS
from asyncpatch.train.loop import NonFiniteLossError as NonFiniteLossError
from asyncpatch.train.loop import Validation as Validation
from asyncpatch.train.loop import train as train
from asyncpatch.train.mesh import make_mesh as make_mesh
from asyncpatch.train.optimizers import AbstractOptimizerConfig as AbstractOptimizerConfig
from asyncpatch.train.optimizers import MuonConfig as MuonConfig
from asyncpatch.train.optimizers import OptimizerConfig as OptimizerConfig
from asyncpatch.train.provenance import commit as commit
from asyncpatch.train.provenance import release as release
from asyncpatch.train.reading import Saved as Saved
from asyncpatch.train.reading import best_step as best_step
from asyncpatch.train.reading import load_for_sampling as load_for_sampling
from asyncpatch.train.reading import newest_step as newest_step
from asyncpatch.train.settings import RunConfig as RunConfig
from asyncpatch.train.settings import TrainConfig as TrainConfig
from asyncpatch.train.state import TrainState as TrainState
from asyncpatch.train.state import init_state as init_state
from asyncpatch.train.step import StepInputs as StepInputs
from asyncpatch.train.step import StepMetrics as StepMetrics
from asyncpatch.train.step import train_step as train_step
from asyncpatch.train.whole import CheckpointError as CheckpointError
from asyncpatch.train.whole import ConfigMismatchError as ConfigMismatchError
