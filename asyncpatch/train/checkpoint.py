"""Saving checkpoints and resuming from them: model, moving average, optimiser, step and config together.

Orbax writes under a temporary name and renames, or in a bucket writes one object last, so what counts as a checkpoint
is complete unless the disk lost part of it; `reading` says what is in one.

Invariant: `restore` returns the newest state that reads back as it was saved. Checkpoints that are proven damaged are
moved to `damaged/` and named in a warning, and those that cooled down for a shorter run to `cooled/`; whatever else
goes wrong is an error that leaves all as it is. None is ever deleted for being unreadable.
"""

import dataclasses
import logging
import math
import time
from collections.abc import Generator
from contextlib import contextmanager

import equinox as eqx
import jax
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from jaxtyping import PyTree
from orbax.checkpoint import checkpoint_managers

from asyncpatch.config import TYPE_FIELD, Json, differences, from_json, name_of, to_json
from asyncpatch.places import Place, move_folder
from asyncpatch.train.digest import digests, kinds
from asyncpatch.train.evidence import brief, refused_by_system
from asyncpatch.train.provenance import commit, release
from asyncpatch.train.record import VALIDATION_LOSS, DamageError, Record, read_record, written_record
from asyncpatch.train.settings import Cooldown, RunConfig
from asyncpatch.train.state import TrainState
from asyncpatch.train.whole import (
    CHECKPOINTS,
    ConfigMismatchError,
    Templates,
    newest_readable,
    none_readable,
    paths_in,
    unreadable_in,
)

LOGGER = logging.getLogger(__name__)

DAMAGED = "damaged"
"""The folder of unreadable checkpoints inside a run's folder."""

COOLED = "cooled"
"""The folder of those that a longer run does not go on from."""


