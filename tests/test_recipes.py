"""What a preset is trained by unless told otherwise, what is held out, and how often the data is opened for it."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tyro
from PIL import Image as Pillow

from asyncpatch.config import from_json, to_json
from asyncpatch.data import Digits, Folds, IdxFiles, ImageFolder, image_folder, open_once
from asyncpatch.nn import PRESETS
from asyncpatch.runs import RECIPES, configure, open_batches, recipe
from asyncpatch.timesteps import Synchronous
from asyncpatch.train import OptimizerConfig
from experiments import train as command

ROOT = Path(command.__file__).parents[1]


def test_every_preset_has_a_recipe():
    assert RECIPES.keys() == PRESETS.keys()
    with pytest.raises(ValueError, match="no preset is called 'huge'"):
        recipe("huge")


@pytest.mark.parametrize("name", RECIPES)
def test_configure_goes_by_the_recipe_unless_told_otherwise(name):
    usual = RECIPES[name]
    side = None if name == "digits" else 32
    experiment = configure(Digits(), name, Synchronous(), pad_to=side)
    found = experiment.training.optimizer, experiment.data.batch_size, experiment.training.ema_decay
    assert found == (usual.optimizer, usual.batch_size, usual.ema_decay)
    other = {"optimizer": OptimizerConfig(0.5), "batch_size": 3, "ema_decay": 0.25}
    experiment = configure(Digits(), name, Synchronous(), pad_to=side, **other)
    assert (experiment.training.optimizer, experiment.data.batch_size, experiment.training.ema_decay) == tuple(
        other.values()
    )


def test_recipes_of_the_papers_sizes_are_the_papers():
    """Those of docs/theory.md."""
    said = (ROOT / "docs" / "theory.md").read_text()
    assert re.search(r"`b1 = \.9`, `b2 = \.99`, `eps = 1e-12`, rate 3e-5 after 10,000 steps", said)
    assert re.search(r"clipped at 1, moving average \.999 or \.9999, label dropout \.1, batch 512", said)
    for name in ("60m", "600m", "60m-transformer", "600m-transformer"):
        assert RECIPES[name].optimizer == OptimizerConfig(
            3e-5, 10_000, b1=0.9, b2=0.99, eps=1e-12, max_gradient_norm=1.0
        )
        assert (RECIPES[name].batch_size, RECIPES[name].ema_decay) == (512, 0.999)
        assert min(RECIPES[name].run.checkpoint_every, RECIPES[name].run.sample_every) >= 10_000


def asked_of(line: str, monkeypatch) -> dict:
    """What a command line comes to: the arguments of `configure` and `train_run`."""
    asked: dict = {}
    monkeypatch.setattr(command, "configure", lambda *given, **named: asked.update(named, data=given[0]))
    monkeypatch.setattr(command, "with_cooldown", lambda e, steps, share: asked.update(cooldown=share, cools_for=steps))
    monkeypatch.setattr(command, "train_run", lambda folder, experiment, run, **named: asked.update(named, run=run))
    arguments = line.split()
    tyro.cli(command.with_recipe(arguments), args=arguments)
    return asked


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("form", ["--preset {}", "--preset={}"])
def test_command_line_goes_by_the_recipe_and_overrides_any_part_of_it(name, form, monkeypatch):
    usual = RECIPES[name]
    asked = asked_of(f"FOLDER {form.format(name)}", monkeypatch)
    assert (asked["optimizer"], asked["batch_size"], asked["ema_decay"]) == (
        usual.optimizer,
        usual.batch_size,
        usual.ema_decay,
    )
    assert (asked["run"], asked["cooldown"], asked["cools_for"]) == (usual.run, 0.0, usual.run.steps)
    changes = "--optimizer.b1 0.5 --run.sample-every 7 --batch-size 3 --cooldown 0.25"
    asked = asked_of(f"FOLDER {form.format(name)} {changes}", monkeypatch)
    assert asked["optimizer"] == dataclasses.replace(usual.optimizer, b1=0.5)
    assert asked["run"] == dataclasses.replace(usual.run, sample_every=7)
    assert (asked["batch_size"], asked["ema_decay"], asked["cooldown"]) == (3, usual.ema_decay, 0.25)


def test_called_from_python_it_goes_by_the_recipe_too(monkeypatch, tmp_path):
    asked: dict = {}
    monkeypatch.setattr(
        command, "train_run", lambda folder, experiment, run, **named: asked.update(e=experiment, r=run)
    )
    command.main(tmp_path, preset="miniature", pad_to=32)
    assert asked["r"] == RECIPES["miniature"].run
    assert asked["e"].training.optimizer == RECIPES["miniature"].optimizer


@pytest.mark.parametrize(("line", "said"), [("--preset huge", "no preset is called 'huge'"), ("--preset", "preset")])
def test_presets_that_are_none_are_refused(line, said, tmp_path):
    arguments = [sys.executable, "-m", "experiments.train", str(tmp_path / "run"), *line.split()]
    ended = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode > 0
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


def test_held_out_share_and_set_of_its_own_can_be_said(monkeypatch):
    assert asked_of("FOLDER --held-out-one-in 4", monkeypatch)["held_out_one_in"] == 4
    asked = asked_of("FOLDER data:digits held-out:idx-files --held-out.images a --held-out.labels b", monkeypatch)
    assert (asked["data"], asked["held_out"]) == (Digits(), IdxFiles("a", "b"))


def test_held_out_images_are_a_share_or_a_set_of_their_own():
    shares = {None: 10, 4: 4}
    for one_in, count in shares.items():
        data = configure(Digits(), "digits", Synchronous(), held_out_one_in=one_in).data
        assert (data.held_out.count, data.held_out.chosen) == (count, (0,))
        assert len(open_once(data.source)) + len(open_once(data.held_out)) == 1797
    own = Folds(Digits(), 7, (3,))
    data = configure(Digits(), "digits", Synchronous(), held_out=own).data
    assert (data.source, data.held_out) == (Digits(), own)
    with pytest.raises(ValueError, match="got held-out images and held_out_one_in=4"):
        configure(Digits(), "digits", Synchronous(), held_out=own, held_out_one_in=4)
    for bad in (0, 1, -3):
        with pytest.raises(ValueError, match="one_in must be at least 2"):
            configure(Digits(), "digits", Synchronous(), held_out_one_in=bad)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Forty images in two classes."""
    for index in range(40):
        path = tmp_path / "images" / f"class{index % 2}" / f"{index:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Pillow.fromarray(np.full((8, 8, 3), index, np.uint8)).save(path)
    return tmp_path / "images"


def test_a_folder_is_opened_once_for_a_run(folder, monkeypatch):
    decoded, read = [], image_folder.read_image
    monkeypatch.setattr(image_folder, "read_image", lambda path, size: decoded.append(path) or read(path, size))
    experiment = configure(ImageFolder(str(folder), 8), "digits", Synchronous(), batch_size=4)
    assert len(decoded) == 40
    open_batches(experiment, 0)
    open_batches(experiment, 0)
    assert len(decoded) == 40 + 2 * 2, "one image of each part, for its shape"

    decoded.clear()
    read_back = from_json(to_json(experiment))
    open_batches(read_back, 0)
    len(open_once(read_back.data.held_out))
    assert len(decoded) == 40 + 2, "what comes from a file is opened anew, and once"


def test_a_new_source_looks_anew(folder):
    former = ImageFolder(str(folder), 8)
    assert len(open_once(former)) == 40
    (folder / "class0" / "00.png").unlink()
    assert len(open_once(former)) == 40
    assert len(open_once(ImageFolder(str(folder), 8))) == 39
