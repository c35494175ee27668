"""Checkpoints: model, moving average, optimiser, step and config, together and with no pickle.

A checkpoint is a folder `checkpoints/STEP` with three Orbax items: `ema` (all that sampling needs), `state` (the
rest of `TrainState`; keys and data position follow from its step, see there) and `config` (JSON). Orbax writes
under a temporary name and renames, so a folder with a plain number is complete unless the disk lost part of it.

Invariant: `restore` returns the newest state that reads back whole. Checkpoints that do not are moved to
`damaged/` and named in a warning; none is ever deleted for being unreadable.
"""

import dataclasses
import json
import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from jaxtyping import PRNGKeyArray, PyTree
from orbax.checkpoint import checkpoint_managers

from asyncpatch.train.config import Json, differences, from_json, to_json
from asyncpatch.train.mesh import abstract_weights
from asyncpatch.train.settings import RunConfig
from asyncpatch.train.state import MakeDenoiser, TrainState

LOGGER = logging.getLogger(__name__)

CHECKPOINTS, DAMAGED = "checkpoints", "damaged"
"""The folders of whole and of unreadable checkpoints inside a run's folder."""

VALIDATION_LOSS = "validation_loss"
"""The metric that the best checkpoints are kept by."""


class CheckpointError(RuntimeError):
    """There are checkpoints, but none can be read."""


class ConfigMismatchError(ValueError):
    """The folder holds checkpoints of another config."""


class Checkpoints:
    """The checkpoints of one run: keeps the last few and the best few."""

    def __init__(self, folder: Path, run: RunConfig):
        self._folder = folder.resolve()
        _set_aside(self._folder, _with_unreadable_metrics(self._folder))
        self._manager = self._open(run)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception: object) -> None:
        self._manager.wait_until_finished()
        self._manager.close()

    def newest(self) -> Path | None:
        """The newest checkpoint that is completely written, waiting for one that is under way."""
        self._manager.wait_until_finished()
        step = self._manager.latest_step()
        return None if step is None else self._folder / CHECKPOINTS / str(step)

    def save(self, state: TrainState, experiment: Json, validation_loss: float | None) -> None:
        """Start to save; returns once the arrays are copied. A step that is already saved is left alone."""
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        items = ocp.args.Composite(
            ema=ocp.args.StandardSave(eqx.filter(state.ema, eqx.is_array)),
            state=ocp.args.StandardSave(eqx.filter(_without_ema(state), eqx.is_array)),
            config=ocp.args.JsonSave({"experiment": experiment}),
        )
        metrics = {} if validation_loss is None else {VALIDATION_LOSS: validation_loss}
        self._manager.save(step, args=items, metrics=metrics)

    def restore(self, experiment: Json, template: TrainState) -> TrainState | None:
        """The newest readable state, or None if nothing was ever saved; `template` has its shapes and shardings.

        Raises `ConfigMismatchError` if it was saved under another config, and `CheckpointError` if there are
        checkpoints and none can be read.
        """

        def read(path: Path) -> TrainState:
            _check_same_config(path, _read_config(path), experiment)
            ema_arrays, ema_rest = _split(template.ema)
            arrays, rest = _split(_without_ema(template))
            items = _read(path, ema=ocp.args.StandardRestore(ema_arrays), state=ocp.args.StandardRestore(arrays))
            return TrainState(ema=eqx.combine(items["ema"], ema_rest), **eqx.combine(items["state"], rest))

        found = _newest_readable(self._folder, read)
        if found is None:
            return None
        state, damaged = found
        _set_aside(self._folder, damaged)
        self._manager.reload()
        return state

    def _open(self, run: RunConfig) -> ocp.CheckpointManager:
        # Orbax ranks upwards and keeps the end of the list, hence the sign.
        best = checkpoint_managers.BestN(get_metric_fn=lambda metrics: -_loss_in(metrics), n=run.keep_best)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=checkpoint_managers.AnyPreservationPolicy(
                [checkpoint_managers.LatestN(run.keep_last), best]
            ),
            # The policy alone decides what stays, but without best_fn Orbax does not write the metrics down.
            best_fn=_loss_in,
            best_mode="min",
            cleanup_tmp_directories=True,
        )
        return ocp.CheckpointManager(self._folder / CHECKPOINTS, options=options)


