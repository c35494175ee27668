"""Opening runs: folders of this release and of earlier ones, files to give away, and the models that are shipped."""

import dataclasses
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from asyncpatch.config import ConfigError, names, to_json
from asyncpatch.data import Digits, to_uint8
from asyncpatch.noise_schedule import RectifiedFlow
from asyncpatch.paths import Environment as EnvironmentLaw
from asyncpatch.runs import Examples, FileFormatError, Run, open_run, shipped, write_file
from asyncpatch.runs.cache import cache_folder
from asyncpatch.timesteps import Environment

GOLDEN = Path(__file__).parent / "golden" / "run_0_1_0"
"""A checkpoint that release 0.1.0 wrote, when configs named classes by their modules. Never write it anew."""

GOLDEN_WEIGHTS = 917.6064820896136
"""The sum of the absolute values of its averaged weights."""


def weights_of(run: Run) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(eqx.filter(run.denoiser, eqx.is_array))]


@pytest.fixture(scope="module")
def golden() -> Run:
    return open_run(GOLDEN)


def test_checkpoint_of_an_earlier_release_opens(golden):
    assert golden.image_shape == (8, 8, 1)
    assert golden.num_classes == 10
    assert golden.schedule == RectifiedFlow()
    assert golden.timesteps == Environment(EnvironmentLaw((1, 8), spread=(0.0, 3.0)))
    assert (golden.step, golden.images_seen, golden.release, golden.commit) == (3, 12, "0.1.0", "unknown")
    assert sum(float(np.abs(leaf, dtype=np.float64).sum()) for leaf in weights_of(golden)) == pytest.approx(
        GOLDEN_WEIGHTS, rel=1e-6
    )
    prediction = golden.denoiser(
        jnp.linspace(-1.0, 1.0, 64).reshape(8, 8, 1), jnp.linspace(0.0, 1.0, 64).reshape(8, 8), jnp.asarray(3)
    )
    assert float(prediction.data.mean()) == pytest.approx(0.008543752, abs=1e-5)


def test_golden_names_a_class_that_has_moved_since():
    written = json.loads(next((GOLDEN / "checkpoints" / "3" / "config").glob("metadata")).read_text())
    former = written["experiment"]["type"]
    assert former == "experiments.setup.Experiment"
    assert names.PACKAGE[names.FORMER[former]] != former


def test_a_class_that_moves_again_is_found(golden, monkeypatch):
    """Whoever moves a class changes one line of the table, and no file."""
    elsewhere = type(sys)("elsewhere")
    elsewhere.RectifiedFlow = type("RectifiedFlow", (RectifiedFlow,), {"__module__": elsewhere.__name__})
    monkeypatch.setitem(sys.modules, elsewhere.__name__, elsewhere)
    monkeypatch.setitem(names.PACKAGE, "RectifiedFlow", f"{elsewhere.__name__}.RectifiedFlow")
    assert type(open_run(GOLDEN).schedule) is elsewhere.RectifiedFlow


def test_repr_says_what_a_user_must_know(golden):
    said = repr(golden)
    for part in ("8x8, 1 channel", "10 (0, 1, 2", "RectifiedFlow()", "Environment(", "3 steps, 12 images", "0.1.0"):
        assert part in said
    assert f"{golden.validation_loss:.4f}" in said
    assert "measured" not in said
    assert "  measured         LPIPS: 0.0141\n" in repr(dataclasses.replace(golden, measured={"LPIPS": 0.0141}))


@pytest.mark.parametrize(("stored", "tolerance"), [("float32", 0.0), ("float16", 1e-3)])
def test_file_gives_the_run_back(golden, tmp_path, stored, tolerance):
    shown = Examples(jnp.linspace(-1.0, 1.0, 128).reshape(2, 8, 8, 1), jnp.array([4, 7]))
    measured = {"FD-classifier, generation, 10 images, 4 calls": 81.25}
    named = dataclasses.replace(golden, class_names=tuple("abcdefghij"), examples=shown, measured=measured)
    back = open_run(write_file(named, tmp_path / "run.safetensors", stored))
    for field in ("experiment", "step", "validation_loss", "release", "commit", "class_names", "measured"):
        assert getattr(back, field) == getattr(named, field)
    for ours, theirs in zip(weights_of(golden), weights_of(back), strict=True):
        assert theirs.dtype == ours.dtype
        np.testing.assert_allclose(theirs, ours, rtol=tolerance, atol=tolerance)
    np.testing.assert_array_equal(to_uint8(np.asarray(back.examples.image)), to_uint8(np.asarray(shown.image)))
    np.testing.assert_array_equal(back.examples.label, shown.label)
    assert not list(tmp_path.glob("*.unfinished"))


