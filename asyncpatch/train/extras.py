"""What a run can do without: when it fails, that is said, and training goes on.

Pictures, validation and the lines of a log show what training does and decide nothing in it, so days of it must not end
with them. Invariants: every kind of failure (what failed, and with which exception) is logged once with its traceback,
and all are counted at the end; nothing is caught but an `Exception`, so that interruptions still end a run.
"""

import logging
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager

LOGGER = logging.getLogger(__name__)


class Extras:
    """Context of a run: `attempt` what it can do without; what failed is summed up at the end."""

    def __init__(self):
        self._failures: Counter[tuple[str, str]] = Counter()

    def __enter__(self) -> "Extras":
        return self

    def __exit__(self, *exception: object) -> None:
        for (what, kind), count in self._failures.items():
            LOGGER.error("%s failed %d times in this run (%s); the first time is logged above", what, count, kind)

    @contextmanager
    def attempt(self, what: str, step: int) -> Generator[None]:
        """Whatever is done inside may fail."""
        try:
            yield
        except Exception as error:
            kind = (what, type(error).__name__)
            self._failures[kind] += 1
            if self._failures[kind] == 1:
                LOGGER.error(
                    "%s failed at step %d, and training goes on without; further failures of this kind are counted",
                    what,
                    step,
                    exc_info=error,
                )
