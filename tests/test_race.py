"""The race, run small: who took part, what was seen of it, and that it goes on."""

import json

import pytest
from PIL import Image as Pillow

from asyncpatch.data import Digits
from asyncpatch.train import OptimizerConfig
from experiments import race
from experiments.race import Runner


@pytest.fixture
def small(monkeypatch):
    """Two short runs on digits instead of garments."""
    monkeypatch.setattr(race, "SIDE", 8)
    monkeypatch.setattr(race, "PROBE", 20)
    monkeypatch.setattr(race, "JUDGED", 16)
    monkeypatch.setattr(race, "LOOKS", 3)
    monkeypatch.setattr(
        race,
        "RUNNERS",
        {"one": Runner("digits", 8, OptimizerConfig(1e-3, 5)), "other": Runner("digits", 16, OptimizerConfig(1e-3, 5))},
    )


def test_networks_are_compared_by_seconds_of_training(small, tmp_path, monkeypatch):
    rows = race.main(tmp_path, seconds=0.2, data=Digits(), only=("one", "other"))
    assert [row["network"] for row in rows] == ["one", "other"]
    for row in rows:
        seconds, images = ([point[name] for point in row["seen"]] for name in ("seconds", "images"))
        assert seconds == sorted(seconds)
        assert images == sorted(images)
        assert images[-1] % row["batch"] == 0
    with Pillow.open(tmp_path / "race.png") as picture:
        assert picture.width > 500
    kept = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert kept == rows

    first, second = rows
    monkeypatch.setattr(race, "LOOKS", 13)  # which makes the shortest race ten steps longer
    longer, untouched = race.main(tmp_path, seconds=0.2, data=Digits(), only=("one",))
    assert longer["seen"][-1]["images"] == first["seen"][-1]["images"] + 80
    images = [point["images"] for point in longer["seen"]]
    assert images == sorted(set(images))
    assert untouched == second


def test_seconds_are_those_of_training_alone():
    """Twenty steps of 8 images at 80 and then at 40 images a second; what happens at a validation is not counted."""
    lines = [
        {"step": 20, "images_per_second": 80.0},
        {"step": 20, "validation_loss": 0.5},
        {"step": 40, "images_per_second": 40.0},
        {"step": 40, "validation_loss": 0.4},
    ]
    assert race._seen(lines, 8) == [
        {"seconds": 2.0, "images": 160, "loss": 0.5},
        {"seconds": 6.0, "images": 320, "loss": 0.4},
    ]


@pytest.mark.parametrize(("only", "seconds"), [(("nobody",), 1.0), (("one",), 0.0), (("one",), float("nan"))])
def test_unknown_networks_and_no_seconds_are_refused(small, tmp_path, only, seconds):
    with pytest.raises(ValueError, match="networks are called 'one', 'other'"):
        race.main(tmp_path / "race", seconds=seconds, data=Digits(), only=only)
    assert not (tmp_path / "race").exists()
