"""Reading checkpoints: what one says of itself, and the averaged denoiser in it.

A checkpoint is a folder `checkpoints/STEP` with three Orbax items: `ema` (all that sampling needs), `state` (the
rest of `TrainState`; keys and data position follow from its step, see there) and `config` (JSON, see `record`). There
is no pickle, and the config can name nothing but classes of this package and those that the opening program
registered: a stranger's checkpoint is safe to open.
"""

import dataclasses
import logging
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.random as jr
from jax.sharding import Mesh
from jaxtyping import PRNGKeyArray, PyTree

from asyncpatch.config import from_json
from asyncpatch.places import Place, place
from asyncpatch.train.evidence import brief
from asyncpatch.train.mesh import abstract_weights
from asyncpatch.train.record import VALIDATION_LOSS, DamageError, Record, read_record
from asyncpatch.train.whole import CHECKPOINTS, Templates, newest_readable, paths_in

LOGGER = logging.getLogger(__name__)


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
    folder: str | Place, build: Callable[[Any, PRNGKeyArray], PyTree], mesh: Mesh, step: int | None = None
) -> tuple[Saved, PyTree]:
    """Open a run's newest readable checkpoint, or the one of `step`: what it says of itself, and its denoiser.

    `build(experiment, key)` makes a denoiser with fresh weights from the config, as the training run did; it is given
    the moving average of the weights. The checkpoint may come from a stranger.
    """
    folder = place(folder)

    def templates(path: Place, record: Record) -> Templates:
        experiment = from_json(record.experiment, record.release)
        shapes = eqx.filter_eval_shape(build, experiment, jax.eval_shape(lambda: jr.key(0)))
        return {"ema": abstract_weights(mesh, shapes)}

    found = newest_readable(folder, templates, step)
    if found is None:
        raise _no_checkpoint(folder, step)
    record = found.record
    experiment = from_json(record.experiment, record.release)
    return Saved(experiment, record.step, record.validation_loss, record.release, record.commit), found.trees["ema"]


def newest_step(folder: str | Place) -> int:
    """The step of the newest complete checkpoint. Raises `FileNotFoundError` if there is none."""
    folder = place(folder)
    paths = paths_in(folder)
    if not paths:
        raise _no_checkpoint(folder, None)
    return int(paths[0].name)


def best_step(folder: str | Place, by: str = VALIDATION_LOSS) -> int | None:
    """The step of the checkpoint with the lowest figure of that name, or None if no checkpoint has one.

    An `Evaluation` has its figures under its name.
    """
    losses = {}
    for path in paths_in(place(folder)):
        try:
            record = read_record(path)
            loss = record.validation_loss if by == VALIDATION_LOSS else record.figures.get(by)
        except DamageError as error:
            LOGGER.warning("checkpoint %s is damaged (%s); it is not looked at", path, brief(error))
            continue
        if loss is not None:
            losses[int(path.name)] = loss
    return min(losses, key=losses.__getitem__, default=None)


def _no_checkpoint(folder: Place, step: int | None) -> FileNotFoundError:
    there = sorted(int(path.name) for path in paths_in(folder))
    if step is None or not there:
        return FileNotFoundError(f"no checkpoint in {folder / CHECKPOINTS}; give the folder of a run")
    return FileNotFoundError(
        f"no checkpoint of step {step} in {folder / CHECKPOINTS}; choose one of {', '.join(map(str, there))}"
    )
