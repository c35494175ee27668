"""The README tells the truth: its program runs as it stands, and its links lead somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = ["README.md", "CONTRIBUTING.md", "docs/theory.md"]


def test_program_of_the_readme_runs(capsys):
    (program,) = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    exec(compile(program, "README.md", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 3
    # Sixteen images of 64 pixels of unit variance: the deviation strays by 20% at most (correlated pixels, 4 s.e.).
    assert all(line.startswith("(16, 8, 8, 1)") and 0.6 < float(line.split()[-1]) < 1.4 for line in printed)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)]+)\)", (ROOT / page).read_text())
    local = [target for target in targets if not target.startswith("https://")]
    missing = [target for target in local if not (ROOT / page).parent.joinpath(target).exists()]
    assert not missing
