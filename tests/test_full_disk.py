"""A disk that fills up while a run goes on: the last checkpoint stays whole, and the run does without what it can.

A file system of some megabytes is mounted for it, which needs root on Linux; elsewhere these tests are skipped.
"""

import shutil
import subprocess
from contextlib import suppress
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from toy_training import TOY_RUN, DenseDenoiser, arrays_of, losses_of, toy_train

from asyncpatch import pictures
from asyncpatch.train import load_for_sampling, make_mesh, newest_step

RUN = replace(TOY_RUN, steps=8, checkpoint_every=2, keep_last=2)
LEFT = 30_000
"""Bytes that are left free: less than a checkpoint of the toy takes, and more than a few lines."""


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=14m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder, left=0):
    """Take all room on the disk of `folder` but `left` bytes."""
    with suppress(OSError), (folder / "ballast").open("wb", buffering=0) as file:
        while shutil.disk_usage(folder).free > left:
            file.write(bytes(min(4096, shutil.disk_usage(folder).free - left)))


def fill_at(folder, left, when, step, denoiser):
    if step == when:
        fill(folder, left)


def test_a_checkpoint_without_room_ends_the_run_and_the_one_before_is_whole(small_disk):
    folder, undisturbed = small_disk / "run", small_disk.parent / "undisturbed"
    big = partial(DenseDenoiser, hidden=4000)
    whole = arrays_of(toy_train(undisturbed, run=RUN, make_denoiser=big))
    run, fill_then = replace(RUN, sample_every=5), partial(fill_at, small_disk, LEFT, 5)
    said = r"could not save a checkpoint .*; the last whole one is \S+/[45]: see that there is room"
    with pytest.raises(OSError, match=said):
        toy_train(folder, run=run, make_denoiser=big, sample_callback=fill_then)
    assert newest_step(folder) in (4, 5)
    assert load_for_sampling(folder, lambda _, key: big(key), make_mesh())[0].step in (4, 5)
    (small_disk / "ballast").unlink()
    resumed = arrays_of(toy_train(folder, run=RUN, make_denoiser=big))
    assert all(np.array_equal(resumed[name], whole[name]) for name in whole)
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["6", "8"]


def test_lines_and_pictures_without_room_are_done_without(small_disk, tmp_path, caplog):
    """The checkpoints lie on another disk, as they do where a bucket has room and this machine has none."""
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("samples", "tensorboard"):
        (small_disk / name).mkdir()
        (folder / name).symlink_to(small_disk / name)
    (small_disk / "metrics.jsonl").write_text("")

    def draw(step, denoiser):
        if step == 4:
            fill(small_disk)
        sheet = np.random.default_rng(step).integers(0, 256, (300, 300, 3), np.uint8)
        pictures.save(sheet, folder / "samples" / f"{step}.png")
        return sheet

    undisturbed = arrays_of(toy_train(tmp_path / "undisturbed", run=RUN))
    disturbed = arrays_of(toy_train(folder, run=replace(RUN, sample_every=2), sample_callback=draw))
    assert all(np.array_equal(disturbed[name], undisturbed[name]) for name in undisturbed)
    assert "drawing samples failed at step 4" in caplog.text
    assert "writing metrics failed" in caplog.text
    assert newest_step(folder) == 8
    assert list(losses_of(folder)) == list(range(1, 9))
    assert [path.name for path in (folder / "samples").iterdir()] == ["2.png"]