def test_a_file_to_give_away_can_be_read_as_any_other(written, tmp_path):
    (tmp_path / "other").touch()
    assert written.stat().st_mode == (tmp_path / "other").stat().st_mode


def test_weights_that_are_not_finite_are_not_given_away(golden, tmp_path):
    broken = eqx.tree_at(lambda denoiser: denoiser.network.labels, golden.denoiser, replace_fn=lambda leaf: leaf / 0)
    with pytest.raises(ValueError, match="not finite"):
        write_file(dataclasses.replace(golden, denoiser=broken), tmp_path / "run.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def written(golden, tmp_path) -> Path:
    return write_file(golden, tmp_path / "run.safetensors")


def rewrite(path: Path, edit) -> Path:
    """The file with its header and arrays changed by `edit(header, arrays)`."""
    with safe_open(path, framework="numpy") as file:
        header, arrays = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    edit(header, arrays)
    save_file(arrays, path, header)
    return path


def edit_record(header, change) -> None:
    record = json.loads(header["record"])
    change(record)
    header["record"] = json.dumps(record)


FIRST = "network.labels"
"""One of the arrays."""

EDITS = {
    "foreign": (lambda header, arrays: header.pop("format"), "no run of asyncpatch"),
    "newer": (
        lambda header, arrays: header.update(format_number="2", written_by="9.1.0"),
        "format '2', written by release 9.1.0",
    ),
    "no number": (lambda header, arrays: header.update(format_number="one"), "format 'one'"),
    "no record": (lambda header, arrays: header.pop("record"), "lacks a record"),
    "record of another kind": (lambda header, arrays: header.update(record="[1]"), "lacks a record"),
    "short record": (
        lambda header, arrays: edit_record(header, lambda record: record.pop("step")),
        "lacks step",
    ),
    "measured changed": (
        lambda header, arrays: edit_record(header, lambda record: record.update(measured={"LPIPS": 0.1})),
        "do not match its digest",
    ),
    "step changed": (
        lambda header, arrays: edit_record(header, lambda record: record.update(step=4)),
        "do not match its digest",
    ),
    "weight changed": (lambda header, arrays: arrays[FIRST].__setitem__((0, 0), 9.0), "do not match its digest"),
    "weight missing": (lambda header, arrays: arrays.pop(FIRST), f"lacks {FIRST}"),
    "weight too many": (lambda header, arrays: arrays.update(more=np.zeros(2)), "holds more than its config asks for"),
    "other shape": (lambda header, arrays: arrays.update({FIRST: np.zeros((3, 3), np.float32)}), r"F32\[3, 3\]"),
    "other type": (lambda header, arrays: arrays.update({FIRST: arrays[FIRST].astype(np.float64)}), "F64"),
    "examples of another size": (
        lambda header, arrays: arrays.update(
            {"examples.image": np.zeros((1, 9, 9, 1), np.uint8), "examples.label": np.zeros(1, np.int32)}
        ),
        "none of its images",
    ),
}


@pytest.mark.parametrize(("edit", "message"), EDITS.values(), ids=EDITS)
def test_damaged_foreign_and_newer_files_are_refused(written, edit, message):
    with pytest.raises(FileFormatError, match=message):
        open_run(rewrite(written, edit))


@pytest.mark.parametrize("kept", [0.0, 0.001, 0.3, 0.999])
def test_a_file_that_is_cut_short_is_refused(written, kept):
    content = written.read_bytes()
    written.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(FileFormatError, match="is damaged"):
        open_run(written)


def test_every_flipped_bit_is_found(written):
    """Whatever bit it is, of the header or of the weights."""
    content, random = written.read_bytes(), np.random.default_rng(0)
    for position in random.integers(0, len(content), 60):
        flipped = bytearray(content)
        flipped[position] ^= 1 << random.integers(8)
        written.write_bytes(bytes(flipped))
        with pytest.raises((FileFormatError, ConfigError)):
            open_run(written)


def test_hostile_record_builds_nothing_and_asks_for_no_memory(written):
    def name_another_class(record):
        record["experiment"]["schedule"] = {"type": "os.system", "command": "true"}

    def ask_for_a_huge_network(record):
        record["experiment"]["network"]["base"] = 2**20

    with pytest.raises(ConfigError, match=r"'os.system', which is neither"):
        open_run(rewrite(written, lambda header, arrays: edit_record(header, name_another_class)))
    rewrite(
        written,
        lambda header, arrays: edit_record(
            header, lambda record: record["experiment"].update(schedule=to_json(RectifiedFlow()))
        ),
    )
    with pytest.raises(FileFormatError, match="its config asks for"):
        open_run(rewrite(written, lambda header, arrays: edit_record(header, ask_for_a_huge_network)))


def test_config_of_something_else_is_refused(written):
    def change(record):
        record["experiment"] = to_json(Digits())

    with pytest.raises(ConfigError, match="config of a Digits"):
        open_run(rewrite(written, lambda header, arrays: edit_record(header, change)))


def test_nothing_to_open_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no run at .*nowhere; .* models that come with the package: fashion"):
        open_run(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="give the folder of a run"):
        open_run(tmp_path)


def test_shipped_model_says_how_it_was_made():
    assert "fashion" in shipped()
    run = open_run("fashion")
    assert run.image_shape == (32, 32, 1)
    assert len(run.class_names) == run.num_classes == 10
    assert run.images_seen >= 250_000
    assert sorted(run.examples.label.tolist()) == list(range(10))
    with pytest.raises(ValueError, match="holds one step alone"):
        open_run("fashion", step=3)


NEWCOMER = """
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import jax.random as jr

from asyncpatch.data import Digits
from asyncpatch.nn import UNetConfig
from asyncpatch.plans import Task, synchronous
from asyncpatch.runs import configure, open_run, register, train_run
from asyncpatch.sampling import DDIM, sample
from asyncpatch.timesteps import AbstractTimestepSampler
from asyncpatch.train import OptimizerConfig, RunConfig


@register
class Rows(AbstractTimestepSampler):
    '''One time a row.'''

    power: float = 1.0

    def __call__(self, key, height, width):
        return jnp.broadcast_to(jr.uniform(key, (height, 1)) ** self.power, (height, width))


config = configure(Digits(), "digits", Rows(0.5), batch_size=8, optimizer=OptimizerConfig(1e-3, 5))
for steps in (10, 20):
    state = train_run(Path("run"), config, RunConfig(steps=steps, checkpoint_every=10, validation_batches=1))
assert int(state.step) == 20
run = open_run("run")
assert run.timesteps == Rows(0.5) and run.step == 20
made = sample(
    jr.key(0), run.denoiser, Task(synchronous(2, 8, 8)), jnp.zeros((2, 8, 8, 1)), jnp.array([1, 2]), DDIM()
)
assert jnp.isfinite(made).all()
assert "experiments" not in sys.modules
"""


def test_newcomers_script_trains_resumes_and_samples_with_a_law_of_its_own(tmp_path):
    (tmp_path / "mine.py").write_text(textwrap.dedent(NEWCOMER))
    done = subprocess.run([sys.executable, "mine.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    forgetful = "from asyncpatch.runs import open_run; open_run('run')"
    refused = subprocess.run(
        [sys.executable, "-c", forgetful], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert "of a class called 'Rows', which is neither one of this package nor registered" in refused.stderr


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"ASYNCPATCH_CACHE": "off"}, None),
        ({"ASYNCPATCH_CACHE": "/somewhere"}, Path("/somewhere")),
        ({"XDG_CACHE_HOME": "/caches"}, Path("/caches/asyncpatch/compiled")),
        ({"HOME": "/home/someone"}, Path("/home/someone/.cache/asyncpatch/compiled")),
    ],
)
def test_compiled_programs_have_a_folder_and_an_off_switch(environment, folder, monkeypatch):
    for name in ("ASYNCPATCH_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == folder


KEEPING = """
import jax
from asyncpatch.runs import open_run
assert jax.config.values["jax_compilation_cache_dir"] is None, "importing alone changes no setting"
open_run("fashion")
print(jax.config.values["jax_compilation_cache_dir"])
"""


@pytest.mark.parametrize(("chosen", "kept"), [("off", "None"), ("here", "here")])
def test_opening_a_run_keeps_what_is_compiled_unless_told_not_to(tmp_path, chosen, kept):
    environment = os.environ | {"ASYNCPATCH_CACHE": chosen}
    done = subprocess.run(
        [sys.executable, "-c", KEEPING], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [kept]
