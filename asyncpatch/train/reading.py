"""Reading checkpoints: the newest that is whole, its config, and the averaged denoiser in it.

A checkpoint is a folder `checkpoints/STEP` with three Orbax items: `ema` (all that sampling needs), `state` (the
rest of `TrainState`; keys and data position follow from its step, see there) and `config` (JSON). There is no
pickle, and the config can name nothing but this project's dataclasses: a stranger's checkpoint is safe to open.
"""

import json
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.random as jr
import orbax.checkpoint as ocp
from jax.sharding import Mesh
from jaxtyping import PyTree

from asyncpatch.train.config import ConfigError, Json, from_json
from asyncpatch.train.mesh import abstract_weights
from asyncpatch.train.state import MakeDenoiser

LOGGER = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"
"""The folder of checkpoints inside a run's folder."""

VALIDATION_LOSS = "validation_loss"
"""The metric that the best checkpoints are kept by."""


class CheckpointError(RuntimeError):
    """There are checkpoints, but none can be read."""


class ConfigMismatchError(ValueError):
    """The folder holds checkpoints of another config."""


def load_for_sampling(
    folder: str | Path, mesh: Mesh, step: int | None = None
) -> tuple[Any, Callable[[MakeDenoiser], PyTree]]:
    """Open a run's newest readable checkpoint, or the one of `step`: its config, and a way to its denoiser.

    Build `make_denoiser(key)` from the config as the training run did, and call the returned function with it: it
    gives the denoiser with the moving average of the weights. The checkpoint may come from a stranger.
    """
    folder = Path(folder).resolve()

    def newest(read: Callable[[Path], Any]) -> Any:
        found = newest_readable(folder, read, step)
        if found is None:
            raise _no_checkpoint(folder, step)
        return found[0]

    def restore(make_denoiser: MakeDenoiser) -> PyTree:
        shapes = eqx.filter_eval_shape(make_denoiser, jax.eval_shape(lambda: jr.key(0)))
        arrays, rest = split_shapes(abstract_weights(mesh, shapes))
        return eqx.combine(newest(lambda path: read_items(path, ema=ocp.args.StandardRestore(arrays))["ema"]), rest)

    return newest(lambda path: from_json(read_config(path))), restore


def newest_step(folder: str | Path) -> int:
    """The step of the newest complete checkpoint. Raises `FileNotFoundError` if there is none."""
    folder = Path(folder).resolve()
    paths = paths_in(folder)
    if not paths:
        raise _no_checkpoint(folder, None)
    return int(paths[0].name)


def best_step(folder: str | Path) -> int | None:
    """The step of the checkpoint with the lowest validation loss, or None if no checkpoint has one."""
    losses = {}
    for path in paths_in(Path(folder).resolve()):
        losses[int(path.name)] = loss_in(json.loads(_metrics_file(path).read_text()))
    best = min(losses, key=losses.__getitem__, default=None)
    return best if best is not None and math.isfinite(losses[best]) else None


def newest_readable(
    folder: Path, read: Callable[[Path], Any], step: int | None = None
) -> tuple[Any, list[Path]] | None:
    """The first result of `read`, from the newest checkpoint down, and the checkpoints it failed on."""
    paths = [path for path in paths_in(folder) if step is None or path.name == str(step)]
    failures: dict[Path, Exception] = {}
    for path in paths:
        try:
            result = read(path)
        except (ConfigError, ConfigMismatchError):
            raise  # the checkpoint is whole; it is not the one to read
        except Exception as error:  # Orbax reports a damaged file by whatever its storage layers raise.
            failures[path] = error
            continue
        for damaged, error in failures.items():
            LOGGER.warning("checkpoint %s is damaged (%s); fell back to %s", damaged, brief(error), path)
        return result, list(failures)
    if failures:
        reasons = "; ".join(f"{path}: {brief(error)}" for path, error in failures.items())
        raise CheckpointError(
            f"none of the checkpoints in {folder / CHECKPOINTS} can be read ({reasons}); "
            "restore the folder from a backup, or train into another folder"
        )
    return None


def paths_in(folder: Path) -> list[Path]:
    """Complete checkpoints, newest first."""
    root = folder / CHECKPOINTS
    found = [path for path in root.iterdir() if path.name.isdigit()] if root.is_dir() else []
    return sorted(found, key=lambda path: int(path.name), reverse=True)


def read_items(path: Path, **items: ocp.args.CheckpointArgs) -> Any:
    """The named items of one checkpoint."""
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as reader:
        return reader.restore(path, args=ocp.args.Composite(**items))


def read_config(path: Path) -> Json:
    """The config that a checkpoint was saved under, as JSON."""
    return read_items(path, config=ocp.args.JsonRestore())["config"]["experiment"]


def with_unreadable_metrics(folder: Path) -> list[Path]:
    """Orbax reads the metrics of every checkpoint when it opens the folder, and fails if one is cut short."""
    damaged = []
    for path in paths_in(folder):
        try:
            json.loads(_metrics_file(path).read_text())
        except (OSError, ValueError) as error:
            LOGGER.warning("checkpoint %s is damaged (%s)", path, brief(error))
            damaged.append(path)
    return damaged


def loss_in(metrics: dict[str, float]) -> float:
    """The validation loss of a checkpoint; one that has none ranks last."""
    return metrics.get(VALIDATION_LOSS, math.inf)


def split_shapes(template: PyTree) -> tuple[PyTree, PyTree]:
    """The arrays to be restored, and everything else."""
    return eqx.partition(template, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))


def brief(error: Exception) -> str:
    """The first line of an error that may run to pages."""
    return f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else 'no message'}"


def _no_checkpoint(folder: Path, step: int | None) -> FileNotFoundError:
    wanted = "" if step is None else f" of step {step}"
    return FileNotFoundError(f"no checkpoint{wanted} in {folder / CHECKPOINTS}; give the folder of a run")


def _metrics_file(path: Path) -> Path:
    return path / "metrics" / "metrics"
