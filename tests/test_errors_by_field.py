"""Errors on the fields that tasks visit: which tokens count, and at which times."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from asyncpatch.noise_schedule import RectifiedFlow
from asyncpatch.process import FiniteDenoiser
from asyncpatch.runs import open_run
from experiments.errors_by_field import KINDS, MIDDLE, NOISE, SHARE, TIMES, distances_by_error, errors, fields_of, main

SIDE, COUNT = 8, 4


@pytest.mark.parametrize("kind", KINDS)
def test_fields_are_those_of_the_task(kind):
    shares, made = fields_of(kind, COUNT, SIDE, SIDE)
    assert shares.shape == made.shape == (COUNT, SIDE, SIDE)
    assert (shares[made] == 1).all()
    assert made.any(axis=(1, 2)).all()
    others = set(np.unique(shares[~made]))
    if kind == "one time":
        assert not others
    elif kind == "raster":
        assert others <= {0.0, NOISE}
        assert (made.sum(axis=(1, 2)) == 4).all()
        assert (
            np.diff(np.where(made, 1.0, shares).reshape(COUNT, 4, 2, 4, 2)[:, :, 0, :, 0].reshape(COUNT, 16)) >= 0
        ).all()
    else:
        assert others == {SHARE if kind.endswith("trailing") else 0.0}


def test_a_denoiser_that_knows_the_image_makes_no_error_and_another_one_does():
    image = np.random.default_rng(0).uniform(-1, 1, (1, SIDE, SIDE, 1)).astype(np.float32)
    images, labels = np.repeat(image, COUNT, axis=0), np.zeros(COUNT, np.int32)
    for kind in ("one time", "square, trailing", "raster"):
        right, wrong = (
            errors(FiniteDenoiser(jnp.asarray(points), RectifiedFlow()), kind, images, labels)
            for points in (image, image + 0.5)
        )
        assert list(right) == [f"{time:g}" for time in TIMES]
        for time in right:
            assert right[time].value < 1e-9
            # Given z, an image that is wrong by 1/2 makes the velocity, noise less image, wrong by 1/2 over t.
            assert wrong[time].value == pytest.approx(0.25 / float(time) ** 2, rel=1e-3)


def test_rows_are_made_once_and_drawn(digits_run, tmp_path, monkeypatch):
    rows = main((digits_run,), tmp_path, COUNT)
    assert [row["kind"] for row in rows] == list(KINDS)
    assert all(row["values"]["0.5"]["standard_error"] > 0 for row in rows)
    assert main((digits_run,), tmp_path, COUNT) == rows
    assert "| one time |" in (tmp_path / "errors.md").read_text()
    assert (tmp_path / "errors.png").is_file()
    with pytest.raises(ValueError, match="at least 2 images"):
        main((digits_run,), tmp_path, 1)
    with pytest.raises(ValueError, match="at least one run"):
        main((), tmp_path, COUNT)
    hashes = iter("abcdefghijklmnopqrstuvwxyz")
    monkeypatch.setattr("experiments.errors_by_field.hash_images", lambda images: next(hashes))
    with pytest.raises(ValueError, match="do not hold out the same images"):
        main((digits_run,), tmp_path, COUNT)


def test_the_distance_at_generation_is_drawn_against_the_error_on_fields_of_one_time(digits_run, tmp_path):
    step = open_run(digits_run).step
    generated = [
        {
            "run": name,
            "step": step,
            "task": {"type": "Generation"},
            "values": {"FD-a": {"value": 3.0, "standard_error": None}},
        }
        for name in (digits_run.name, "another-run")
    ]
    file = tmp_path / "generated.jsonl"
    with pytest.raises(ValueError, match="no row of generation"):
        main((digits_run,), tmp_path, COUNT, evaluated=file)
    file.write_text("".join(json.dumps(row) + "\n" for row in generated))
    rows = main((digits_run,), tmp_path, COUNT, steps=(step,), evaluated=file)
    assert {row["step"] for row in rows} == {step}
    assert (tmp_path / "distance.png").is_file()
    error = np.exp(np.mean([np.log(rows[0]["values"][f"{time:g}"]["value"]) for time in MIDDLE]))
    found = distances_by_error(rows, generated)
    assert found == {"FD-a": {digits_run.name: [(pytest.approx(error), 3.0)]}}
    file.write_text(json.dumps(generated[1]) + "\n")
    with pytest.raises(ValueError, match="other runs or steps"):
        main((digits_run,), tmp_path, COUNT, evaluated=file)
