"""metrics.jsonl and TensorBoard events.

Invariant: after a resume at step `n` the file holds no line beyond `n` and continues from there, so that apart from
timings it is the file of a run that was never interrupted.
"""

import json
import os
from pathlib import Path

from tensorboardX import SummaryWriter

METRICS_FILE, EVENTS_FOLDER = "metrics.jsonl", "tensorboard"


class MetricsLog:
    """Appends lines to metrics.jsonl and scalars to TensorBoard, from `step` on."""

    def __init__(self, folder: Path, step: int):
        path = folder / METRICS_FILE
        _drop_lines_after(path, step)
        self._file = path.open("a", encoding="utf-8")
        self._events = SummaryWriter(str(folder / EVENTS_FOLDER), purge_step=step + 1)

    def write(self, step: int, values: dict[str, float]) -> None:
        """One line, out of this process's buffers when this returns: a kill cannot take it back."""
        self._file.write(json.dumps({"step": step} | values) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._events.add_scalar(name, value, step)

    def close(self) -> None:
        """Write out the events and close both files."""
        self._file.close()
        self._events.close()


def _drop_lines_after(path: Path, step: int) -> None:
    """Keep the lines up to `step`. A line cut short by a kill goes too: it is later than any checkpoint."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] > step:
                break
        except ValueError:
            break
        kept.append(line + "\n")
    replacement = path.with_suffix(".tmp")
    replacement.write_text("".join(kept), encoding="utf-8")
    os.replace(replacement, path)
