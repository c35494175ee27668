"""Saving checkpoints and resuming from them: model, moving average, optimiser, step and config together.

Orbax writes under a temporary name and renames, so a folder with a plain number is complete unless the disk lost
part of it; `reading` says what is in one.

Invariant: `restore` returns the newest state that reads back whole. Checkpoints that do not are moved to
`damaged/` and named in a warning; none is ever deleted for being unreadable.
"""

import dataclasses
import logging
import time
from pathlib import Path

import equinox as eqx
import jax
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from jaxtyping import PyTree
from orbax.checkpoint import checkpoint_managers

from asyncpatch.config import Json, differences, from_json, to_json
from asyncpatch.train.provenance import commit, release
from asyncpatch.train.reading import (
    CHECKPOINTS,
    VALIDATION_LOSS,
    ConfigMismatchError,
    loss_in,
    newest_readable,
    read_items,
    read_record,
    split_shapes,
    with_unreadable_metrics,
)
from asyncpatch.train.settings import RunConfig
from asyncpatch.train.state import TrainState

LOGGER = logging.getLogger(__name__)

DAMAGED = "damaged"
"""The folder of unreadable checkpoints inside a run's folder."""


class Checkpoints:
    """The checkpoints of one run: keeps the last few and the best few."""

    def __init__(self, folder: Path, run: RunConfig):
        self._folder = folder.resolve()
        _set_aside(self._folder, with_unreadable_metrics(self._folder))
        self._manager = self._open(run)
        self._made_by = {"release": release(), "commit": commit()}

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
            config=ocp.args.JsonSave({"experiment": experiment} | self._made_by),
        )
        metrics = {} if validation_loss is None else {VALIDATION_LOSS: validation_loss}
        self._manager.save(step, args=items, metrics=metrics)

    def restore(self, experiment: Json, template: TrainState) -> TrainState | None:
        """The newest readable state, or None if nothing was ever saved; `template` has its shapes and shardings.

        Raises `ConfigMismatchError` if it was saved under another config, and `CheckpointError` if there are
        checkpoints and none can be read.
        """

        def read(path: Path) -> TrainState:
            _check_same_config(path, experiment)
            ema_arrays, ema_rest = split_shapes(template.ema)
            arrays, rest = split_shapes(_without_ema(template))
            items = read_items(path, ema=ocp.args.StandardRestore(ema_arrays), state=ocp.args.StandardRestore(arrays))
            return TrainState(ema=eqx.combine(items["ema"], ema_rest), **eqx.combine(items["state"], rest))

        found = newest_readable(self._folder, read)
        if found is None:
            return None
        state, damaged = found
        _set_aside(self._folder, damaged)
        self._manager.reload()
        return state

    def _open(self, run: RunConfig) -> ocp.CheckpointManager:
        # Orbax ranks upwards and keeps the end of the list, hence the sign.
        best = checkpoint_managers.BestN(get_metric_fn=lambda metrics: -loss_in(metrics), n=run.keep_best)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=checkpoint_managers.AnyPreservationPolicy(
                [checkpoint_managers.LatestN(run.keep_last), best]
            ),
            # The policy alone decides what stays, but without best_fn Orbax does not write the metrics down.
            best_fn=loss_in,
            best_mode="min",
            cleanup_tmp_directories=True,
        )
        return ocp.CheckpointManager(self._folder / CHECKPOINTS, options=options)


def _check_same_config(path: Path, experiment: Json) -> None:
    record = read_record(path)
    # Through the objects and back, so that options which the saved config predates take their defaults.
    saved = to_json(from_json(record["experiment"], record["release"]))
    found = differences(saved, experiment, ignored_types=(RunConfig,))
    if found:
        lines = "; ".join(f"{name or 'config'} was {before} and is now {now}" for name, (before, now) in found.items())
        raise ConfigMismatchError(
            f"{path} was saved under another config: {lines}; run with the saved values, or into another folder"
        )


def _set_aside(folder: Path, damaged: list[Path]) -> None:
    """Move unreadable checkpoints out of the way of later ones of the same step; one process does it for all."""
    for path in damaged if jax.process_index() == 0 else []:
        target = folder / DAMAGED / f"{path.name}-{time.time_ns()}"
        target.parent.mkdir(exist_ok=True)
        path.rename(target)
        LOGGER.warning("moved the damaged checkpoint %s to %s", path, target)
    multihost_utils.sync_global_devices("damaged checkpoints set aside")


def _without_ema(state: TrainState) -> dict[str, PyTree]:
    return {field.name: getattr(state, field.name) for field in dataclasses.fields(state) if field.name != "ema"}
