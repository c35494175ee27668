"""Every notebook runs from its first cell to its last."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
SECONDS = 300
"""The longest that a cell may take."""


@pytest.mark.parametrize(
    "path", sorted((ROOT / "experiments" / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem
)
@pytest.mark.filterwarnings("default")  # the kernel's client warns of its own event loop
def test_notebook_runs(path):
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=SECONDS, kernel_name="python3", resources={"metadata": {"path": ROOT}}).execute()
