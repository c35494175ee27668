"""The table of laws: which rows it asks for, how it fills itself, and what its rows say of claims over training."""

import dataclasses
import shutil

import numpy as np
import pytest

from asyncpatch.config import to_json
from asyncpatch.data import Digits
from asyncpatch.masks import Thin
from asyncpatch.sampling import repaint_times
from asyncpatch.timesteps import Independent, Synchronous
from asyncpatch.train import newest_step
from experiments.parts.judges import Judging
from experiments.parts.law_claims import generation_claims, inpainting_claims
from experiments.parts.law_curves import draw_curves, length_names, over_training
from experiments.parts.law_pictures import describe_laws
from experiments.parts.law_settings import settled
from experiments.parts.law_table import (
    AT_LENGTH,
    CLAIMED,
    FURTHER,
    REPAINT,
    REPAINTS,
    SCALES,
    SEEDS,
    Job,
    asked,
    candidates,
    jobs,
    laws,
)
from experiments.parts.rows import (
    Generation,
    Inpainting,
    RePaint,
    Replacement,
    Steps,
    Together,
    read_rows,
)
from experiments.timestep_sampling import configuration, fill_row, is_whole, report

FEW = Steps(steps=2)


def test_rows_differ_by_their_law_alone():
    scale = dataclasses.replace(SCALES["miniature"], preset="digits", side=8)
    one, other = (configuration(scale, Digits(), law, 1) for law in list(laws(8).values())[:2])
    assert dataclasses.replace(one, timesteps=other.timesteps) == other


def test_description_of_laws_counts_what_the_laws_promise(tmp_path):
    found = describe_laws({"one": Synchronous(), "each": Independent()}, 8, tmp_path / "laws.png")
    shares = {name: [float(cell.rstrip("%")) for cell in cells] for name, *cells in found.lines}
    assert (tmp_path / "laws.png").is_file()
    assert np.allclose(shares["one"][:4], 5, atol=1.5)
    assert shares["one"][4] == 0
    assert shares["one"][6:] == [100, 0]
    assert np.allclose(shares["each"][:2], 5, atol=0.3)
    assert shares["each"][2:4] == [0, 0]
    assert abs(shares["each"][4] - 12**-0.5) < 0.005
    assert abs(shares["one"][5] - 1) < 0.05, "both laws have uniform times, and thus the same weight"
    assert abs(shares["each"][5] - 1) < 0.02
    assert shares["each"][6] == 0
    assert shares["each"][7] < 1


def test_the_table_has_the_laws_and_seeds_that_its_claims_need():
    wanted = jobs("laws", SCALES["miniature"])
    assert len(wanted) == len(set(wanted)) == (len(CLAIMED) + 1) * len(SEEDS) + 3
    assert {job.name for job in wanted} == {*laws(32), REPAINT}
    assert [job.name for job in wanted[: len(CLAIMED)]] == list(CLAIMED)
    assert {job.look for job in wanted} == {1.0}


def test_tuning_looks_at_no_seed_that_is_reported():
    wanted = jobs("tuning", SCALES["miniature"])
    assert {job.seed for job in wanted}.isdisjoint(SEEDS)
    assert {job.name for job in wanted} == {"synchronous", *candidates(32)}
    assert laws(32)["environment"] in candidates(32).values()


def test_claims_begin_with_the_last_look():
    """The verdicts come first, and RePaint after the training that it needs; every look has its checkpoint."""
    scale = SCALES["million"]
    wanted = jobs("claims", scale)
    assert len(wanted) == len(set(wanted)) == len(set(map(str, wanted)))
    assert (
        {job.name for job in wanted if job.seed == SEEDS[0]} == set(AT_LENGTH) <= {*laws(16), *candidates(16), REPAINT}
    )
    assert {job.name for job in wanted if job.seed != SEEDS[0]} == set(FURTHER)
    assert [job.name for job in wanted if job.look == 1.0][: len(AT_LENGTH)] == list(AT_LENGTH)
    assert [job.look for job in wanted[:: len(AT_LENGTH)]][:4] == sorted(scale.looks, reverse=True)
    trained: set[tuple[str, float]] = set()
    for job in wanted:
        assert job.name != REPAINT or (job.run, job.look) in trained
        trained.add((job.run, job.look))
    assert scale.steps_at(1.0) * scale.batch_size >= 1_000_000
    assert all(scale.steps_at(look) % scale.checkpoint_every == 0 for look in scale.looks)


