"""Evaluation by rows: what a row states, that it is not made twice, what masks do to it, and the report of rows."""

import copy
import dataclasses
import itertools
import json
import math
import shutil

import equinox as eqx
import jax
import jaxtyping
import numpy as np
import pytest

from asyncpatch.config import to_json
from asyncpatch.data import Digits, Folds
from asyncpatch.masks import Square, Thin, mask_hash, mask_set
from asyncpatch.metrics import hash_images, train_classifier
from asyncpatch.metrics.networks import Lpips
from asyncpatch.metrics.networks.lpips import LPIPS_ALEXNET_SHAPES
from asyncpatch.runs import SamplingConfig, open_run, step_rule
from asyncpatch.train import RunConfig, init_state, make_mesh
from asyncpatch.train.checkpoint import Checkpoints
from experiments.evaluate import evaluate
from experiments.parts.claims import Claim, judge_claims, show_claims
from experiments.parts.judges import OwnClassifier, read_batches, read_images
from experiments.parts.made import completed_images
from experiments.parts.medium import PixelMedium
from experiments.parts.rows import (
    Generation,
    Inpainting,
    Patches,
    RePaint,
    Replacement,
    Steps,
    Together,
    Trailing,
    read_rows,
)
from experiments.parts.scores import compared, settle
from experiments.parts.step_report import paired, verdict
from experiments.parts.tables import collect, line_names, run_names, summary
from experiments.report import main as report
from experiments.report import plot, write_report
from experiments.steps import main as compare_steps
from tests.toy_features import Projection

COUNT = 30  # three of each class, the fewest of which a kernel distance is measured
FEW = Steps(steps=2)


@pytest.fixture(scope="module")
def experiment(digits_experiment):
    return digits_experiment


@pytest.fixture(scope="module")
def run(digits_run):
    return digits_run


@pytest.fixture(scope="module")
def judge(digits_judge):
    return digits_judge


@pytest.fixture(scope="module")
def rows(run, judge, tmp_path_factory):
    """A file of rows of three tasks."""
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    evaluate(run, path, Generation(COUNT), FEW, judge)
    evaluate(run, path, Inpainting(Thin(), COUNT), FEW, judge)
    evaluate(run, path, Inpainting(Square(), COUNT, method=RePaint(2, 2)), Steps(steps=4), judge)
    return path


def test_rows_state_what_made_them(rows, experiment):
    generation, thin, repainted = read_rows(rows)
    real, _ = read_images(experiment, experiment.data.held_out, COUNT)
    for row in (generation, thin, repainted):
        assert row["task"]["count"] == COUNT
        assert row["data_hash"] == hash_images([real])
        assert row["network"]["name"] == "classifier"
        assert len(row["network"]["hash"]) == 64
        assert (rows.parent / row["grid"]).is_file()
        assert all(np.isfinite(value["value"]) for value in row["values"].values())
        assert {"commit", "seconds", "device", "experiment", "how"} <= row.keys()
    names = {"FD-classifier", "KD-classifier", "precision", "recall", "class accuracy"}
    assert generation["values"].keys() == names
    assert thin["values"].keys() == {"FD-classifier", "PSNR", "SSIM"}
    assert generation["mask_hash"] is None
    assert thin["mask_hash"] == mask_hash(mask_set(Thin(), COUNT, 8, 8, 0))
    assert thin["calls_per_image"] == 2
    # Levels 4 3 2 1; at level 1 one jump of two, and at level 3 none, because it would leave the range.
    assert repainted["calls_per_image"] == 6


def test_a_row_is_not_made_twice(run, judge, rows):
    before = rows.read_text()
    again = evaluate(run, rows, Generation(COUNT), FEW, judge)
    assert rows.read_text() == before
    assert again == read_rows(rows)[0]


def test_a_run_that_went_on_is_another_row(run, experiment, judge, tmp_path):
    grown = tmp_path / "run"
    shutil.copytree(run, grown)
    before = evaluate(grown, tmp_path / "rows.jsonl", Generation(COUNT), FEW, judge)
    state = init_state(experiment.learner, experiment.training, make_mesh(1, 1))
    state = eqx.tree_at(lambda state: state.step, state, state.step + 7)
    with Checkpoints(grown, RunConfig(steps=7)) as checkpoints:
        checkpoints.save(state, to_json(experiment), {})
    after = evaluate(grown, tmp_path / "rows.jsonl", Generation(COUNT), FEW, judge)
    assert [before["step"], after["step"]] == [0, 7]
    assert before["identity"] != after["identity"]


