"""Files that grow while a run goes on, and their copies in a bucket.

Metrics, TensorBoard events and traces are appended to, which no bucket can do. They are written on this machine: into
the run's folder itself or, if that is in a bucket, into a temporary folder whose changed files are copied there whole,
before every checkpoint and at the end. Nothing that a resume would keep is lost: it drops what came after its
checkpoint.
"""

import shutil
import tempfile
from pathlib import Path

from asyncpatch.places import Place, copy_file, files_below


class Published:
    """`local` is where to write. In a bucket, `publish` copies what has changed, and leaving the context all of it."""

    def __init__(self, folder: Place):
        self._folder = folder
        self.local = folder if isinstance(folder, Path) else Path(tempfile.mkdtemp(prefix="asyncpatch-"))
        self._copied: dict[Path, tuple[int, int]] = {}

    def fetch(self, name: str) -> Path:
        """The local file of that name, as the run's folder has it."""
        if self.local != self._folder and (self._folder / name).exists():
            copy_file(self._folder / name, self.local / name)
        return self.local / name

    def publish(self) -> None:
        """Copy the files that have changed since."""
        if self.local == self._folder:
            return
        for path in map(Path, files_below(self.local)):
            status = path.stat()
            state = (status.st_size, status.st_mtime_ns)
            if self._copied.get(path) != state:
                copy_file(path, self._folder / path.relative_to(self.local))
                self._copied[path] = state

    def close(self) -> None:
        """Copy the rest and remove the temporary folder."""
        if self.local != self._folder:
            self.publish()
            shutil.rmtree(self.local, ignore_errors=True)