def at_length(run, step, value, method=None, seed=0):
    """A row of a run after some steps of 64 images."""
    task = {"type": "Generation"} if method is None else {"masks": {"type": "Square"}, "method": {"type": method}}
    training = {"seed": seed}
    return {
        "run": f"{run}-{seed}",
        "step": step,
        "task": task,
        "experiment": {"training": training, "data": {"batch_size": 64}, "timesteps": {"type": run}},
        "how": to_json(Steps()),
        "calls_per_image": 210,
        "values": {"FD-classifier": {"value": value, "standard_error": None}},
    }


def test_claims_over_training_are_followed_and_led_on(tmp_path):
    """A ratio that falls as the square root of the images is said to fall so once more."""
    steps = (16, 32, 64)
    rows = [at_length("Synchronous", step, 10.0, seed=seed) for step in steps for seed in (0, 1)]
    rows += [at_length("AsyncPatch", step, 80 / step**0.5, seed=seed) for step in steps for seed in (0, 1)]
    rows += [at_length("Synchronous", 64, 4.0, "RePaint"), at_length("AsyncPatch", 64, 2.0, "Together")]
    # Of a seed that early looks lack: it counts at its look, and bends no line.
    rows += [at_length("Synchronous", 64, 10.0, seed=2), at_length("AsyncPatch", 64, 16.0, seed=2)]
    repaint = "Synchronous, RePaint in 210 calls"
    claims = generation_claims("FD-classifier") + inpainting_claims(["FD-classifier"], [repaint])
    found = over_training(rows, claims)
    assert found.head[2:] == (
        "after 1,024 images",
        "after 2,048 images",
        "after 4,096 images",
        "extrapolated to twice that",
    )
    lines = {line[:2]: line[2:] for line in found.lines}
    ratio = lines["generation", "FD-classifier of AsyncPatch / Synchronous is below 1.05"]
    assert [cell.split()[0] for cell in ratio] == ["2.000", "1.414", "1.170", "0.71"]
    assert "that every look has (0, 1)" in found.note
    filled = lines["inpainting, square", "FD-classifier of AsyncPatch / Synchronous, RePaint in 210 calls is below 1"]
    assert filled == ("-", "-", "0.500", "-")
    assert len(lines) == 2, "claims that no two rows speak of are left out"
    assert draw_curves(rows, "FD-classifier", tmp_path / "curves.png").is_file()