def test_another_seed_is_another_row(run, judge, tmp_path):
    one, other = (
        evaluate(run, tmp_path / "rows.jsonl", Generation(COUNT), Steps(steps=2, seed=seed), judge) for seed in (0, 1)
    )
    assert one["identity"] != other["identity"]
    assert one["values"] != other["values"]


def test_images_that_come_out_as_they_were_leave_the_mean_finite(run, judge, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "experiments.parts.scores.completed_images",
        lambda denoiser, medium, task, how, images, labels, known: (images, 1),
    )
    values = evaluate(run, tmp_path / "rows.jsonl", Inpainting(count=COUNT), FEW, judge)["values"]
    assert values["PSNR"]["value"] == pytest.approx(58.92, abs=0.01)
    assert values["SSIM"]["value"] == pytest.approx(1)


def test_training_images_are_the_reference_if_a_file_is_named(run, judge, tmp_path, experiment):
    reference = tmp_path / "reference.npz"
    row = evaluate(run, tmp_path / "rows.jsonl", Generation(COUNT), FEW, judge, reference)
    assert reference.is_file()
    assert row["data_hash"] == hash_images(images for images, _ in read_batches(experiment, experiment.data.source))


def test_guidance_counts_both_branches_and_patches_take_turns(run, judge, tmp_path):
    task = Generation(COUNT, Patches(patch=4))
    row = evaluate(run, tmp_path / "rows.jsonl", task, Steps(steps=2, guidance=1.5), judge)
    assert row["calls_per_image"] == 4


@pytest.mark.parametrize(("rule", "calls"), [("multistep", 2), ("heun", 4)])
def test_a_second_order_rule_counts_its_calls_and_is_told_apart(rows, run, judge, tmp_path, rule, calls):
    row = evaluate(run, tmp_path / "rows.jsonl", Generation(COUNT), Steps(steps=2, eta=0.0, rule=rule), judge)
    assert row["calls_per_image"] == calls
    names = line_names([read_rows(rows)[0], row])
    assert names == ["AsyncPatch, eta 0.5, rule ddim", f"AsyncPatch, eta 0.0, rule {rule}"]
    guided = Steps(steps=2, eta=0.0, rule=rule, guidance=2.0)
    assert guided.calls == 2 * calls


def test_a_rule_that_draws_no_noise_takes_no_share_of_it():
    for config in (Steps, SamplingConfig):
        with pytest.raises(ValueError, match=r"the rule heun draws no fresh noise, got eta=0\.5; give eta=0"):
            config(rule="heun")
    assert [SamplingConfig(steps=6, eta=0.0, rule=rule).calls for rule in ("ddim", "multistep", "heun")] == [6, 6, 12]


def test_a_rule_by_no_name_of_one_is_refused():
    jaxtyping.config.update("jaxtyping_disable", True)  # as users run it
    try:
        with pytest.raises(ValueError, match="called ddim, multistep, heun; got dpm, choose"):
            step_rule("dpm", 0.0)
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def test_rows_from_before_there_were_rules_are_of_ddim_on_even_times(run, judge, rows, tmp_path):
    """They are read, and not made again."""
    former, written = tmp_path / "rows.jsonl", json.loads(rows.read_text().splitlines()[0])
    for name in ("rule", "shift"):
        del written["how"][name]
    former.write_text(json.dumps(written) + "\n", encoding="utf-8")
    assert read_rows(former) == read_rows(rows)[:1]
    assert evaluate(run, former, Generation(COUNT), FEW, judge) == read_rows(rows)[0]
    assert len(read_rows(former)) == 1


def refuse_constant(name):
    raise ValueError(f"{name} is no JSON")


