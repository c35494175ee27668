"""Only what is proven damaged is moved aside: every other failure to read leaves a run's folder as it is."""

import errno
import json
from dataclasses import replace
from pathlib import Path

import jax
import jax.random as jr
import orbax.checkpoint as ocp
import pytest
from toy_training import TOY_CONFIG, TOY_RUN, DenseDenoiser, toy_loss

from asyncpatch.config import to_json
from asyncpatch.train import CheckpointError, ConfigMismatchError, Descent, best_step, load_for_sampling, make_mesh
from asyncpatch.train.checkpoint import Checkpoints
from asyncpatch.train.digest import digests
from asyncpatch.train.mesh import weight_sharding
from asyncpatch.train.record import DamageError, read_record, written_record
from asyncpatch.train.state import abstract_state

RUN = replace(TOY_RUN, steps=8)

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def restore(folder: Path, make=DenseDenoiser):
    template = abstract_state(Descent(make, toy_loss), TOY_CONFIG, make_mesh())
    with Checkpoints(folder, RUN) as checkpoints:
        return checkpoints.restore(to_json((TOY_CONFIG, RUN)), template)


def names_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def unreadable(file: Path) -> None:
    """Reading it fails as a broken disk does, even for root."""
    file.unlink()
    file.symlink_to("/proc/self/mem")


def circular(file: Path) -> None:
    """Opening it fails."""
    file.unlink()
    file.symlink_to(file.name)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("spoil", [unreadable, circular])
@pytest.mark.parametrize("where", ["ema/manifest.ocdbt", "ema/ocdbt.process_0/d/*", "ema/_METADATA", "config/metadata"])
def test_a_file_that_the_system_refuses_is_no_damage(run, where, spoil):
    for file in (run / "checkpoints" / "8").glob(where):
        spoil(file)
    before = names_in(run)
    with pytest.raises(OSError, match=r"Input/output error|symbolic links|cannot read the checkpoint"):
        restore(run)
    assert names_in(run) == before


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EIO, "Input/output error"),
        PermissionError(errno.EACCES, "Permission denied"),
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EMFILE, "Too many open files"),
        MemoryError(),
        jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory"),
        ValueError("UNKNOWN: Error reading [os_error_code='24']"),
        ValueError("RESOURCE_EXHAUSTED: no memory"),
    ],
    ids=str,
)
def test_a_passing_failure_is_an_error_and_moves_nothing(run, error, monkeypatch):
    def fail(*arguments, **named):
        raise error

    before = names_in(run)
    monkeypatch.setattr(ocp.Checkpointer, "restore", fail)
    kind = MemoryError if isinstance(error, MemoryError) else jax.errors.JaxRuntimeError
    with pytest.raises(kind if isinstance(error, kind) else OSError):
        restore(run)
    assert names_in(run) == before


def test_a_failure_that_passes_is_no_damage(run, monkeypatch):
    restored, calls = ocp.Checkpointer.restore, []

    def fail_once(*arguments, **named):
        calls.append(1)
        if len(calls) == 1:
            raise ValueError("DATA_LOSS: that once")
        return restored(*arguments, **named)

    monkeypatch.setattr(ocp.Checkpointer, "restore", fail_once)
    assert int(restore(run).step) == 8
    assert not (run / "damaged").exists()


class Wider(DenseDenoiser):
    def __init__(self, key):
        super().__init__(key, hidden=17)


def without_digests(run: Path) -> None:
    """As releases wrote it that kept none."""
    for path in (run / "checkpoints").iterdir():
        record = read_record(path)
        text = written_record(replace(record, commit="old"))
        kept = {name: text[name] for name in ("experiment", "release", "commit")}
        (path / "config" / "metadata").write_text(json.dumps(kept))


@pytest.mark.parametrize("old", [False, True])
def test_changed_code_is_no_damage(run, old):
    if old:
        without_digests(run)
    before = names_in(run)
    with pytest.raises(ConfigMismatchError, match=r"has other arrays than this code .*ema/inner was float32\[32, 16\]"):
        restore(run, Wider)
    with pytest.raises(ConfigMismatchError, match="use the code that wrote it"):
        load_for_sampling(run, lambda _, key: Wider(key), make_mesh())
    assert names_in(run) == before
    assert int(restore(run).step) == 8


def edit(path: Path, change) -> None:
    """Change the JSON of a file."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("config/metadata", lambda record: record.update(commit="another")),
        ("config/metadata", lambda record: record.update(validation_loss=0.5)),
        ("config/metadata", lambda record: record["experiment"][0].update(seed=1)),
        ("config/metadata", lambda record: record.update(dihest=record.pop("digest"))),
        ("config/metadata", lambda record: record.pop("experiment")),
        ("metrics/metrics", lambda metrics: metrics.update(validation_loss=0.1)),
    ],
)
def test_a_record_that_is_not_what_was_written_is_damage(run, file, change):
    newest = run / "checkpoints" / "8"
    edit(newest / file, change)
    with pytest.raises(DamageError):
        read_record(newest)
    assert load_for_sampling(run, lambda _, key: DenseDenoiser(key), make_mesh())[0].step == 4
    assert best_step(run) is None
    assert int(restore(run).step) == 4
    assert [path.name.partition("-")[0] for path in (run / "damaged").iterdir()] == ["8"]


def test_a_checkpoint_under_another_step_is_damage(run):
    (run / "checkpoints" / "8").rename(run / "checkpoints" / "9")
    assert int(restore(run).step) == 4


def test_a_folder_whose_every_record_is_damaged_is_not_started_afresh(run):
    for path in (run / "checkpoints").iterdir():
        (path / "metrics" / "metrics").write_text("{")
    before = names_in(run)
    with pytest.raises(CheckpointError, match=r"none of the checkpoints in .* can be read"):
        restore(run)
    assert names_in(run) == before


def test_digests_do_not_depend_on_the_split():
    array = jr.normal(jr.key(0), (2, 2**16))
    split = jax.device_put(array, weight_sharding(make_mesh(1, 4), array.shape))
    assert len(split.sharding.device_set) == 4
    assert digests({"a": array}) == digests({"a": split})
    assert digests({"a": array}) != digests({"a": array.at[1, 5].multiply(-1.0)})
