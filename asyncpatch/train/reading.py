"""Reading checkpoints: the newest that is whole, its config, and the averaged denoiser in it.

A checkpoint is a folder `checkpoints/STEP` with three Orbax items: `ema` (all that sampling needs), `state` (the
rest of `TrainState`; keys and data position follow from its step, see there) and `config` (JSON). There is no
pickle, and the config can name nothing but classes of this package and those that the opening program registered: a
stranger's checkpoint is safe to open.
"""

import dataclasses
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
from jaxtyping import PRNGKeyArray, PyTree

from asyncpatch.config import ConfigError, Json, from_json
from asyncpatch.train.mesh import abstract_weights

LOGGER = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"
"""The folder of checkpoints inside a run's folder."""

FIRST_RELEASE = "0.1.0"
"""The release whose checkpoints do not say which one wrote them."""

VALIDATION_LOSS = "validation_loss"
"""The metric that the best checkpoints are kept by."""


class CheckpointError(RuntimeError):
    """There are checkpoints, but none can be read."""


class ConfigMismatchError(ValueError):
    """The folder holds checkpoints of another config."""


@dataclasses.dataclass(frozen=True)
class Saved:
    """What a checkpoint says of itself."""

    experiment: Any
    """The config of its run."""
    step: int
    validation_loss: float | None
    """Of the averaged weights; None if it was not measured at this step."""
    release: str
    """The release of this package that wrote it."""
    commit: str
    """The commit of the code that wrote it, or `unknown`."""


def load_for_sampling(
    folder: str | Path, build: Callable[[Any, PRNGKeyArray], PyTree], mesh: Mesh, step: int | None = None
) -> tuple[Saved, PyTree]:
    """Open a run's newest readable checkpoint, or the one of `step`: what it says of itself, and its denoiser.

    `build(experiment, key)` makes a denoiser with fresh weights from the config, as the training run did; it is given
    the moving average of the weights. The checkpoint may come from a stranger.
    """
    folder = Path(folder).resolve()

    def read(path: Path) -> tuple[Saved, PyTree]:
        saved = read_saved(path)
        shapes = eqx.filter_eval_shape(build, saved.experiment, jax.eval_shape(lambda: jr.key(0)))
        arrays, rest = split_shapes(abstract_weights(mesh, shapes))
        return saved, eqx.combine(read_items(path, ema=ocp.args.StandardRestore(arrays))["ema"], rest)

    found = newest_readable(folder, read, step)
    if found is None:
        raise _no_checkpoint(folder, step)
    return found[0]


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


def read_record(path: Path) -> dict[str, Json]:
    """The config that a checkpoint was saved under, as JSON, and the release and commit that wrote it."""
    record = read_items(path, config=ocp.args.JsonRestore())["config"]
    return {"release": FIRST_RELEASE, "commit": "unknown"} | record


def read_saved(path: Path) -> Saved:
    """What a checkpoint says of itself. Raises `ConfigError` for a config that this program cannot read."""
    record = read_record(path)
    loss = loss_in(json.loads(_metrics_file(path).read_text()))
    return Saved(
        from_json(record["experiment"], record["release"]),
        int(path.name),
        loss if math.isfinite(loss) else None,
        record["release"],
        record["commit"],
    )


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