def test_an_error_that_is_not_known_is_null_and_no_number_is_printed_for_it(run, judge, rows, tmp_path, capsys):
    for line in rows.read_text().splitlines():
        values = json.loads(line, parse_constant=refuse_constant)["values"]
        assert values["FD-classifier"]["standard_error"] is None
    evaluate(run, tmp_path / "rows.jsonl", Generation(COUNT), FEW, judge)
    printed = {line.partition(": ")[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "±" not in printed["FD-classifier"]
    assert "±" in printed["KD-classifier"]
    assert not any("nan" in line.lower() for line in printed.values())


def test_rows_that_say_nan_are_read_as_those_that_say_null(rows, tmp_path):
    former = tmp_path / "rows.jsonl"
    former.write_text(rows.read_text().replace('"standard_error": null', '"standard_error": NaN'), encoding="utf-8")
    with pytest.raises(ValueError, match="NaN is no JSON"):
        json.loads(former.read_text().splitlines()[0], parse_constant=refuse_constant)
    assert read_rows(former) == read_rows(rows)


def test_too_few_images_of_a_class_leave_the_kernel_distance_out(run, judge, tmp_path, capsys):
    values = evaluate(run, tmp_path / "rows.jsonl", Generation(COUNT - 1), FEW, judge)["values"]
    assert "KD-classifier" not in values
    assert "needs 3 generated images of every class, got 2" in capsys.readouterr().out


def test_half_a_line_is_left_out(rows, tmp_path, capsys):
    copy = tmp_path / "rows.jsonl"
    copy.write_text(rows.read_text() + '{"identity": "cut', encoding="utf-8")
    assert read_rows(copy) == read_rows(rows)
    assert "not whole" in capsys.readouterr().out


@dataclasses.dataclass(frozen=True)
class Uncalled:
    """A judge that must not be asked for anything: it may take minutes to train, and sampling comes after it."""

    def load(self, experiment, folder):
        raise AssertionError("something was computed before the task was checked")


@pytest.mark.parametrize("how", [Steps(steps=4, eta=0.0, rule="heun"), Steps(steps=4, shift=2.0)])
def test_repaint_has_a_rule_and_times_of_its_own(run, tmp_path, how):
    with pytest.raises(ValueError, match=r"RePaint has a rule and times of its own, got rule .* leave them out"):
        evaluate(run, tmp_path / "rows.jsonl", Inpainting(Square(), COUNT, method=RePaint(2, 2)), how, Uncalled())


@pytest.mark.parametrize("method", [Trailing(0.5), Replacement(), RePaint(2, 2)], ids=repr)
def test_guidance_by_the_input_needs_known_pixels_that_are_clean(run, tmp_path, method):
    how = Steps(steps=4, input_guidance=1.0)
    with pytest.raises(ValueError, match=r"acts by clean pixels, and .* keeps the known ones noisy"):
        evaluate(run, tmp_path / "rows.jsonl", Inpainting(Square(), COUNT, method=method), how, Uncalled())


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (Generation(181), "asked for 181 images, and the data holds out 180 .* ask for 4 to 180"),
        (Generation(1000), "asked for 1000 images"),
        (Generation(3), "asked for 3 images"),
        (Inpainting(count=1000), "asked for 1000 images, .* ask for 2 to 180"),
        (Inpainting(count=1), "asked for 1 images"),
        (Generation(order=Patches(patch=64)), "patch"),
        (Inpainting(method=RePaint(jump_length=10)), "RePaint needs"),
    ],
    ids=repr,
)
def test_what_cannot_be_done_is_said_before_anything_is_computed(run, tmp_path, task, message):
    with pytest.raises(ValueError, match=message):
        evaluate(run, tmp_path / "rows.jsonl", task, FEW, Uncalled())


def test_tasks_take_the_usual_number_of_images_or_what_there_is(experiment, tmp_path):
    few = dataclasses.replace(experiment, data=dataclasses.replace(experiment.data, held_out=Folds(Digits(), 30, (0,))))
    large = dataclasses.replace(experiment, data=dataclasses.replace(experiment.data, held_out=Digits()))
    for given, task, reference, count in [
        (experiment, Generation(), None, 180),
        (experiment, Inpainting(), None, 180),
        (large, Generation(), None, 1000),
        (large, Inpainting(), None, 256),
        (few, Generation(), None, 60),
        (few, Generation(), tmp_path / "of all training images", 1000),
        (few, Generation(30), None, 30),
    ]:
        assert settle(task, FEW, PixelMedium(given), reference).count == count
    none = dataclasses.replace(few.data, held_out=Folds(Digits(), 1700, (0,)))
    with pytest.raises(ValueError, match="too few to judge by"):
        settle(Generation(), FEW, PixelMedium(dataclasses.replace(few, data=none)), None)


