"""A run in a bucket: the same files and numbers as on a disk, and a lock that a death opens."""

import gzip
import json
import logging
import struct
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from toy_bucket import open_bucket
from toy_training import TOY_RUN, DenseDenoiser, ToyData, arrays_of, toy_errors, toy_train

from asyncpatch import pictures
from asyncpatch.config import ConfigError
from asyncpatch.data import ArrayRecords, Digits, IdxFiles, write_array_records
from asyncpatch.data.idx import IMAGES_MAGIC, LABELS_MAGIC
from asyncpatch.places import place
from asyncpatch.runs import open_run
from asyncpatch.train import (
    FolderInUseError,
    Validation,
    best_step,
    lease,
    load_for_sampling,
    make_mesh,
    newest_step,
    read_metrics,
)
from asyncpatch.train.folder import LOCK_FILE, held

HOME = "gs://mine/runs/toy"
RUN = replace(TOY_RUN, steps=8, keep_last=2, checkpoint_every=2)
SHARED = Validation(ToyData(), toy_errors)


@pytest.fixture
def bucket(monkeypatch):
    with open_bucket(monkeypatch) as bucket:
        yield bucket


def draw(step, denoiser):
    sheet = np.full((4, 4, 3), step, np.uint8)
    pictures.save(sheet, place(HOME) / "samples" / f"{step}.png")
    return sheet


