"""A run's folder: one training at a time, whatever else lies in it, and left whole by signals at any moment."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from toy_training import TOY_RUN, DenseDenoiser, arrays_of, losses_of, toy_train

from asyncpatch.train import FolderInUseError, load_for_sampling, make_mesh, read_metrics
from asyncpatch.train.folder import LOCK_FILE, prepare

RUN = replace(TOY_RUN, steps=8)
SOON = 2.0
"""Seconds within which a process must end."""

TRAIN = """
import hashlib, signal, sys
import jax
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
sys.path.insert(0, {tests!r})
from toy_training import *

jax.config.update("jax_num_cpu_devices", 4)

def compute_for_minutes():
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)  # like a compiler, it gives Python no chance to see a signal

def slow_loss(denoiser, key, image, label):
    print("ready", flush=True)
    compute_for_minutes()
    return toy_loss(denoiser, key, image, label)

def edit(step, image, label):
    if step == 6:
        print("ready", flush=True)
        compute_for_minutes()

{call}
"""
WAITING = "toy_train(Path({folder!r}), data=ToyData(pause=0.05))"
COMPILING = "toy_train(Path({folder!r}), loss_fn=slow_loss)"
STEPPING = "toy_train(Path({folder!r}), data=ToyData(edit=edit))"


@contextmanager
def training(folder: Path, call: str):
    """A process that trains in a folder, killed at the end."""
    code = TRAIN.format(tests=str(Path(__file__).parent), call=call.format(folder=str(folder)))
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_second_training_is_refused_and_told_of_the_first_whose_death_frees_the_folder(tmp_path):
    with training(tmp_path, WAITING) as process:
        while not (tmp_path / "checkpoints" / "4").exists():
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.01)
        begun = time.monotonic()
        holder = rf"process {process.pid} on {socket.gethostname()}, since 20\d\d-\S+ \S+, trains in it; wait for it"
        with pytest.raises(FolderInUseError, match=holder):
            toy_train(tmp_path, run=RUN)
        assert time.monotonic() - begun < SOON
        assert load_for_sampling(tmp_path, lambda _, key: DenseDenoiser(key), make_mesh())[0].step >= 4
        assert process.poll() is None
    assert (tmp_path / LOCK_FILE).read_text()
    assert int(toy_train(tmp_path).step) == TOY_RUN.steps
    assert not (tmp_path / LOCK_FILE).read_text()


def test_a_training_that_fails_frees_the_folder(run):
    with pytest.raises(ZeroDivisionError):
        toy_train(run, run=TOY_RUN, loss_fn=lambda *arguments: 1 / 0)
    assert int(toy_train(run, run=replace(RUN, steps=9)).step) == 9


@pytest.mark.parametrize("name", ["²", "٣", "007", "08"])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_only_looks_like_a_checkpoint_is_moved_aside(run, name, kind):
    foreign = run / "checkpoints" / name
    shutil.copytree(run / "checkpoints" / "8", foreign) if kind == "folder" else foreign.write_text("mine")
    assert load_for_sampling(run, lambda _, key: DenseDenoiser(key), make_mesh())[0].step == 8
    assert int(toy_train(run, run=replace(RUN, steps=9)).step) == 9
    assert not foreign.exists()
    assert [path.name.partition("-")[0] for path in (run / "damaged").iterdir()] == [name]


@pytest.mark.parametrize("name", ["notes.txt", "-3", "8.old", "step 8"])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_looks_like_no_checkpoint_is_left_alone(run, name, kind):
    for foreign in (run / name, run / "checkpoints" / name):
        foreign.mkdir() if kind == "folder" else foreign.write_text("mine")
    assert int(toy_train(run, run=replace(RUN, steps=9)).step) == 9
    assert (run / name).exists()
    assert (run / "checkpoints" / name).exists()


@pytest.mark.parametrize(
    ("name", "wanted"),
    [(name, "file") for name in ("config.json", "metrics.jsonl", "metrics.jsonl.unfinished", LOCK_FILE)]
    + [(name, "folder") for name in ("checkpoints", "damaged", "samples", "tensorboard")],
)
def test_what_is_in_the_way_is_named_before_anything_is_computed(tmp_path, name, wanted):
    in_the_way = tmp_path / name
    in_the_way.mkdir() if wanted == "file" else in_the_way.write_text("mine")
    with pytest.raises(OSError, match=rf"{name} is no {wanted}, and training needs a {wanted} of that name; move it"):
        prepare(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_foreign_lines_in_the_metrics_are_kept_elsewhere_and_ours_all_stay(run, trained, caplog):
    foreign = [b"note to myself", b"[1, 2]", b'{"loss": 1}', b'{"step": "3"}', b"\xff\xfe", b"[" * 10**5, b"null"]
    ours = (run / "metrics.jsonl").read_bytes().splitlines()
    mixed = [line for pair in zip(ours, foreign, strict=False) for line in pair] + ours[len(foreign) :]
    (run / "metrics.jsonl").write_bytes(b"\n".join(mixed) + b'\n{"step": 9, "lo')
    assert [line["step"] for line in read_metrics(run)] == list(losses_of(trained))
    assert "7 lines" in caplog.text
    toy_train(run, run=replace(RUN, steps=9))
    assert (run / "metrics.jsonl").read_bytes().splitlines()[: len(ours)] == ours
    assert list(losses_of(run)) == list(range(1, 10))
    assert (run / "metrics.foreign").read_bytes().splitlines() == foreign


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_during_the_first_compile_ends_at_once_and_leaves_a_good_folder(run, trained, number, status):
    with training(run, COMPILING) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.wait(SOON) == status
        said = process.stderr.read()
    last = f"ended by {number.name} before the first step was done; the same command starts again"
    assert said.splitlines()[-1] == last
    assert "Traceback" not in said
    assert not list(run.rglob("*unfinished*"))
    assert json.loads((run / "config.json").read_text())
    assert losses_of(run) == losses_of(trained)
    assert int(toy_train(run, run=replace(RUN, steps=9)).step) == 9


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once(tmp_path, first, second):
    with training(tmp_path, STEPPING) as process:
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.5)  # until it computes: Python would see an interruption before
        process.send_signal(first)
        time.sleep(0.2)
        assert process.poll() is None
        process.send_signal(second)
        assert process.wait(SOON) == 128 + second
        assert process.stderr.read().splitlines()[-1] == (
            f"ended by {second.name} at once; the same command goes on from the last checkpoint"
        )


def test_signals_in_the_first_seconds_end_soon(tmp_path):
    """Before training begins, while modules are imported, the system's own way of ending a process is quick enough."""
    for delay in (0.0, 0.5, 1.5, 3.0):
        with training(tmp_path, COMPILING) as process:
            time.sleep(delay)
            process.send_signal(signal.SIGTERM)
            assert process.wait(SOON) in (143, -signal.SIGTERM)
            assert "Traceback" not in process.stderr.read()
    assert arrays_of(toy_train(tmp_path, run=RUN))
