"""What days of training need: a clock, traces, figures to choose by, and an end that can be gone on from."""

import gzip
import json
import os
import re
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from toy_features import DIGITS, Projection
from toy_training import TOY_RUN, ToyData, arrays_of, toy_errors, toy_train

from asyncpatch.noise_schedule import RectifiedFlow
from asyncpatch.process import FiniteDenoiser
from asyncpatch.runs import SamplingConfig
from asyncpatch.runs.evaluating import evaluation
from asyncpatch.train import Evaluation, Validation, best_step, read_metrics
from asyncpatch.train.whole import paths_in

RUN = replace(TOY_RUN, steps=6, log_every=2, checkpoint_every=2, keep_last=1, keep_best=1)


def test_every_line_has_the_time_and_the_seconds_of_all_sessions(tmp_path):
    began = datetime.now(UTC).replace(microsecond=0)
    toy_train(tmp_path, run=replace(RUN, steps=4))
    first = read_metrics(tmp_path)
    toy_train(tmp_path, run=RUN)
    lines = read_metrics(tmp_path)
    assert lines[: len(first)] == first
    seconds = [line["seconds"] for line in lines]
    assert seconds == sorted(seconds)
    assert seconds[-1] > first[-1]["seconds"] > 0
    assert all(began <= datetime.fromisoformat(line["time"]) <= datetime.now(UTC) for line in lines)
    reports = [line for line in lines if "loss" in line]
    assert all(0 <= line[name] <= 1 for line in reports for name in ("waiting_share", "away_share"))
    assert [line["step"] for line in reports if "checkpoint_seconds" in line] == [4]


def test_waiting_for_data_is_told_from_training(tmp_path):
    steady = replace(RUN, steps=8, checkpoint_every=1000)
    toy_train(tmp_path / "slow", run=steady, data=ToyData(pause=0.1))
    toy_train(tmp_path / "quick", run=steady)
    slow, quick = (
        np.median([line["waiting_share"] for line in read_metrics(tmp_path / name)[2:] if "loss" in line])
        for name in ("slow", "quick")
    )
    assert slow > max(0.5, quick)


def test_metrics_of_a_release_without_a_clock_are_read_and_gone_on_with(run):
    old = [{"step": line["step"], "loss": line["loss"]} for line in read_metrics(run)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in old))
    toy_train(run, run=replace(TOY_RUN, steps=9))
    lines = read_metrics(run)
    assert lines[:8] == old
    assert 0 < lines[8]["seconds"] < 600


def test_a_trace_of_a_few_steps_lies_where_it_is_said_and_changes_no_number(tmp_path, capsys):
    plain = toy_train(tmp_path / "plain", run=RUN)
    traced = toy_train(tmp_path / "traced", run=RUN, traced=2)
    assert all(np.array_equal(a, b) for a, b in zip(*(arrays_of(s).values() for s in (plain, traced)), strict=True))
    folder = tmp_path / "traced" / "profile"
    assert f"traced steps lie in {folder}" in capsys.readouterr().err
    assert list(folder.rglob("*.xplane.pb"))
    events = json.loads(gzip.decompress(next(folder.rglob("perfetto_trace.json.gz")).read_bytes()))["traceEvents"]
    assert {str(e["args"]["step_num"]) for e in events if e.get("name") == "train" and "args" in e} == {"4", "5"}
    assert not (tmp_path / "plain" / "profile").exists()


def test_the_best_checkpoint_is_that_of_the_evaluation_and_not_of_the_loss(tmp_path):
    figures = {2: 3.0, 4: 1.0, 6: 2.0}
    chosen = Evaluation("FD-toy/9-images", 2, lambda step, denoiser: figures[step])
    toy_train(tmp_path, run=RUN, validation=Validation(ToyData(), toy_errors), evaluation=chosen)
    assert [path.name for path in paths_in(tmp_path)] == ["6", "4"]
    assert best_step(tmp_path, chosen.name) == 4
    assert best_step(tmp_path) == 6
    assert best_step(tmp_path, "FD-other") is None
    told = {line["step"]: line[chosen.name] for line in read_metrics(tmp_path) if chosen.name in line}
    assert told == figures


def test_an_evaluation_that_fails_is_logged_and_ends_nothing(tmp_path, caplog):
    def fail(step, denoiser):
        raise ZeroDivisionError("no distance")

    undisturbed = arrays_of(toy_train(tmp_path / "without", run=RUN))
    with_it = arrays_of(toy_train(tmp_path / "with", run=RUN, evaluation=Evaluation("FD", 3, fail)))
    assert all(np.array_equal(with_it[name], undisturbed[name]) for name in undisturbed)
    assert "evaluation failed at step 3" in caplog.text
    assert best_step(tmp_path / "with", "FD") is None


def test_the_frechet_distance_of_a_training_tells_good_from_bad_and_names_its_network(digits_experiment):
    network = Projection.draw(8)
    chosen = evaluation(digits_experiment, network, SamplingConfig(steps=4, guidance=1.0), every=5, images=96)
    assert chosen.name == f"FD-{network.name}/96-images-{network.hash[:8]}"
    many, one = (FiniteDenoiser(jnp.asarray(points), RectifiedFlow()) for points in (DIGITS[:200], DIGITS[:1]))
    good, bad = chosen.measure(1, many), chosen.measure(2, one)
    assert 0 < good < bad / 4
    assert good == chosen.measure(3, many)
    with pytest.raises(ValueError, match="asked for 100000 images"):
        evaluation(digits_experiment, network, SamplingConfig(steps=2), every=5, images=100_000)


LOOP = re.search(
    r"```bash\n(until .*?done)\n```", (Path(__file__).parents[1] / "docs" / "long_runs.md").read_text(), re.S
)


@pytest.mark.parametrize(
    ("statuses", "ended"),
    [((137, 75, 143, 139, 0), 0), ((75, 1, 0), 1), ((2, 0), 2), ((143, 130, 0), 130)],
)
def test_the_loop_of_the_docs_starts_again_what_may_do_better(statuses, ended, tmp_path):
    """The command is a script that ends as it is told, one status a start."""
    (tmp_path / "statuses").write_text("\n".join(map(str, statuses)) + "\n")
    command = tmp_path / "command"
    next_one = f"cd {tmp_path}; status=$(head -n 1 statuses); sed -i 1d statuses"
    command.write_text(f'{next_one}; [ "$status" = 137 ] && kill -9 $$; exit $status')
    assert LOOP is not None
    script = LOOP[1].replace("python -m experiments.train runs/mine", f"bash {command}")
    done = subprocess.run(["bash", "-c", script], env={**os.environ, "PAUSE": "0"}, capture_output=True, timeout=30)
    assert done.returncode == ended
    left = (tmp_path / "statuses").read_text().split()
    assert left == [str(status) for status in statuses[statuses.index(ended) + 1 :]]
