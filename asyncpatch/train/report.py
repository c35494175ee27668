"""From the metrics of steps on the device to lines of a report, one look behind.

Invariants: the host starts at most one step ahead of the device and reads numbers only at multiples of
`log_every`, and those of the interval before; a step that was not finite is found at the next look. A log that cannot
be written to does not end a run.

A line says what became of the time since the one before: `waiting_share` is that in which the device had nothing to do
for want of a batch (at most: it may have run out at any moment of the wait), `away_share` that of the first compile,
validation, checkpoints and pictures, and the speed, `images_per_second`, is that of the rest. `checkpoint_seconds`, if
there was a checkpoint, are those that training was held for it; it is written to disk in the background.
"""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext

import jax

from asyncpatch.pictures import Pixels
from asyncpatch.places import Place
from asyncpatch.train.extras import Extras
from asyncpatch.train.metrics_log import MetricsLog
from asyncpatch.train.progress import make_progress
from asyncpatch.train.settings import RunConfig
from asyncpatch.train.state import NEVER
from asyncpatch.train.step import StepMetrics
from asyncpatch.train.trace import Trace


class Reporter:
    """Collects metrics; the first process writes them. `on_broken(step)` is told of a non-finite step and raises."""

    def __init__(
        self,
        folder: Place,
        start: int,
        run: RunConfig,
        on_broken: Callable[[int], None],
        extras: Extras,
        traced: int = 0,
    ):
        self._run, self._on_broken, self._extras = run, on_broken, extras
        self._writes = jax.process_index() == 0
        if self._writes:
            self._log = MetricsLog(folder, start)
            self._progress = make_progress(start, run.steps)
            self._trace = Trace(self._log.local, start, traced, extras)
        self._latest: StepMetrics | None = None
        self._pending: list[tuple[int, dict[str, float], dict[str, str | float], StepMetrics]] = []
        self._marked = (start, time.monotonic())
        self._away = self._waited = 0.0
        self._saving: float | None = None

    def __enter__(self) -> "Reporter":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._writes:
            self._trace.close(self._marked[0])
            self._progress.close()
            with self._extras.attempt("writing metrics", self._marked[0]):
                self._log.close()

    @contextmanager
    def compiling(self, what: str) -> Generator[None]:
        """The first step, which compiles: its time is said, and counts neither as speed nor as time left."""
        begun = time.monotonic()
        if self._writes:
            self._progress.say(f"compiling {what}")
        with self.away():
            yield
        self._marked, self._away, self._waited = (self._marked[0] + 1, time.monotonic()), 0.0, 0.0
        if self._writes:
            self._progress.say(f"compiled {what} in {time.monotonic() - begun:.1f} s")

    @contextmanager
    def away(self) -> Generator[None]:
        """The time inside is not spent on training: it counts neither as speed nor as time left."""
        begun = time.monotonic()
        yield
        seconds = time.monotonic() - begun
        self._away += seconds
        if self._writes:
            self._progress.away(seconds)

    @contextmanager
    def tracing(self, step: int) -> Generator[None]:
        """The step is made inside, and traced if it is to be; `after` ends the trace."""
        with self._trace.of(step) if self._writes else nullcontext():
            yield

    @contextmanager
    def waiting(self) -> Generator[None]:
        """The time inside is spent waiting for a batch: lost if the device has run out of work by its end."""
        begun = time.monotonic()
        yield
        if self._latest is None or self._latest.loss.is_ready():  # type: ignore  (a method that jax.Array does not declare)
            self._waited += time.monotonic() - begun

    @contextmanager
    def saving(self) -> Generator[None]:
        """The time inside is spent on a checkpoint."""
        begun = time.monotonic()
        yield
        self._saving = time.monotonic() - begun

    def after(self, step: int, metrics: StepMetrics, images: int) -> None:
        """Take the metrics of the step just started, and wait for the one before."""
        jax.block_until_ready(self._latest)
        self._latest = metrics
        if self._writes:
            self._progress.advance(step)
            if (where := self._trace.after(step, metrics)) is not None:
                self._progress.say(f"traced steps lie in {where}")
        if step % self._run.log_every == 0:
            (last_step, last_time), now = self._marked, time.monotonic()
            values = {}
            if timed := step - last_step:  # none if this is the step that compiled
                values["images_per_second"] = round(images * timed / (now - last_time - self._away), 1)
                values["waiting_share"] = round(self._waited / (now - last_time), 4)
                values["away_share"] = round(self._away / (now - last_time), 4)
            if self._saving is not None:
                values["checkpoint_seconds"] = round(self._saving, 4)
            self._saving = None
            self._pending.append((step, values, self._log.clock() if self._writes else {}, metrics))
            self._marked, self._away, self._waited = (step, now), 0.0, 0.0
            self._write_all_but(1)

    def settle(self) -> None:
        """Wait for the device and write all that is due. Nothing that is not finite gets past this."""
        self._write_all_but(0)
        if self._latest is not None:
            self._check(self._latest)

    def publish(self) -> None:
        """Bring what has been written to the run's folder, before a checkpoint that a resume may begin from."""
        if self._writes:
            with self._extras.attempt("writing metrics", self._marked[0]):
                self._log.publish()

    def write(self, step: int, values: dict[str, float], clock: dict[str, str | float] | None = None) -> None:
        """Write further numbers of a step, of this moment unless said otherwise."""
        if self._writes:
            with self._extras.attempt("writing metrics", step):
                self._log.write(step, values, clock or self._log.clock())

    def show(self, step: int, name: str, picture: Pixels | None) -> None:
        """Put the picture of a step into the log, if there is one."""
        if self._writes and picture is not None:
            self._log.show(step, name, picture)

    def _write_all_but(self, kept: int) -> None:
        while len(self._pending) > kept:
            step, timings, clock, metrics = self._pending.pop(0)
            self._check(metrics)
            values = {name: float(getattr(metrics, name)) for name in ("loss", "gradient_norm", "learning_rate")}
            values |= {name: float(value) for name, value in metrics.details.items()}
            self.write(step, values | timings, clock)
            if self._writes:
                speed = f"  {timings['images_per_second']:.0f} images/s" if "images_per_second" in timings else ""
                self._progress.note(f"loss {values['loss']:.4g}{speed}")

    def _check(self, metrics: StepMetrics) -> None:
        if (step := int(metrics.broken_at)) != NEVER:
            self._on_broken(step)
