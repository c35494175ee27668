"""A run that is interrupted and started again is the run that was not, to the bit; and what checkpoints refuse."""

import gc
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from toy_training import (
    TOY_CONFIG,
    TOY_LEARNER,
    TOY_RUN,
    DenseDenoiser,
    ToyData,
    arrays_of,
    losses_of,
    toy_errors,
    toy_train,
)

from asyncpatch.config import ConfigError, to_json
from asyncpatch.train import (
    TERMINATED_STATUS,
    CheckpointError,
    ConfigMismatchError,
    OptimizerConfig,
    Saved,
    Validation,
    best_step,
    commit,
    load_for_sampling,
    make_mesh,
    newest_step,
    release,
)
from asyncpatch.train.checkpoint import Checkpoints
from asyncpatch.train.state import abstract_state

SCRIPT = Path(__file__).with_name("toy_training.py")


# When it reads a damaged file, Orbax leaves behind coroutines with exceptions that nobody asks for.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module", autouse=True)
def collected():
    """Lets what those reads leave behind be found under this file's filter."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run that was never interrupted, and its state."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, arrays_of(toy_train(folder))


def same(first: dict, second: dict) -> bool:
    """The law of resuming: the same arrays, to the bit."""
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


def build(experiment, key):
    """The denoiser of a toy run."""
    assert experiment == (TOY_CONFIG, TOY_RUN)
    return DenseDenoiser(key)


def config_file(folder: Path) -> Path:
    """Where the newest checkpoint of a toy run has its config."""
    return folder / "checkpoints" / str(TOY_RUN.steps) / "config" / "metadata"


def restore(folder: Path):
    """The newest readable state of a toy run."""
    with Checkpoints(folder, TOY_RUN) as checkpoints:
        return checkpoints.restore(to_json((TOY_CONFIG, TOY_RUN)), abstract_state(TOY_LEARNER, TOY_CONFIG, make_mesh()))


def test_resume_in_process(whole, tmp_path):
    folder, arrays = whole
    toy_train(tmp_path, run=replace(TOY_RUN, steps=3))
    resumed = arrays_of(toy_train(tmp_path))
    assert same(resumed, arrays)
    assert losses_of(tmp_path) == losses_of(folder)
    assert list(losses_of(folder)) == list(range(1, TOY_RUN.steps + 1))


def test_another_data_order_is_not_the_same_run(whole, tmp_path):
    """The wrong twin of resuming: data that starts over after the interruption."""
    toy_train(tmp_path, run=replace(TOY_RUN, steps=3))
    data = ToyData()
    data.iterate = lambda start_step: ToyData().iterate(0)
    assert not same(arrays_of(toy_train(tmp_path, data=data)), whole[1])


def test_reports_are_means_and_survive_an_interruption(whole, tmp_path):
    run = replace(TOY_RUN, log_every=3, steps=9)
    toy_train(tmp_path / "whole", run=run)
    toy_train(tmp_path / "halves", run=replace(run, steps=5))
    toy_train(tmp_path / "halves", run=run)
    assert losses_of(tmp_path / "halves") == losses_of(tmp_path / "whole")
    each, third = losses_of(whole[0]), losses_of(tmp_path / "whole")
    assert list(third) == [3, 6, 9]
    assert third[6] == pytest.approx((each[4] + each[5] + each[6]) / 3, rel=1e-6)


def start(folder: Path, *more: str) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(SCRIPT.parents[1])}
    command = [sys.executable, str(SCRIPT), str(folder), "0.05", *more]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment)


def wait_for_step(folder: Path, process: subprocess.Popen, step: int) -> None:
    while not (folder / "metrics.jsonl").exists() or max(losses_of_partial(folder), default=0) < step:
        assert process.poll() is None, process.stderr.read().decode()
        time.sleep(0.01)


def losses_of_partial(folder: Path) -> dict:
    try:
        return losses_of(folder)
    except ValueError:  # the last line is being written
        return {}


@pytest.mark.timeout(300)
def test_killed_then_terminated_then_run_to_the_end(whole, tmp_path):
    process = start(tmp_path)
    wait_for_step(tmp_path, process, 6)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.stderr.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "lo')  # as if the kill had come in the middle of a line

    process = start(tmp_path)
    wait_for_step(tmp_path, process, 14)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == TERMINATED_STATUS == 143
    process.stderr.close()
    stopped_at = max(losses_of(tmp_path))
    assert stopped_at < TOY_RUN.steps
    assert (tmp_path / "checkpoints" / str(stopped_at)).is_dir()

    assert same(arrays_of(toy_train(tmp_path)), whole[1])
    assert losses_of(tmp_path) == losses_of(whole[0])


@pytest.mark.timeout(300)
def test_two_processes_stop_together_and_one_takes_over(whole, tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    processes = [start(tmp_path, str(number), port) for number in range(2)]
    try:
        wait_for_step(tmp_path, processes[0], 6)
        processes[1].send_signal(signal.SIGTERM)
        statuses = [process.wait(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert statuses == [TERMINATED_STATUS] * 2
    state = toy_train(tmp_path)
    assert losses_of(tmp_path) == pytest.approx(losses_of(whole[0]), rel=1e-4)
    assert int(state.step) == TOY_RUN.steps


def test_sigterm_saves_the_step_it_came_in_and_puts_the_handler_back(whole, tmp_path):
    def terminate(step, image, label):
        if step == 9:  # two batches are fetched ahead: step 8 is the one about to start
            os.kill(os.getpid(), signal.SIGTERM)

    former = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stopped:
        toy_train(tmp_path, data=ToyData(edit=terminate))
    assert stopped.value.code == TERMINATED_STATUS
    assert signal.getsignal(signal.SIGTERM) is former
    assert sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir()) == [4, 8]
    assert same(arrays_of(toy_train(tmp_path)), whole[1])


def test_finished_run_is_left_alone(whole):
    folder, arrays = whole
    before = (folder / "metrics.jsonl").read_bytes()
    assert same(arrays_of(toy_train(folder)), arrays)
    assert (folder / "metrics.jsonl").read_bytes() == before


def test_every_cut_is_harmless_or_noticed(whole, tmp_path, caplog):
    """Each file of the newest checkpoint in turn is halved: the same bits come back, or those of the one before."""
    pristine, arrays = whole
    with_one_less = tmp_path / "one-less"
    shutil.copytree(pristine, with_one_less)
    shutil.rmtree(with_one_less / "checkpoints" / str(TOY_RUN.steps))
    before = arrays_of(restore(with_one_less))
    newest = pristine / "checkpoints" / str(TOY_RUN.steps)
    noticed = 0
    for file in sorted(path.relative_to(newest) for path in newest.rglob("*") if path.is_file()):
        folder = tmp_path / "cut"
        shutil.copytree(pristine / "checkpoints", folder / "checkpoints")
        cut = folder / "checkpoints" / newest.name / file
        os.truncate(cut, cut.stat().st_size // 2)
        caplog.clear()
        restored = arrays_of(restore(folder))
        if (folder / "damaged").exists():
            noticed += 1
            assert same(restored, before), file
            assert any(str(folder / "checkpoints" / newest.name) in record.getMessage() for record in caplog.records)
        else:
            assert same(restored, arrays), file
        shutil.rmtree(folder)
    assert noticed >= 10


def flip(path: Path, bit: int) -> None:
    """Turn over one bit of a file, counted from its start."""
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def test_every_flipped_bit_is_found_or_harmless(whole, tmp_path):
    """40 bits anywhere in the newest checkpoint: the same bits come back, or those of the one before."""
    newest = whole[0] / "checkpoints" / str(TOY_RUN.steps)
    files = [path.relative_to(newest) for path in sorted(newest.rglob("*")) if path.is_file()]
    starts = np.cumsum([0] + [8 * (newest / file).stat().st_size for file in files])
    shutil.copytree(whole[0] / "checkpoints", tmp_path / "one-less" / "checkpoints")
    shutil.rmtree(tmp_path / "one-less" / "checkpoints" / newest.name)
    before, run, found = arrays_of(restore(tmp_path / "one-less")), tmp_path / "run", 0
    for bit in np.random.default_rng(0).integers(0, starts[-1], 40):
        number = int(np.searchsorted(starts, bit, side="right")) - 1
        shutil.copytree(whole[0] / "checkpoints", run / "checkpoints")
        flip(run / "checkpoints" / newest.name / files[number], int(bit - starts[number]))
        saved, denoiser = load_for_sampling(run, build, make_mesh())
        sampled, source = arrays_of(denoiser), whole[1] if saved.step == TOY_RUN.steps else before
        assert all(np.array_equal(value, source[f".ema{name}"]) for name, value in sampled.items()), files[number]
        restored = arrays_of(restore(run))
        moved = (run / "damaged").exists()
        found += moved
        assert same(restored, before if moved else whole[1]), files[number]
        shutil.rmtree(run)
    assert found >= 10, "the rest hit what nobody reads; where 40 bits fall depends on the length of every file"


def test_run_goes_on_from_the_last_good_checkpoint(whole, tmp_path, caplog):
    folder, arrays = whole
    shutil.copytree(folder, tmp_path / "run")
    newest = tmp_path / "run" / "checkpoints" / str(TOY_RUN.steps)
    for file in (newest / "state").rglob("*"):
        if file.is_file():
            os.truncate(file, file.stat().st_size // 2)
    with caplog.at_level(logging.WARNING):
        assert same(arrays_of(toy_train(tmp_path / "run")), arrays)
    assert f"checkpoint {newest} is damaged" in caplog.text
    assert f"fell back to {newest.with_name('20')}" in caplog.text
    assert losses_of(tmp_path / "run") == losses_of(folder)
    assert newest.is_dir()
    assert len(list((tmp_path / "run" / "damaged").iterdir())) == 1


def test_no_readable_checkpoint_is_an_error(whole, tmp_path):
    shutil.copytree(whole[0], tmp_path / "run")
    for file in (tmp_path / "run" / "checkpoints").glob("*/state/manifest.ocdbt"):
        os.truncate(file, 3)
    with pytest.raises(CheckpointError, match=r"none of the checkpoints in .* can be read .*restore the folder"):
        toy_train(tmp_path / "run")


def test_checkpoint_of_another_config_names_what_differs(whole):
    other = replace(TOY_CONFIG, optimizer=OptimizerConfig(learning_rate=0.5, warmup_steps=4), seed=2)
    with pytest.raises(ConfigMismatchError) as error:
        toy_train(whole[0], other)
    assert "[0].optimizer.learning_rate was 0.01 and is now 0.5; [0].seed was 0 and is now 2;" in str(error.value)
    assert "ema_decay" not in str(error.value)


def test_last_and_best_are_kept(tmp_path):
    class Falling(ToyData):
        """Validation images that fit best when checked and at the first validation: blank then, wild later."""

        calls = 0

        def batch(self, step):
            Falling.calls += 1
            batch = super().batch(step)
            return batch | {"image": batch["image"] * (0.0 if Falling.calls <= 2 else 50.0 + Falling.calls)}

    run = replace(TOY_RUN, steps=20, keep_last=2, keep_best=1, validation_batches=1)
    toy_train(tmp_path, run=run, validation=Validation(Falling(), toy_errors))
    assert sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir()) == [4, 16, 20]
    assert best_step(tmp_path) == 4
    losses = losses_of(tmp_path, "validation_loss")
    for step in (4, 20):
        saved, _ = load_for_sampling(tmp_path, lambda _, key: DenseDenoiser(key), make_mesh(), step)
        assert saved.validation_loss == pytest.approx(losses[step], rel=1e-6)
    # The best is remembered across a resume: it is on disk, not in memory.
    toy_train(tmp_path, run=replace(run, steps=24), validation=Validation(Falling(), toy_errors))
    assert sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir()) == [4, 20, 24]


def test_load_for_sampling(whole):
    folder, arrays = whole
    saved, denoiser = load_for_sampling(folder, build, make_mesh())
    assert saved == Saved((TOY_CONFIG, TOY_RUN), TOY_RUN.steps, None, release(), commit())
    average = {name.removeprefix(".ema"): v for name, v in arrays.items() if name.startswith(".ema")}
    assert same(arrays_of(denoiser), average)
    saved, earlier = load_for_sampling(folder, build, make_mesh(data=2, fsdp=2), step=20)
    assert saved.step == 20
    assert not same(arrays_of(earlier), average)
    assert best_step(folder) is None
    assert newest_step(folder) == TOY_RUN.steps


def test_load_for_sampling_falls_back(whole, tmp_path, caplog):
    shutil.copytree(whole[0], tmp_path / "run")
    os.truncate(tmp_path / "run" / "checkpoints" / str(TOY_RUN.steps) / "ema" / "manifest.ocdbt", 3)
    saved, denoiser = load_for_sampling(tmp_path / "run", build, make_mesh())
    earlier_saved, earlier = load_for_sampling(whole[0], build, make_mesh(), step=20)
    assert saved == earlier_saved
    assert saved.step == 20
    assert same(arrays_of(denoiser), arrays_of(earlier))
    assert "is damaged" in caplog.text


def test_hostile_config_is_refused_and_not_taken_for_damage(whole, tmp_path):
    shutil.copytree(whole[0], tmp_path / "run")
    hostile = {"experiment": {"type": "subprocess.Popen", "args": ["true"]}, "release": "9.8.7"}
    config_file(tmp_path / "run").write_text(json.dumps(hostile))
    message = (
        "a class called 'subprocess.Popen', which is neither .* nor registered .*; read the file with release 9.8.7"
    )
    with pytest.raises(ConfigError, match=message):
        load_for_sampling(tmp_path / "run", build, make_mesh())


def test_a_checkpoint_that_does_not_say_who_wrote_it_is_of_the_first_release(whole, tmp_path):
    """As that release wrote them: classes are named by where they lay."""
    shutil.copytree(whole[0], tmp_path / "run")
    file = config_file(tmp_path / "run")
    written = json.loads(file.read_text())
    assert written.keys() > {"experiment", "release", "commit"}
    long_names = {name: f"asyncpatch.train.settings.{name}" for name in ("TrainConfig", "RunConfig", "OptimizerConfig")}
    text = json.dumps({"experiment": written["experiment"]})
    for name, long_name in long_names.items():
        assert f'"{name}"' in text
        text = text.replace(f'"{name}"', f'"{long_name}"')
    file.write_text(text)
    saved, _ = load_for_sampling(tmp_path / "run", build, make_mesh())
    assert saved == Saved((TOY_CONFIG, TOY_RUN), TOY_RUN.steps, None, "0.1.0", "unknown")
    assert same(arrays_of(toy_train(tmp_path / "run")), whole[1]), "and such a run can be taken up"


def test_load_for_sampling_without_checkpoint(tmp_path, whole):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint in .*; give the folder of a run"):
        load_for_sampling(tmp_path, build, make_mesh())
    with pytest.raises(FileNotFoundError, match=r"no checkpoint in .*; give the folder of a run"):
        newest_step(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no checkpoint of step 5 in .*; choose one of \d+"):
        load_for_sampling(whole[0], build, make_mesh(), step=5)