def test_a_run_goes_on_in_a_bucket_to_the_numbers_of_one_on_disk(bucket, tmp_path):
    whole = toy_train(tmp_path, run=RUN, validation=SHARED)
    pictured = {"validation": SHARED, "sample_callback": draw}
    toy_train(HOME, run=replace(RUN, steps=4, sample_every=4), **pictured)
    assert newest_step(HOME) == 4
    # What a kill in the middle of a checkpoint leaves: a folder with its final name, but for what is written last.
    for name in bucket.under("mine/runs/toy/checkpoints/4/"):
        if name != "mine/runs/toy/checkpoints/4/commit_success.txt":
            bucket.put(name.replace("/4/", "/6/"), bucket.objects[name][0])
    assert newest_step(HOME) == 4
    state = toy_train(HOME, run=replace(RUN, sample_every=4), **pictured)
    ours, theirs = arrays_of(state), arrays_of(whole)
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)
    kept = {name.split("/")[4] for name in bucket.under("mine/runs/toy/checkpoints/")}
    assert {"6", "8"} <= kept == {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert not bucket.under("mine/runs/toy/damaged")
    here, there = ([(v["step"], v.get("loss")) for v in read_metrics(place(p))] for p in (tmp_path, HOME))
    assert here == there
    assert len(bucket.under("mine/runs/toy/tensorboard/")) == 2
    assert len(bucket.under("mine/runs/toy/samples/")) == 2
    assert json.loads(bucket.objects["mine/runs/toy/config.json"][0])
    assert bucket.objects[f"mine/runs/toy/{LOCK_FILE}"][0] == b""
    assert best_step(HOME) == best_step(tmp_path)
    saved, denoiser = load_for_sampling(HOME, lambda _, key: DenseDenoiser(key), make_mesh())
    assert saved.step == 8
    assert np.array_equal(denoiser.inner, state.ema.inner)


# Orbax leaves the other reads of a checkpoint alone when one fails, and they find their event loop closed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_damaged_checkpoint_in_a_bucket_is_set_aside(bucket, caplog):
    toy_train(HOME, run=replace(RUN, steps=4))
    broken = next(name for name in bucket.under("mine/runs/toy/checkpoints/4/ema/") if "manifest" in name)
    bucket.put(broken, bucket.objects[broken][0][:3])
    toy_train(HOME, run=replace(RUN, steps=4))
    assert "fell back to gs://mine/runs/toy/checkpoints/2" in caplog.text
    assert bucket.under("mine/runs/toy/damaged/4-")
    assert newest_step(HOME) == 4


def test_what_is_opened_in_a_bucket_is_read_from_there(bucket):
    toy_train(HOME, run=replace(RUN, steps=1))
    with pytest.raises(ConfigError, match="the folder holds the config of a tuple"):
        open_run(HOME)
    with pytest.raises(FileNotFoundError, match="there is no run at gs://mine/other"):
        open_run("gs://mine/other")


def test_an_address_that_lost_a_slash_is_said():
    with pytest.raises(ValueError, match="lost a slash"):
        place(Path("gs://mine/runs"))


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(lease, "BEAT", 0.05)
    monkeypatch.setattr(lease, "PATIENCE", 0.5)


def test_of_two_trainings_in_a_bucket_one_is_refused_and_told_of_the_other(bucket, quick):
    with held(place(HOME)) as check:
        refused = pytest.raises(FolderInUseError, match=r"process \d+ on \S+, since 20\S+ \S+, trains in it")
        with refused, held(place(HOME)):
            pass
        check()
    with held(place(HOME)):
        pass


def test_a_dead_trainings_lock_is_taken_and_by_one_alone(bucket, quick, caplog):
    bucket.put(f"mine/runs/toy/{LOCK_FILE}", b'{"pid": 1, "host": "dead", "since": "2020-01-01 00:00:00"}')
    ended, refused = threading.Event(), []

    def try_it():
        try:
            with held(place(HOME)):
                ended.wait(10)
        except FolderInUseError as error:
            refused.append(error)
            ended.set()

    others = [threading.Thread(target=try_it) for _ in range(2)]
    for other in others:
        other.start()
    for other in others:
        other.join()
    assert len(refused) == 1
    assert "its holder is dead" in caplog.text


def test_a_training_that_lost_its_lock_stops_before_it_saves_again(bucket, quick, caplog):
    caplog.set_level(logging.WARNING)

    def steal(step, denoiser):
        if step == 4:
            bucket.put(f"mine/runs/toy/{LOCK_FILE}", b"{}")
            threading.Event().wait(0.5)

    with pytest.raises(FolderInUseError, match="another training took it"):
        toy_train(HOME, run=replace(RUN, sample_every=4), sample_callback=steal)
    assert newest_step(HOME) == 4
    assert bucket.objects[f"mine/runs/toy/{LOCK_FILE}"][0] == b"{}"


def test_data_in_a_bucket_is_copied_once_and_anew_when_it_changed(bucket, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("ASYNCPATCH_DATA", str(tmp_path / "copies"))
    write_array_records(Digits(), tmp_path / "digits", shards=2)
    for path in (tmp_path / "digits").iterdir():
        bucket.put(f"mine/data/digits/{path.name}", path.read_bytes())
    for _ in range(2):
        records = ArrayRecords("gs://mine/data/digits").open()
        assert np.array_equal(records[1234]["image"], Digits().open()[1234]["image"])
    assert caplog.text.count("copying") == 1
    bucket.put("mine/data/digits/more", b"x")
    ArrayRecords("gs://mine/data/digits").open()
    assert caplog.text.count("copying") == 2
    assert len(list((tmp_path / "copies").iterdir())) == 2
    with pytest.raises(FileNotFoundError, match="nothing at gs://mine/none"):
        ArrayRecords("gs://mine/none").open()


def test_idx_files_are_read_from_a_bucket(bucket):
    images = struct.pack(">4I", IMAGES_MAGIC, 2, 1, 3) + bytes(range(6))
    bucket.put("mine/images.gz", gzip.compress(images))
    bucket.put("mine/labels", struct.pack(">2I", LABELS_MAGIC, 2) + bytes([1, 0]))
    records = IdxFiles("gs://mine/images.gz", "gs://mine/labels").open()
    assert records[1]["image"].ravel().tolist() == [3, 4, 5]
    with pytest.raises(FileNotFoundError, match="no IDX file at gs://mine/no"):
        IdxFiles("gs://mine/no", "gs://mine/labels").open()
