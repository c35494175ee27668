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
    assert [line.rsplit(maxsplit=1)[0] for line in printed] == ["(16, 8, 8, 1)"] * 3
    generated, written, filled = (float(line.split()[-1]) for line in printed)
    # Sixteen images of 64 correlated pixels of unit variance: the deviation strays by less than 0.4 (above 5 s.e.).
    assert abs(generated - 1) < 0.4
    assert abs(written - 1) < 0.4
    assert 0 < filled < generated  # the border is known to be 0


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)]+)\)", (ROOT / page).read_text())
    local = [target for target in targets if not target.startswith("https://")]
    missing = [target for target in local if not (ROOT / page).parent.joinpath(target).exists()]
    assert not missing
