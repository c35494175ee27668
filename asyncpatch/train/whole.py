"""The newest checkpoint that is whole.

Invariant: what is returned has the digests that were saved with it. A checkpoint that is proven damaged is passed over
for the one before; any other failure (`evidence`) is raised.
"""

import dataclasses
import logging
import re
from collections.abc import Callable, Collection

import equinox as eqx
import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from jaxtyping import PyTree

from asyncpatch.places import Place, in_bucket
from asyncpatch.train.digest import Kinds, digests, kinds
from asyncpatch.train.evidence import brief, judge
from asyncpatch.train.record import DamageError, Record, read_record

LOGGER = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"
"""The folder of checkpoints inside a run's folder."""

STEP_NAME = re.compile("0|[1-9][0-9]*")
"""The name of a checkpoint's folder; Orbax takes any digits for one, those of other scripts too."""

FINISHED = "commit_success.txt"
"""What Orbax writes last where folders have no names to be given."""

Templates = dict[str, PyTree]
"""By item, what is to be read: shapes and shardings in the places of arrays."""


class CheckpointError(RuntimeError):
    """There are checkpoints, but none can be read."""


class ConfigMismatchError(ValueError):
    """The folder holds checkpoints of another config, or of a network that another code built."""


@dataclasses.dataclass(frozen=True)
class Found:
    """A checkpoint that was read."""

    record: Record
    trees: dict[str, PyTree]
    """The templates, filled."""
    damaged: list[Place]
    """Newer checkpoints, which are damaged."""


def newest_readable(
    folder: Place,
    templates: Callable[[Place, Record], Templates],
    step: int | None = None,
    without: Collection[Place] = (),
) -> Found | None:
    """The newest whole checkpoint, or that of `step`; None if there is none at all, damaged ones included.

    Those in `without` are not looked at. `templates(path, record)` says what to read, or raises if it is not the
    checkpoint to read.
    """
    failures: dict[Place, Exception] = {}
    for path in _same_for_all(folder, paths_in(folder)):
        if path in without or (step is not None and path.name != str(step)):
            continue
        try:
            record, wanted = _read_record(path, templates)
            trees = _read_whole(path, record, wanted)
        except DamageError as error:
            if not path.exists():  # a training that runs there has removed it meanwhile
                return newest_readable(folder, templates, step, without)
            failures[path] = error
            continue
        for damaged, error in failures.items():
            LOGGER.warning("checkpoint %s is damaged (%s); fell back to %s", damaged, brief(error), path)
        return Found(record, trees, list(failures))
    if failures:
        raise none_readable(folder, failures)
    return None


def none_readable(folder: Place, failures: dict[Place, Exception]) -> CheckpointError:
    """The error if all of a folder's checkpoints are damaged."""
    reasons = "; ".join(f"{path}: {brief(error)}" for path, error in failures.items())
    return CheckpointError(
        f"none of the checkpoints in {folder / CHECKPOINTS} can be read ({reasons}); "
        "restore the folder from a backup, or train into another folder"
    )


def paths_in(folder: Place) -> list[Place]:
    """Complete checkpoints, newest first."""
    root = folder / CHECKPOINTS
    entries = root.iterdir() if root.is_dir() else []
    found = [path for path in entries if STEP_NAME.fullmatch(path.name) and path.is_dir() and _is_finished(path)]
    return sorted(found, key=lambda path: int(path.name), reverse=True)


def _is_finished(path: Place) -> bool:
    """Whether all of a checkpoint was written: it then got its name or, in a bucket, an object that says so."""
    return not in_bucket(path) or (path / FINISHED).exists()


def unreadable_in(folder: Place) -> dict[Place, DamageError]:
    """What Orbax takes for checkpoints and would stumble over: those without a whole record, and foreign entries."""
    root = folder / CHECKPOINTS
    checkpoints = set(paths_in(folder))
    found = {}
    for path in sorted(root.iterdir()) if root.is_dir() else []:
        if path not in checkpoints:
            if path.name.isdigit() and (_is_finished(path) or not STEP_NAME.fullmatch(path.name)):
                found[path] = DamageError("it is no checkpoint of ours")
            continue
        try:
            read_record(path)
        except DamageError as error:
            found[path] = error
    return found


MOST_PATHS = 64
"""Checkpoints that several processes look at; a run keeps a few."""