def test_report_shows_means_errors_published_figures_and_grids(rows, tmp_path):
    found = read_rows(rows)
    other = json.loads(json.dumps(found[0]))
    other["values"]["precision"]["value"] = found[0]["values"]["precision"]["value"] + 0.5
    published = {"AsyncPatch": {"generation": {"precision": 0.75}}}
    page = write_report([*found, other], tmp_path / "report", "A title", published)
    text = (tmp_path / "report" / "report.md").read_text()
    mean = summary(collect([*found, other], ["AsyncPatch"] * 4)["generation"]["AsyncPatch"]["precision"])
    assert mean.standard_error == pytest.approx(0.25)
    assert f"{mean.value:.4g} ± 0.25 [0.75]" in text
    assert "nan" not in text
    assert "nan" not in page.read_text()
    assert "## inpainting, thin" in text
    assert "| AsyncPatch, RePaint | 1 |" in text
    assert found[0]["identity"] in text
    assert found[1]["grid"] in page.read_text()
    assert (tmp_path / "report" / "PSNR.png").is_file()


def test_report_of_nothing_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no row to report"):
        write_report([], tmp_path, "nothing")
    with pytest.raises(FileNotFoundError, match=r"no file of rows at .*nowhere\.jsonl"):
        report(tmp_path / "nowhere.jsonl", tmp_path)


def rows_of_seeds(rows, better, worse):
    """A generation row of each seed for two laws, with these distances."""
    row, made = read_rows(rows)[0], []
    for law, values in (("Synchronous", worse), ("AsyncPatch", better)):
        for seed, value in enumerate(values):
            one = json.loads(json.dumps(row))
            one["experiment"]["timesteps"] = {"type": f"somewhere.{law}"}
            one["experiment"]["training"]["seed"] = seed
            one["values"]["FD-classifier"]["value"] = value
            one["values"]["class accuracy"]["value"] = -math.log(value)
            made.append(one)
    return made


@pytest.mark.parametrize(
    ("better", "worse", "verdict"),
    [
        ([8.0, 16.0, 4.0], [10.0, 20.0, 5.1], "yes"),  # the seeds scatter far more than the laws differ
        ([10.0, 20.0, 5.1], [8.0, 16.0, 4.0], "no"),
        ([8.0, 16.0, 6.0], [10.0, 15.0, 5.1], "cannot tell"),
        ([8.0], [10.0], "cannot tell (one seed)"),
        ([], [10.0], "not measured"),
    ],
)
def test_claims_are_judged_seed_by_seed(rows, better, worse, verdict):
    made = rows_of_seeds(rows, better, worse)
    claims = [
        Claim("generation", metric, "AsyncPatch", "Synchronous") for metric in ("FD-classifier", "class accuracy")
    ]
    distance, accuracy = judge_claims(made, claims)
    assert distance.holds == accuracy.holds == verdict
    assert distance.seeds == len(better)


def test_a_limit_is_a_share_of_the_other_side(rows):
    made = rows_of_seeds(rows, [10.3, 20.5, 5.2], [10.0, 20.0, 5.0])
    judged = judge_claims(
        made, [Claim("generation", "FD-classifier", "AsyncPatch", "Synchronous", limit) for limit in (1.0, 1.05)]
    )
    assert [one.holds for one in judged] == ["no", "yes"]
    assert judged[0].measured == judged[1].measured
    assert judged[0].measured.startswith("1.03")