class Checkpoints:
    """The checkpoints of one run: keeps the last few, those with the lowest figures of the name `best_by`, and the one
    at which its cooldown begins."""

    def __init__(self, folder: Place, run: RunConfig, best_by: str = VALIDATION_LOSS, cooldown: Cooldown | None = None):
        self._folder = folder
        unreadable = unreadable_in(self._folder)
        damaged = [path for path in paths_in(self._folder) if path in unreadable]
        if damaged and len(damaged) == len(paths_in(self._folder)):
            raise none_readable(self._folder, {path: unreadable[path] for path in damaged})
        for path, error in unreadable.items():
            LOGGER.warning("checkpoint %s is damaged (%s)", path, brief(error))
        _set_aside(self._folder, list(unreadable))
        self._manager = self._open(run, best_by, cooldown)
        self._commit = commit()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception: object) -> None:
        with self._writing():
            self._manager.wait_until_finished()
            self._manager.close()

    def newest(self) -> Place | None:
        """The newest checkpoint that is completely written, waiting for one that is under way."""
        with self._writing():
            self._manager.wait_until_finished()
        step = self._manager.latest_step()
        return None if step is None else self._folder / CHECKPOINTS / str(step)

    def save(self, state: TrainState, experiment: Json, figures: dict[str, float]) -> None:
        """Start to save; returns once the arrays are copied. A step that is already saved is left alone.

        `figures` is what was measured of the averaged weights, by the names that `best_by` may choose.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        trees = eqx.filter(_by_item(state), eqx.is_array)
        loss = figures.get(VALIDATION_LOSS)
        record = Record(experiment, step, loss, release(), self._commit, kinds(trees), digests(trees), figures)
        items = ocp.args.Composite(
            config=ocp.args.JsonSave(written_record(record)),
            **{item: ocp.args.StandardSave(tree) for item, tree in trees.items()},
        )
        with self._writing():
            self._manager.save(step, args=items, metrics=figures)

    @contextmanager
    def _writing(self) -> Generator[None]:
        """Says it in one sentence if a disk is full or a bucket is gone, of this checkpoint or of the one before.

        What was written of it has a name of its own, under which nothing is restored, and goes with the next start.
        """
        try:
            yield
        except Exception as error:
            refused = error.errno if isinstance(error, OSError) else refused_by_system(error)
            if refused is None and not isinstance(error, OSError):
                raise
            whole = next(iter(paths_in(self._folder)), None)
            left = "there is no checkpoint yet" if whole is None else f"the last whole one is {whole}"
            raise OSError(
                f"could not save a checkpoint in {self._folder} ({brief(error)}); {left}: see that there is room, and "
                "start the same command again"
            ) from error

    def restore(self, experiment: Json, template: TrainState) -> TrainState | None:
        """The newest readable state, or None if nothing was ever saved; `template` has its shapes and shardings.

        A config that differs in nothing but its cooldown is the same up to where the first of the two begins: what came
        after it is set aside, and the newest state before it is taken. Raises `ConfigMismatchError` if it was saved
        under another config or by code that builds another network, `CheckpointError` if there are checkpoints and all
        are damaged, and `OSError` if one cannot be read at present.
        """

        def templates(path: Place, record: Record) -> Templates:
            _check_same_config(path, record, experiment)
            return _by_item(template)

        cooled = _cooled_otherwise(self._folder, experiment)
        found = newest_readable(self._folder, templates, without=cooled)
        if found is None:
            return None
        _set_aside(self._folder, found.damaged)
        _set_aside(self._folder, cooled, COOLED, f"it has cooled down; going on from step {found.record.step}")
        self._manager.reload()
        return TrainState(ema=found.trees["ema"], **found.trees["state"])

    def _open(self, run: RunConfig, best_by: str, cooldown: Cooldown | None) -> ocp.CheckpointManager:
        def figure(metrics: dict[str, float]) -> float:
            return metrics.get(best_by, math.inf)  # one that has none ranks last

        # Orbax ranks upwards and keeps the end of the list, hence the sign.
        best = checkpoint_managers.BestN(get_metric_fn=lambda metrics: -figure(metrics), n=run.keep_best)
        kept = [checkpoint_managers.LatestN(run.keep_last), best]
        if cooldown is not None and cooldown.start > 0:
            kept.append(checkpoint_managers.EveryNSteps(cooldown.start))  # what a longer run goes on from
        options = ocp.CheckpointManagerOptions(
            preservation_policy=checkpoint_managers.AnyPreservationPolicy(kept),
            # The policy alone decides what stays, but without best_fn Orbax does not write the metrics down.
            best_fn=figure,
            best_mode="min",
            cleanup_tmp_directories=True,
        )
        return ocp.CheckpointManager(self._folder / CHECKPOINTS, options=options)


def _check_same_config(path: Place, record: Record, experiment: Json) -> None:
    found = _differences(record, experiment)
    if found:
        lines = "; ".join(f"{name or 'config'} was {before} and is now {now}" for name, (before, now) in found.items())
        raise ConfigMismatchError(
            f"{path} was saved under another config: {lines}; run with the saved values, or into another folder"
        )


def _differences(record: Record, experiment: Json, *, cooled: bool = True) -> dict[str, tuple[Json, Json]]:
    """Between the config of a checkpoint and another; a cooldown that has not begun is none, nor if not `cooled`."""
    # Through the objects and back, so that options which the saved config predates take their defaults.
    saved = to_json(from_json(record.experiment, record.release))
    (saved_before, saved_start), (before, start) = _until_cooldown(saved), _until_cooldown(experiment)
    if not cooled or record.step <= min(saved_start, start):
        saved, experiment = saved_before, before
    return differences(saved, experiment, ignored_types=(RunConfig,))


def _until_cooldown(written: Json) -> tuple[Json, float]:
    """A config as it is up to its cooldown, and the step at which that begins: never if it has none."""
    if isinstance(written, list):
        parts = [_until_cooldown(part) for part in written]
        return [part for part, _ in parts], min((start for _, start in parts), default=math.inf)
    if not isinstance(written, dict):
        return written, math.inf
    if written.get(TYPE_FIELD) == name_of(Cooldown):
        return None, float(written["start"])
    named = {name: _until_cooldown(part) for name, part in written.items()}
    starts = (start for _, start in named.values())
    return {name: part for name, (part, _) in named.items()}, min(starts, default=math.inf)


def _cooled_otherwise(folder: Place, experiment: Json) -> list[Place]:
    """The newest checkpoints, if their config would be this one but for the cooldown, and there are others before."""
    cooled: list[Place] = []
    for path in paths_in(folder):
        try:
            record = read_record(path)
        except DamageError:
            continue
        if not _differences(record, experiment) or _differences(record, experiment, cooled=False):
            return cooled
        cooled.append(path)
    return []


def _set_aside(folder: Place, paths: list[Place], where: str = DAMAGED, why: str = "it is damaged") -> None:
    """Move checkpoints out of the way of later ones of the same step; one process does it for all."""
    multihost_utils.sync_global_devices("all have seen the checkpoints")
    for path in paths if jax.process_index() == 0 else []:
        target = folder / where / f"{path.name}-{time.time_ns()}"
        target.parent.mkdir(exist_ok=True)
        move_folder(path, target)
        LOGGER.warning("moved the checkpoint %s to %s (%s)", path, target, why)
    multihost_utils.sync_global_devices("checkpoints set aside")


def _by_item(state: TrainState) -> dict[str, PyTree]:
    """A state as it is saved: what sampling needs, and the rest."""
    names = [field.name for field in dataclasses.fields(state) if field.name != "ema"]
    return {"ema": state.ema, "state": {name: getattr(state, name) for name in names}}
