"""A trace of a few steps, for XProf or TensorBoard (`tensorboard --logdir RUN/profile`) and for ui.perfetto.dev.

The first steps are let go by: they compile, and fill what is prepared ahead. Invariant: the numbers of a run do not
depend on it, and a trace that fails does not end a run.
"""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import jax

from asyncpatch.train.extras import Extras

LET_BY = 3
"""Steps before the first that is traced."""

FOLDER = "profile"
"""Where traces lie inside a run's folder."""


class Trace:
    """Traces `count` steps after step `start`, in this process; none if `count` is 0."""

    def __init__(self, local: Path, start: int, count: int, extras: Extras):
        self._folder, self._extras = local / FOLDER, extras
        self._first, self._last = start + LET_BY + 1, start + LET_BY + count
        self._running = False

    @contextmanager
    def of(self, step: int) -> Generator[None]:
        """The step inside is traced if its turn has come. What has been traced is on disk after the last."""
        if self._first <= step <= self._last and step == self._first:
            with self._extras.attempt("tracing steps", step):
                jax.profiler.start_trace(self._folder, create_perfetto_trace=True)
                self._running = True
        with jax.profiler.StepTraceAnnotation("train", step_num=step):
            yield

    def after(self, step: int, result: object) -> str | None:
        """Where the trace lies, once its last step has been made."""
        return self._finish(step, result) if self._running and step >= self._last else None

    def close(self, step: int) -> None:
        """End a trace that the run's own end cuts short."""
        if self._running:
            self._finish(step, None)

    def _finish(self, step: int, result: object) -> str | None:
        self._running = False
        with self._extras.attempt("tracing steps", step):
            jax.block_until_ready(result)
            jax.profiler.stop_trace()
            return str(self._folder)
        return None
