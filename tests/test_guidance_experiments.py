"""The commands that measure guidance and the plans against RePaint, called small; and how their tables are made."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from asyncpatch.config import to_json
from asyncpatch.masks import Square
from asyncpatch.metrics import save_classifier, train_classifier
from experiments import against_repaint, guidance
from experiments.parts.judges import read_images
from experiments.parts.rows import Inpainting, Steps, short_hash
from experiments.parts.sweep import Setting, differences, evaluate_all
from experiments.parts.tables import finding_markdown

FEW = Steps(steps=2)


@pytest.fixture(scope="module")
def output(digits_experiment, tmp_path_factory):
    """A folder for rows, with a classifier beside them that was hardly trained."""
    folder = tmp_path_factory.mktemp("rows")
    images, labels = read_images(digits_experiment, digits_experiment.data.source, 256)
    classifier = train_classifier(images, labels, 10, seed=0, steps=5)
    save_classifier(folder / f"classifier-{short_hash(to_json(digits_experiment.data))}.npz", classifier)
    return folder


@pytest.fixture(scope="module")
def no_weights():
    """As on a machine without the weights of LPIPS: the commands measure what they can."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("importlib.util.find_spec", lambda name: None)
        yield


@pytest.mark.usefixtures("no_weights")
def test_tables_and_curves_of_guidance(digits_run, output, monkeypatch):
    monkeypatch.setattr(guidance, "INPUT_WEIGHTS", (0.0, 1.0))
    monkeypatch.setattr(guidance, "LABEL_WEIGHTS", (1.0, 2.0))
    monkeypatch.setattr(guidance, "Steps", lambda **options: dataclasses.replace(FEW, **options))
    kinds = {"label": "weight 2 | 4 | 2 |", "input": "wide, weight 1 | 4 | 2 |"}
    for part, line in kinds.items():
        page = guidance.guidance(output, str(digits_run), part, generated=8, completed=4, seeds=2)
        assert line in page.read_text(encoding="utf-8")
    assert np.asarray(Image.open(output / "input_guidance.png")).std() > 10


@pytest.mark.usefixtures("no_weights")
def test_plans_against_repaint(digits_run, output, monkeypatch):
    monkeypatch.setattr(against_repaint, "LEVELS", 5)
    monkeypatch.setattr(against_repaint, "METHOD", against_repaint.RePaint(2, 2))
    monkeypatch.setattr(against_repaint, "SHARES", {"all": 1, "a half": 2})
    monkeypatch.setattr(against_repaint, "GUIDED", 4)
    page = against_repaint.against_repaint(output, str(digits_run), completed=4, seeds=1).read_text(encoding="utf-8")
    calls = against_repaint.calls()
    assert f"| square, RePaint | {calls} | 1 |" in page
    assert f"| thin, a plan of a half of the calls | {calls // 2} | 1 |" in page
    guided = calls // 4 * 2
    assert f"| wide, a guided plan of {guided / calls:.0%} of the calls | {guided} | 1 |" in page
    assert np.asarray(Image.open(output / "against_repaint.png")).std() > 10


def test_differences_are_told_seed_by_seed():
    """Two settings whose values scatter by 10 from seed to seed and differ by 1 in each: that has no error."""
    settings = [Setting(f"weight {w}", "run", Inpainting(Square(), 4), Steps(input_guidance=w)) for w in (0.0, 1.0)]
    found = [
        [{"values": {"PSNR": {"value": 10.0 * seed + w}}, "calls_per_image": 2} for seed in range(3)] for w in (0, 1)
    ]
    page = finding_markdown(differences("A title", settings, found, ["PSNR"], lambda _: 0, ""))
    assert "| weight 0.0 | 2 | 3 | 10 ± 5.8 |" in page
    assert "| weight 1.0 | 2 | 3 | 11 ± 5.8 (+1 ± 0) |" in page


def test_rows_that_are_there_are_not_made_again(digits_run, output, capsys):
    setting = Setting("plain", str(digits_run), Inpainting(Square(), 4), FEW)
    first = evaluate_all(output / "rows.jsonl", [setting], [3], None)
    again = evaluate_all(output / "rows.jsonl", [setting], [3, 4], None)
    assert first[0][0] == again[0][0]
    assert [row["how"]["seed"] for row in again[0]] == [3, 4]
    assert capsys.readouterr().out.count("holds this row already") == 1


def test_the_supervised_inpainter_is_configured_for_all_mask_families():
    names = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz")
    folder = Path(guidance.DEBIAN_FOLDER)
    if not all((folder / name).is_file() for name in names):
        pytest.skip("needs the files of Fashion-MNIST")
    experiment = guidance.inpainter(folder, 0)
    assert experiment.network.channels == 1
    assert experiment.timesteps.dropped == guidance.DROPPED
    assert len(experiment.timesteps.mask_law.laws) == 4
