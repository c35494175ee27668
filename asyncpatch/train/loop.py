"""The training loop on the host: feed, report, validate, sample, save, and stop well.

Interrupt a run at any step and start the same command again: it goes on from the newest good checkpoint with the
losses and parameters of a run that was never interrupted, to the bit on CPU. SIGTERM saves first and exits with
status 143; before the first step, or a second time, it ends the process at once. The host never waits for the step it
has just started, and reads numbers off the device only to report or save; a loss that is not finite freezes the state
on the device and is named at the next look.

Invariants: pictures are drawn once the state of their step is on disk; nothing that training can do without
(`extras`) ends it.
"""

import json
from collections import deque
from collections.abc import Callable, Generator
from contextlib import closing, nullcontext

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import PyTree

from asyncpatch.config import Json, to_json
from asyncpatch.pictures import Pixels
from asyncpatch.places import Place, replace_bytes
from asyncpatch.train.batch import Batch, BatchSource, HostBatch, check_batch, put_batch
from asyncpatch.train.checkpoint import Checkpoints
from asyncpatch.train.evaluation import Evaluation
from asyncpatch.train.extras import Extras
from asyncpatch.train.flat import flatten, unflatten
from asyncpatch.train.folder import held, prepare
from asyncpatch.train.interrupt import TERMINATED_STATUS, TerminationRequest
from asyncpatch.train.learner import AbstractLearner
from asyncpatch.train.processes import agree
from asyncpatch.train.record import VALIDATION_LOSS
from asyncpatch.train.report import Reporter
from asyncpatch.train.settings import RunConfig, TrainConfig
from asyncpatch.train.state import NonFiniteLossError, TrainState, abstract_state, as_trees, carried, init_state
from asyncpatch.train.step import flat_train_step
from asyncpatch.train.validation import Validation

BATCHES_AHEAD = 2
"""Batches on the device beyond the one in use: enough to hide the transfer, little memory."""

CONFIG_FILE = "config.json"
"""A copy of the config for people; checkpoints carry their own."""

SampleCallback = Callable[[int, PyTree], Pixels | None]
"""`(step, denoiser)`: draws a sample grid from the averaged denoiser, whose arrays it must not keep.

The picture that it returns, if any, goes to TensorBoard."""