def test_claims_are_shown_by_statement_and_task(rows):
    made = rows_of_seeds(rows, [8.0, 16.0, 4.0], [10.0, 20.0, 5.1])
    two = [Claim(task, "FD-classifier", "AsyncPatch", "Synchronous") for task in ("generation", "inpainting, thin")]
    shown = show_claims(
        "Claims", [*judge_claims(made, two), *judge_claims(made, [dataclasses.replace(two[0], limit=2)])]
    )
    assert shown.head == ("claim", "seeds", "generation", "inpainting, thin")
    first, second = shown.lines
    assert first[0] == "FD-classifier of AsyncPatch / Synchronous is below 1"
    assert first[1] == "3"
    assert first[2].startswith("0.79")
    assert first[2].endswith(": yes")
    assert first[3] == "-: not measured"
    assert second[3] == ""


def test_methods_of_inpainting_keep_what_is_known_and_differ_in_the_rest(run):
    experiment, silent = open_run(run).experiment, open_run(run).denoiser  # its last layer starts at 0
    denoiser = eqx.tree_at(lambda one: one.network.ends.head.weight, silent, replace_fn=lambda weight: weight + 0.1)
    images, labels = read_images(experiment, experiment.data.held_out, COUNT)
    known = mask_set(Square(), COUNT, 8, 8, 0)
    made = {}
    for method in (Together(), Trailing(0.5), Replacement(), Trailing(1.0)):
        task = Inpainting(Square(), COUNT, method=method)
        made[method], calls = completed_images(denoiser, PixelMedium(experiment), task, FEW, images, labels, known)
        assert calls == FEW.steps
        assert np.array_equal(made[method][known], images[known])
    assert np.array_equal(made[Replacement()], made[Trailing(1.0)])
    different = [made[method][~known] for method in (Together(), Trailing(0.5), Replacement())]
    assert all(not np.array_equal(a, b) for a, b in itertools.combinations(different, 2))


def test_laws_of_one_class_are_told_apart_by_what_differs(rows):
    generation, thin, repainted = read_rows(rows)
    assert line_names([generation, repainted]) == ["AsyncPatch", "AsyncPatch, RePaint"]
    assert run_names([generation | {"run": "half-0"}]) == ["half"]
    thin["experiment"]["timesteps"]["patch_sizes"] = [4]
    assert line_names([generation, thin]) == ["AsyncPatch, patch_sizes [1, 2]", "AsyncPatch, patch_sizes [4]"]


def test_rows_that_were_drawn_differently_are_not_taken_for_seeds_of_one(rows):
    _, row, repainted = read_rows(rows)
    noisier, later = row | {"how": row["how"] | {"eta": 1.0}}, row | {"step": 7}
    other_seed = row | {"how": row["how"] | {"seed": 1}}
    assert line_names([row, other_seed]) == ["AsyncPatch", "AsyncPatch"]
    assert line_names([row, noisier]) == ["AsyncPatch, eta 0.5", "AsyncPatch, eta 1.0"]
    assert line_names([row, later]) == ["AsyncPatch, step 0", "AsyncPatch, step 7"]
    longer = copy.deepcopy(repainted)
    longer["task"]["method"]["resamplings"] = 3
    assert line_names([repainted, longer]) == [
        "AsyncPatch, RePaint, resamplings 2",
        "AsyncPatch, RePaint, resamplings 3",
    ]
    assert line_names([row, repainted]) == ["AsyncPatch", "AsyncPatch, RePaint"]