def _same_for_all(folder: Place, paths: list[Place]) -> list[Place]:
    """The paths that the first process sees: another machine may see a folder as it was a moment ago."""
    if jax.process_count() == 1:
        return paths
    steps = np.array([int(path.name) for path in paths[:MOST_PATHS]] + [-1] * MOST_PATHS)[:MOST_PATHS]
    told = multihost_utils.broadcast_one_to_all(steps.astype(np.int32))
    return [folder / CHECKPOINTS / str(step) for step in told if step >= 0]


def _read_record(path: Place, templates: Callable[[Place, Record], Templates]) -> tuple[Record, Templates]:
    """The record, and what is to be read; of several processes all fail or none."""
    try:
        record = read_record(path)
        failure, result = None, (record, templates(path, record))
    except Exception as error:  # so that no other process waits for this one
        failure, result = error, None
    failure = _agreed(failure)
    if failure is not None or result is None:
        raise failure or DamageError("it has no record")
    return result


def _read_whole(path: Place, record: Record, templates: Templates) -> dict[str, PyTree]:
    """The templates, filled with arrays that have the digests of the record.

    Raises `DamageError` if the checkpoint fails twice to give them, so that what passes is no damage.
    """
    _check_kinds(path, record, templates)
    failure = _attempt(path, record, templates)
    if isinstance(failure, DamageError):
        failure = _attempt(path, record, templates)
    if isinstance(failure, Exception):
        raise failure
    return failure


def _attempt(path: Place, record: Record, templates: Templates) -> dict[str, PyTree] | Exception:
    """The filled templates, or what is to be said of the failure; of several processes all fail or none."""
    split = {
        item: eqx.partition(tree, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))
        for item, tree in templates.items()
    }
    failure = None
    try:
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as reader:
            items = {item: ocp.args.StandardRestore(shapes) for item, (shapes, _) in split.items()}
            arrays = dict(reader.restore(path, args=ocp.args.Composite(**items)).items())
    except Exception as error:  # Orbax reports a damaged file by whatever its storage layers raise.
        failure = judge(path, error)
    if (failure := _agreed(failure)) is not None:
        return failure
    if record.digests is not None:
        wrong = [name for name, found in digests(arrays).items() if found != record.digests[name]]
        mismatch = DamageError(f"{', '.join(wrong[:3])} ({len(wrong)} arrays in all) do not match their digests")
        if (failure := _agreed(mismatch if wrong else None)) is not None:
            return failure
    return {item: eqx.combine(arrays[item], rest) for item, (_, rest) in split.items()}


def _agreed(failure: Exception | None) -> Exception | None:
    """One outcome for all processes: the worst. Damage is worse than success, and any other error is worse still."""
    if jax.process_count() == 1:
        return failure
    badness = 0 if failure is None else 1 if isinstance(failure, DamageError) else 2
    worst = int(multihost_utils.process_allgather(np.array(badness)).max())
    if worst == badness:
        return failure
    return DamageError("another process found it damaged") if worst == 1 else OSError("another process cannot read it")


def _check_kinds(path: Place, record: Record, templates: Templates) -> None:
    """Raise `ConfigMismatchError` if the code builds other arrays from the config than were saved under it."""
    wanted = kinds(templates)
    saved = _kinds_without_digests(path, templates) if record.kinds is None else record.kinds
    found = {name: kind for name, kind in saved.items() if name.partition("/")[0] in templates}
    names = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
    if names and found:
        odd = "; ".join(f"{name} was {found.get(name)} and is now {wanted.get(name)}" for name in names[:3])
        raise ConfigMismatchError(
            f"{path}, written by release {record.release}, commit {record.commit}, has other arrays than this code "
            f"builds from the same config ({len(names)} in all): {odd}; use the code that wrote it, or train into "
            "another folder"
        )


def _kinds_without_digests(path: Place, templates: Templates) -> Kinds:
    """What Orbax noted down of the arrays; nothing if that cannot be read, which reading the arrays will judge."""
    handler = ocp.StandardCheckpointHandler()
    try:
        trees = {
            item: handler.metadata(path / item).tree  # type: ignore  (it is wider than it says)
            for item in templates
        }
    except Exception:  # As Orbax reports a damaged file.
        return {}
    return {
        f"{item}/{jax.tree_util.keystr(place, simple=True, separator='/')}": f"{leaf.dtype}{list(leaf.shape)}"
        for item, tree in trees.items()
        for place, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