def train(
    folder: str | Place,
    experiment: object,
    config: TrainConfig,
    run: RunConfig,
    learner: AbstractLearner,
    data: BatchSource,
    mesh: Mesh,
    validation: Validation | None = None,
    sample_callback: SampleCallback | None = None,
    evaluation: Evaluation | None = None,
    traced: int = 0,
) -> TrainState:
    """Train to `run.steps`, from the newest checkpoint in `folder` if there is one: under another cooldown than that of
    the last time, from the newest before either began.

    `experiment` is the whole config of the run, `config` and those of data and learner included: it is
    saved with every checkpoint, and a resume under another one is refused (`ConfigMismatchError`). Raises
    `OSError` if the folder cannot be written to, `FolderInUseError` if another training runs there, `ValueError` for
    unusable batches, `NonFiniteLossError`, `CompanyError` if processes disagree, and `SystemExit(143)` once the state
    is saved after a SIGTERM. A validation, an evaluation or a picture that fails is logged. `traced` steps are traced
    for a profiler (`trace`).
    """
    folder, written = prepare(folder), to_json(experiment)
    best_by = evaluation.name if evaluation else VALIDATION_LOSS
    cools_at = None if config.cooldown is None else config.cooldown.start
    agree({"config": written, "run": to_json(run), "folder": str(folder), "mesh": dict(mesh.shape)})
    with (
        TerminationRequest() as termination,
        held(folder) as check_held,
        Checkpoints(folder, run, best_by, config.cooldown) as checkpoints,
        Extras() as extras,
    ):
        state = checkpoints.restore(written, abstract_state(learner, config, mesh))
        if state is None:
            state = init_state(learner, config, mesh)
        if validation is not None:
            validation.rehearse(state, config, mesh)
        _write_config(folder, written)
        start = int(state.step)
        arrays, rest = flatten(carried(state, learner, config, mesh))
        del state  # its buffers are reused by the first step
        take_step = flat_train_step(rest, learner, config, run.log_every, mesh)

        def give_up(step: int) -> None:
            raise NonFiniteLossError(_what_broke(step, data.batch(step), checkpoints.newest()))

        ahead = _put_ahead(data.iterate(start), start, config, mesh)
        with Reporter(folder, start, run, give_up, extras, traced) as reporter, closing(ahead) as batches:
            for step in range(start + 1, run.steps + 1):
                with reporter.waiting():
                    batch = next(batches)
                with (
                    reporter.compiling("the train step") if step == start + 1 else nullcontext(),
                    reporter.tracing(step),
                ):
                    arrays, metrics = take_step(arrays, batch)
                termination.steps_are_made()
                reporter.after(step, metrics, len(batch.label))

                last, stop = step == run.steps, termination.agreed(step)
                scheduled = last or step % run.checkpoint_every == 0 or step == cools_at
                pictured = sample_callback is not None and (last or step % run.sample_every == 0)
                evaluated = evaluation is not None and (last or step % evaluation.every == 0)
                if scheduled or stop or pictured or evaluated:
                    reporter.settle()
                    with reporter.away():
                        state, figures = as_trees(unflatten(arrays, rest)), {}
                        if validation is not None and scheduled:
                            with extras.attempt("validation", step):
                                losses = validation.measure(state, config, mesh, run)
                                reporter.write(step, losses)
                                figures[VALIDATION_LOSS] = losses[VALIDATION_LOSS]
                        if evaluation is not None and evaluated:
                            with extras.attempt("evaluation", step):
                                figures[evaluation.name] = evaluation.measure(step, state.ema)
                                reporter.write(step, {evaluation.name: figures[evaluation.name]})
                        reporter.publish()
                        check_held()
                        with reporter.saving():
                            checkpoints.save(state, written, figures)
                        if sample_callback is not None and pictured:
                            checkpoints.newest()  # waits: even a crash while drawing loses nothing
                            with extras.attempt("drawing samples", step):
                                reporter.show(step, "samples", sample_callback(step, state.ema))
                        del state
                if stop and not last:
                    raise SystemExit(TERMINATED_STATUS)
    return as_trees(unflatten(arrays, rest))


def _write_config(folder: Place, written: Json) -> None:
    if jax.process_index() == 0:
        replace_bytes(folder / CONFIG_FILE, (json.dumps(written, indent=2) + "\n").encode())


def _put_ahead(
    host: Generator[HostBatch, None, None], start: int, config: TrainConfig, mesh: Mesh
) -> Generator[Batch, None, None]:
    """Check batches and start their way to the device before they are needed; closes `host` when closed."""
    ahead: deque[Batch] = deque()
    with closing(host):
        for step, batch in enumerate(host, start):
            check_batch(batch, step, config.num_classes, config.accumulation * mesh.size)
            ahead.append(put_batch(batch, mesh))
            if len(ahead) > BATCHES_AHEAD:
                yield ahead.popleft()


def _what_broke(step: int, batch: HostBatch, newest: Place | None) -> str:
    finite = np.isfinite(batch["image"]).all(axis=(1, 2, 3))
    pixels = (
        "all its pixels are finite" if finite.all() else f"images {np.flatnonzero(~finite).tolist()} have bad pixels"
    )
    kept = "no checkpoint had been saved" if newest is None else f"the last good checkpoint is {newest}"
    return (
        f"the loss or its gradient is not finite at step {step}, in batch {step} of the data ({pixels}); {kept}. "
        "Mend the data, or lower the learning rate or max_gradient_norm in a new folder"
    )