def test_a_distance_far_above_the_others_is_a_number_at_the_edge(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("experiments.report.plt.close", drawn.append)
    for metric in ("FD-classifier", "PSNR"):
        cells = {"generation": {"a": {metric: [1.0]}, "b": {metric: [1.1, 1.3]}, "c": {metric: [8.0, 10.0]}}}
        plot(cells, metric, tmp_path / "plot.png")
    (of_distance,), (of_likeness,) = (figure.axes for figure in drawn)
    assert [text.get_text() for text in of_distance.texts] == ["9 →"]
    assert of_distance.get_xlim()[1] < 2
    assert not of_likeness.texts
    assert of_likeness.get_xlim()[1] > 9


@dataclasses.dataclass(frozen=True)
class Projecting:
    """A second judge."""

    def load(self, experiment, folder):
        return Projection.draw(3)


def test_small_images_are_enlarged_for_lpips_and_it_says_so():
    """Of 8x8 pixels AlexNet sees nothing; four times as large they are images of 32."""
    real = np.random.default_rng(0).uniform(-1, 1, (2, 8, 8, 1)).astype(np.float32)
    known = np.zeros((2, 8, 8), bool)
    draw = np.random.default_rng(1)
    weights = {name: draw.uniform(0, 0.1, shape).astype(np.float32) for name, shape in LPIPS_ALEXNET_SHAPES.items()}
    network = Lpips.alexnet_from_arrays(weights)
    same, other = (compared(made, real, known, [], network) for made in (real, real[::-1]))
    assert same.keys() == {"PSNR", "SSIM", "LPIPS@32"}
    assert same["LPIPS@32"].value == 0
    assert other["LPIPS@32"].value > 0


def test_two_judges_speak_of_the_same_images(run, judge, rows, tmp_path):
    path = tmp_path / "rows.jsonl"
    for task, alone in zip((Generation(COUNT), Inpainting(Thin(), COUNT)), read_rows(rows), strict=False):
        both = evaluate(run, path, task, FEW, judge, beside=Projecting())
        for name, value in alone["values"].items():
            assert both["values"][name]["value"] == pytest.approx(value["value"], rel=1e-5)
        assert both["values"].keys() >= {"FD-classifier", "FD-Projection"}
        assert both["identity"] != alone["identity"]
        assert [network["name"] for network in both["networks_beside"]] == ["Projection"]
    with pytest.raises(ValueError, match=r"two judges of one kind \(OwnClassifier, OwnClassifier\)"):
        evaluate(run, path, Generation(COUNT), FEW, judge, beside=judge)


def test_classifier_is_trained_once_and_named_by_its_data(experiment, tmp_path, monkeypatch):
    calls = []

    def quick(images, labels, num_classes, seed):
        calls.append(len(images))
        return train_classifier(images[:256], labels[:256], num_classes, seed, steps=2)

    monkeypatch.setattr("experiments.parts.judges.train_classifier", quick)
    first, second = (OwnClassifier().load(experiment, tmp_path) for _ in range(2))
    assert calls == [1617]
    assert first.hash == second.hash
    assert jax.tree.all(jax.tree.map(np.array_equal, first, second))


def test_steps_are_compared_by_calls_and_rows_are_not_made_twice(run, judge, tmp_path):
    settings = (Steps(steps=4, eta=0.0), Steps(steps=2, eta=0.0, rule="heun", shift=2.0))
    made = compare_steps(tmp_path, run=str(run), images=COUNT, seeds=2, judge=judge, settings=settings)
    assert [(row["how"]["seed"], row["calls_per_image"]) for row in made] == [(0, 4), (0, 4), (1, 4), (1, 4)]
    before = (tmp_path / "rows.jsonl").read_text()
    assert compare_steps(tmp_path, run=str(run), images=COUNT, seeds=2, judge=judge, settings=settings) == made
    assert (tmp_path / "rows.jsonl").read_text() == before
    text = (tmp_path / "report.md").read_text()
    assert "| DDIM, eta 0 | 4 | 2 |" in text
    assert "| heun, shift 2 | 4 | 2 |" in text
    assert (tmp_path / "steps.png").is_file()


def test_a_goal_is_judged_seed_by_seed():
    """Seeds scatter more than rules differ: what is compared are distances of one seed."""
    goal = {seed: 10.0 * seed for seed in range(5)}
    near, far, vague = (
        {seed: value + gap + spread * (seed - 2) for seed, value in goal.items()}
        for gap, spread in ((0.1, 0.01), (0.3, 0.01), (0.1, 0.3))
    )
    assert paired(near, goal).value == pytest.approx(0.1)
    assert paired(near, goal).standard_error == pytest.approx(0.01 * math.sqrt(2.5 / 5))
    series = {"DDIM, eta 0": {10: far, 250: goal}, "multistep": {6: far, 10: vague, 20: near, 40: near}}
    asked = "reached 250 steps of DDIM, eta 0, to 1% of the distance, standard error included"
    assert verdict(series) == f"R{asked[1:]}: multistep in 20 calls."
    series["multistep"] = {6: far, 20: vague}
    assert verdict(series) == f"No second-order rule {asked}."
    assert verdict({"multistep": series["multistep"]}).startswith("There is no deterministic DDIM")