def test_a_table_at_several_looks_fills_itself_and_goes_on(digits_judge, tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.parts.law_table.MASKS", {"thin": Thin()})
    monkeypatch.setattr("experiments.parts.law_pictures.FIELDS", 50)
    baselines = ((RePaint(), Steps(steps=10)), (Replacement(), FEW), (RePaint(1, 2), FEW))
    scale = dataclasses.replace(SCALES["million"], preset="digits", side=8, shrink=1, steps=4, batch_size=4)
    scale = dataclasses.replace(scale, generated=4, completed=2, generating=FEW, baselines=baselines)
    scale = dataclasses.replace(scale, completing=((Together(), FEW),), looks=(0.5, 1.0), cooldown=0.5)
    by = Judging(digits_judge)
    # Looks may come after the network's last step, and the baseline after them: each is of its look's network.
    for name in ("synchronous", REPAINT):
        for look in (1.0, 0.5):
            fill_row(tmp_path, scale, Digits(), Job(name, 0, look), "claims", by)
    rows = read_rows(tmp_path / "rows.jsonl")
    assert [row["step"] for row in rows] == [6, 6, 3, 3, 6, 6, 6, 3, 3, 3]
    assert newest_step(tmp_path / "synchronous-0") == 4, "copies cool, and the network itself does not"
    assert {row["run"] for row in rows if row["step"] == 3} == {"synchronous-0-cooled-0.5"}
    last = [row["experiment"]["training"]["cooldown"] for row in rows if row["step"] == 6]
    assert all(cooldown == {"type": "Cooldown", "start": 4, "steps": 2} for cooldown in last)
    assert len(list(tmp_path.glob("*.done"))) == 4
    first = Job("synchronous", 0)
    assert is_whole(tmp_path, first, scale, "claims", by)
    assert not is_whole(tmp_path, Job("async-patch", 0), scale, "claims", by)
    more = dataclasses.replace(scale, completing=(*scale.completing, (Together(), dataclasses.replace(FEW, steps=3))))
    assert not is_whole(tmp_path, first, more, "claims", by), "what is asked for later would be hidden"
    assert not is_whole(tmp_path, first, scale, "claims", dataclasses.replace(by, lpips=tmp_path / "alexnet.ckpt"))
    names = {"Synchronous", "Synchronous, Replacement"}
    assert names < set(length_names(rows))
    assert len(set(length_names(rows))) == 4
    fill_row(tmp_path, scale, Digits(), Job(REPAINT, 0, 1.0), "claims", by)
    assert read_rows(tmp_path / "rows.jsonl") == rows
    for lost in ("synchronous-0/checkpoints/2", "synchronous-0-cooled-0.5"):
        shutil.rmtree(tmp_path / lost)
    with pytest.raises(FileNotFoundError, match=r"synchronous-0 has gone beyond checkpoints/2 and lost it"):
        fill_row(tmp_path, scale, Digits(), Job("synchronous", 0, 0.5), "claims", by)
    page = report(tmp_path, scale, "million", "claims").parent
    assert (page / "curves_FD-classifier.png").is_file()
    text = (page / "report.md").read_text()
    assert "after 12 images | after 24 images" in text
    assert "step 3," not in text


def test_networks_complete_images_in_several_ways_that_cost_the_same():
    def ways(name):
        tasks = asked(Job(name, 0), SCALES["million"], "claims")
        return [(task.method, how) for task, how in tasks if isinstance(task, Inpainting)]

    assert {how.calls for _, how in ways("regions")} == {40}
    assert len(ways("regions")) == 3 * len(ways("perlin")), "plain, trailing, guided"
    assert all(method == Together() and how.input_guidance == 0 for method, how in ways("perlin"))


def test_settings_are_put_in_order_on_a_seed_that_is_not_reported(tmp_path):
    scale = SCALES["million"]
    wanted = jobs("settings", scale)
    assert {job.seed for job in wanted}.isdisjoint(SEEDS)
    calls = [len(repaint_times(how.steps, it.jump_length, it.resamplings).before) for it, how in REPAINTS]
    assert all(190 <= made <= 210 for made in calls[:3])
    assert all(36 <= made <= 40 for made in calls[3:])
    rows = []
    for job in wanted:
        tried = asked(job, scale, "settings")
        assert len(set(tried)) == len(tried)
        assert {how.seed for _, how in tried} == {job.seed}
        # What is settled for the claims is among what was tried.
        for task, how in asked(job, scale, "claims"):
            count = 2500 if isinstance(task, Generation) else 500
            assert (dataclasses.replace(task, count=count), how) in tried
        for at, (task, how) in enumerate(tried):
            row = at_length("AsyncPatch", 4096, 99.0 - at)
            row |= {"task": to_json(task), "how": to_json(how)}
            row["values"] |= {} if isinstance(task, Generation) else {"LPIPS": {"value": (at % 5) / 10}}
            rows.append(row)
    found = settled(rows)
    methods = {line[0] for line in found.lines}
    assert {"generation, AsyncPatch", "inpainting, AsyncPatch", "inpainting, AsyncPatch, Trailing"} < methods
    assert "inpainting, AsyncPatch, guided" in methods
    for method in methods:
        values = [float(line[2 if method.startswith("generation") else 3]) for line in found.lines if line[0] == method]
        assert len(values) >= 3
        assert values == sorted(values)
    assert ("30 levels, 10 times over 10") in {line[1] for line in found.lines}