def load_for_sampling(
    folder: str | Path, mesh: Mesh, step: int | None = None
) -> tuple[Any, Callable[[MakeDenoiser], PyTree]]:
    """Open a run's newest readable checkpoint, or the one of `step`: its config, and a way to its denoiser.

    Build `make_denoiser(key)` from the config as the training run did, and call the returned function with it:
    it gives the moving average of the weights, in inference mode. The checkpoint may come from a stranger.
    """
    folder = Path(folder).resolve()
    found = _newest_readable(folder, lambda path: (path, from_json(_read_config(path))), step)
    if found is None:
        wanted = "" if step is None else f" of step {step}"
        raise FileNotFoundError(f"no checkpoint{wanted} in {folder / CHECKPOINTS}; give the folder training wrote to")
    (path, config), _ = found

    def restore(make_denoiser: Callable[[PRNGKeyArray], PyTree]) -> PyTree:
        shapes = eqx.filter_eval_shape(make_denoiser, jax.eval_shape(lambda: jax.random.key(0)))
        arrays, rest = _split(abstract_weights(mesh, shapes))
        denoiser = eqx.combine(_read(path, ema=ocp.args.StandardRestore(arrays))["ema"], rest)
        return eqx.nn.inference_mode(denoiser)

    return config, restore


def best_step(folder: str | Path) -> int | None:
    """The step of the checkpoint with the lowest validation loss, or None if no checkpoint has one."""
    losses = {}
    for path in _paths(Path(folder).resolve()):
        losses[int(path.name)] = _loss_in(json.loads(_metrics_file(path).read_text()))
    best = min(losses, key=losses.__getitem__, default=None)
    return best if best is not None and math.isfinite(losses[best]) else None


def _newest_readable(
    folder: Path, read: Callable[[Path], Any], step: int | None = None
) -> tuple[Any, list[Path]] | None:
    """The first result of `read`, from the newest checkpoint down, and the checkpoints it failed on."""
    paths = [path for path in _paths(folder) if step is None or path.name == str(step)]
    failures: dict[Path, Exception] = {}
    for path in paths:
        try:
            result = read(path)
        except ConfigMismatchError:
            raise
        except Exception as error:  # Orbax reports a damaged file by whatever its storage layers raise.
            failures[path] = error
            continue
        for damaged, error in failures.items():
            LOGGER.warning("checkpoint %s is damaged (%s); fell back to %s", damaged, _brief(error), path)
        return result, list(failures)
    if failures:
        reasons = "; ".join(f"{path}: {_brief(error)}" for path, error in failures.items())
        raise CheckpointError(
            f"none of the checkpoints in {folder / CHECKPOINTS} can be read ({reasons}); "
            "restore the folder from a backup, or train into another folder"
        )
    return None


def _paths(folder: Path) -> list[Path]:
    """Complete checkpoints, newest first."""
    root = folder / CHECKPOINTS
    found = [path for path in root.iterdir() if path.name.isdigit()] if root.is_dir() else []
    return sorted(found, key=lambda path: int(path.name), reverse=True)


def _read(path: Path, **items: ocp.args.CheckpointArgs) -> Any:
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as reader:
        return reader.restore(path, args=ocp.args.Composite(**items))


def _read_config(path: Path) -> Json:
    return _read(path, config=ocp.args.JsonRestore())["config"]["experiment"]


def _check_same_config(path: Path, saved: Json, experiment: Json) -> None:
    # Through the objects and back, so that options which the saved config predates take their defaults.
    found = differences(to_json(from_json(saved)), experiment, ignored_types=(RunConfig,))
    if found:
        lines = "; ".join(f"{name or 'config'} was {before} and is now {now}" for name, (before, now) in found.items())
        raise ConfigMismatchError(
            f"{path} was saved under another config: {lines}; run with the saved values, or into another folder"
        )


def _with_unreadable_metrics(folder: Path) -> list[Path]:
    """Orbax reads the metrics of every checkpoint when it opens the folder, and fails if one is cut short."""
    damaged = []
    for path in _paths(folder):
        try:
            json.loads(_metrics_file(path).read_text())
        except (OSError, ValueError) as error:
            LOGGER.warning("checkpoint %s is damaged (%s)", path, _brief(error))
            damaged.append(path)
    return damaged


def _set_aside(folder: Path, damaged: list[Path]) -> None:
    """Move unreadable checkpoints out of the way of later ones of the same step; one process does it for all."""
    for path in damaged if jax.process_index() == 0 else []:
        target = folder / DAMAGED / f"{path.name}-{time.time_ns()}"
        target.parent.mkdir(exist_ok=True)
        path.rename(target)
        LOGGER.warning("moved the damaged checkpoint %s to %s", path, target)
    multihost_utils.sync_global_devices("damaged checkpoints set aside")


def _loss_in(metrics: dict[str, float]) -> float:
    """The validation loss of a checkpoint; one that has none ranks last."""
    return metrics.get(VALIDATION_LOSS, math.inf)


def _metrics_file(path: Path) -> Path:
    return path / "metrics" / "metrics"


def _without_ema(state: TrainState) -> dict[str, PyTree]:
    return {field.name: getattr(state, field.name) for field in dataclasses.fields(state) if field.name != "ema"}


def _split(template: PyTree) -> tuple[PyTree, PyTree]:
    return eqx.partition(template, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))


def _brief(error: Exception) -> str:
    """The first line of an error that may run to pages."""
    return f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else 'no message'}"
