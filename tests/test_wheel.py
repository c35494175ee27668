"""What a person gets who installs the package: the wheel alone opens the model that it brings along, and a run."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image as Pillow

ROOT = Path(__file__).resolve().parents[1]
MOST_MEGABYTES = 4
"""Of a model that comes with the package."""

CHECKS = """
import sys
import asyncpatch
assert "experiments" not in sys.modules
print(asyncpatch.__file__)
print(run)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    built = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(built, cwd=ROOT, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_wheel_holds_the_package_and_its_models_alone(wheel):
    with zipfile.ZipFile(wheel) as archive:
        files = {info.filename: info.file_size for info in archive.infolist()}
    assert {name.partition("/")[0] for name in files if ".dist-info/" not in name} == {"asyncpatch"}
    models = {name: size for name, size in files.items() if name.endswith(".safetensors")}
    assert models
    assert max(models.values()) <= MOST_MEGABYTES * 1e6


def test_installed_package_draws_its_first_picture_in_an_empty_folder(wheel, tmp_path):
    """The packages that it needs are those of this environment; `nox -s package` installs them afresh."""
    site, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    (program,) = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", program + CHECKS],
        cwd=empty,
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith(str(site))
    assert "32x32, 1 channel" in done.stdout
    with Pillow.open(empty / "inpainted.png") as picture:
        assert picture.width > 500
