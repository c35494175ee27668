"""A run on latents from its autoencoder to rows of evaluation, its bound, and what is refused on the way."""

import dataclasses
import json
from pathlib import Path

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from PIL import Image
from toy_latents import AUTOENCODER, save_autoencoder

from asyncpatch.config import from_json, to_json
from asyncpatch.data import LatentColours, PixelView, latents_of
from asyncpatch.elbo import EightBit
from asyncpatch.masks import OfSites, OneOf, Square, Thin, Wide, mask_set
from asyncpatch.metrics import hash_images, save_classifier, train_classifier
from asyncpatch.nn import PRESETS, LeanUNetConfig, known_sites, supervised_inpainter
from asyncpatch.runs import (
    RECIPES,
    Examples,
    SamplingConfig,
    configure,
    encode_data,
    open_autoencoder,
    open_run,
    write_file,
)
from asyncpatch.timesteps import AsyncPatch, Masked
from asyncpatch.train import OptimizerConfig
from experiments import latent
from experiments.evaluate import evaluate
from experiments.likelihood import likelihood
from experiments.parts.asked import Own
from experiments.parts.bounds import Effort, Ends, open_model
from experiments.parts.judges import OwnClassifier, read_images
from experiments.parts.law_table import MASKS
from experiments.parts.made import completed_images
from experiments.parts.medium import AS_DECODED, medium_of
from experiments.parts.rows import Inpainting, RePaint, Steps, read_rows
from experiments.parts.tables import task_name
from experiments.sample import main as sample
from experiments.timestep_sampling import Judging

COUNT = 8
FEW = Steps(steps=2)
TINY = dataclasses.replace(
    latent.SCALES["miniature"],
    preset="tiny",
    side=4,
    steps=1,
    batch_size=8,
    optimizer=OptimizerConfig(),
    generated=COUNT,
    completed=COUNT,
    generating=FEW,
    completing=FEW,
)


@pytest.fixture(scope="module", autouse=True)
def tiny():
    """A preset whose programs compile quickly."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "tiny", LeanUNetConfig(2, 10, widths=(8, 16), blocks=(1,), head=8, embedding=8))
        patch.setitem(RECIPES, "tiny", RECIPES["digits"])
        yield


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory) -> Path:
    return save_autoencoder(tmp_path_factory.mktemp("autoencoder"))


@pytest.fixture(scope="module")
def opened(autoencoder):
    return open_autoencoder(autoencoder)


@pytest.fixture(scope="module")
def judge(opened, tmp_path_factory) -> OwnClassifier:
    file = tmp_path_factory.mktemp("judge") / "classifier.npz"
    images, labels = read_images(opened.experiment, opened.experiment.data.source)
    save_classifier(file, train_classifier(images, labels, 10, seed=0, steps=2))
    return OwnClassifier(file)


@pytest.fixture(scope="module")
def tables(autoencoder, judge, tmp_path_factory) -> Path:
    """A folder that `experiments.latent` has filled for one network."""
    folder = tmp_path_factory.mktemp("tables")
    page = latent.main(folder, autoencoder, network="async-patch", seed=0, judging=Judging(judge), scale=TINY)
    assert page == folder / "report" / "index.html"
    return folder


@pytest.fixture(scope="module")
def run(tables) -> Path:
    return tables / "async-patch-0"


@pytest.fixture(scope="module")
def latents(tables, opened):
    return encode_data(tables / f"latents-{opened.fingerprint[:12]}", opened)


@pytest.fixture(scope="module")
def experiment(latents, opened):
    return latent.configuration(TINY, latents, opened, "async-patch", 0)


@pytest.fixture(scope="module")
def given(opened):
    """Held-out images, their labels and known regions."""
    images, labels = read_images(opened.experiment, opened.experiment.data.held_out, COUNT)
    return images, labels, mask_set(Square(), COUNT, 8, 8, 0)


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


# --- The run


def test_a_site_is_a_token_and_pictures_are_of_pixels(run, experiment):
    opened = open_run(run)  # which needs no autoencoder
    assert opened.experiment == experiment
    assert opened.image_shape == (4, 4, 2)
    (sheet,) = (run / "samples").glob("*.png")
    pixels, gap, columns, rows = 8, 2, 8, 4
    wide, high = (count * (pixels + gap) + gap for count in (columns, rows))
    width, height = size_of(sheet)
    assert width * high == height * wide
    assert width % wide == 0


def test_without_the_autoencoder_latents_are_shown_as_colours():
    made = jnp.array([-6.0, -1.5, 0.0, 3.0]).reshape(1, 2, 2, 1)
    assert LatentColours().images(made).ravel().tolist() == [-1.0, -0.5, 0.0, 1.0]


def test_latents_are_encoded_once_and_held_out_ones_scaled_as_the_others(latents, opened):
    training, held_out = latents
    folder = Path(training.folder).parent
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert encode_data(folder, opened) == latents
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert held_out.scale == training.scale
    assert latents_of(training) is training


# --- Evaluation


def test_rows_are_of_pixels_and_name_the_autoencoder(tables, opened, given):
    rows = read_rows(tables / "rows.jsonl")
    names = {"FD-classifier", "PSNR", "SSIM"}
    assert [task_name(row) for row in rows] == ["generation", *2 * [f"inpainting, {family}" for family in MASKS]]
    for row in rows:
        assert row["autoencoder"] == opened.fingerprint
        assert row["data_hash"] == hash_images([given[0]])
        assert (tables / row["grid"]).is_file()
        assert all(np.isfinite(value["value"]) for value in row["values"].values())
    for row in rows[1:]:
        assert row["values"].keys() == names | {name + AS_DECODED for name in names}
        assert row["values"]["PSNR"] == row["values"]["PSNR" + AS_DECODED], "it is of hidden pixels"
    square = rows[1]["values"]
    assert square["FD-classifier"]["value"] < square["FD-classifier" + AS_DECODED]["value"], "the weights are random"


def test_the_report_says_what_the_autoencoder_alone_does(tables, opened):
    (alone,) = read_rows(tables / "autoencoder.jsonl")
    assert alone["autoencoder"] == opened.fingerprint
    says = (tables / "report" / "report.md").read_text()
    assert "The autoencoder alone" in says
    assert f"{alone['values']['PSNR']['value']:.4g}" in says


def test_repaint_completes_latents_too(run, autoencoder, judge, tmp_path):
    task = Inpainting(Square(), COUNT, method=RePaint(1, 1))
    row = evaluate(run, tmp_path / "rows.jsonl", task, FEW, judge, autoencoder=autoencoder)
    assert all(np.isfinite(value["value"]) for value in row["values"].values())


def test_the_supervised_network_is_told_known_sites_and_never_sees_extrema(latents, opened, experiment):
    supervised = latent.configuration(TINY, latents, opened, "supervised", 0)
    assert supervised.network == supervised_inpainter(experiment.network)
    assert supervised.timesteps == Masked(OfSites(OneOf((Square(), Thin(), Wide())), AUTOENCODER.factor))
    assert from_json(to_json(supervised)) == supervised
    assert {type(task).__name__ for task, _ in latent.tasks(TINY, "supervised", 0)} == {"Inpainting"}


def test_an_autoencoder_of_another_size_is_refused(latents, opened):
    with pytest.raises(ValueError, match="for 16x16 latent sites, this autoencoder gives 4x4"):
        latent.configuration(dataclasses.replace(TINY, side=16), latents, opened, "synchronous", 0)


def test_known_pixels_are_given_back_to_the_bit_and_hidden_ones_are_not_read(run, opened, given):
    images, labels, known = given
    denoiser, medium = open_run(run).denoiser, medium_of(open_run(run).experiment, opened)

    def completed(images, medium=medium):
        task = Inpainting(Square(), COUNT)
        return medium.forms(completed_images(denoiser, medium, task, FEW, images, labels, known)[0], images, known)

    forms = completed(images)
    assert np.array_equal(forms[""][known], images[known])
    assert not np.array_equal(forms[AS_DECODED][known], images[known])
    assert np.array_equal(forms[""][~known], forms[AS_DECODED][~known])
    other = np.where(known[..., None], images, -images)
    assert np.array_equal(completed(other)[AS_DECODED], forms[AS_DECODED])
    whole, _ = medium.given(images, np.ones_like(known))
    of_other, _ = medium.given(other, np.ones_like(known))
    sites = np.asarray(medium.given(images, known)[1])
    assert np.any(np.asarray(whole != of_other)[sites]), "the wrong twin: an encoder that is not told"


def test_known_sites_have_all_their_pixels(opened, experiment, given):
    images, _, known = given
    tokens, sites = medium_of(experiment, opened).given(images, known)
    assert tokens.shape == (COUNT, 4, 4, 2)
    for one, region in zip(sites, known, strict=True):
        assert np.array_equal(one, known_sites(jnp.asarray(region), AUTOENCODER.factor))
    assert np.all(np.asarray(tokens)[~np.asarray(sites)] == 0)


def test_a_law_of_sites_is_that_of_pixels():
    law = Square()
    key = jr.key(3)
    assert np.array_equal(OfSites(law, 2)(key, 4, 4), known_sites(law(jr.clone(key), 8, 8), 2))


def test_samples_are_decoded_and_regions_of_sites_shown_on_their_pixels(run, autoencoder, tmp_path):
    few = SamplingConfig(steps=2, guidance=1.0)
    sample(str(run), tmp_path, few, count=COUNT, autoencoder=autoencoder)
    first, second, *_ = sorted((tmp_path / "inpainting").glob("*.png"))
    assert size_of(first) == size_of(second) == (8, 8)
    with pytest.raises(ValueError, match="runs on pixels alone"):
        sample(str(run), tmp_path, few, Own(image=first, mask=first), autoencoder=autoencoder)


def test_a_file_takes_no_latents_for_examples(run, tmp_path):
    opened = open_run(run)
    examples = Examples(jnp.zeros((1, 4, 4, 2)), jnp.zeros(1, jnp.int32))
    with pytest.raises(ValueError, match="the run is on latents; leave the examples out"):
        write_file(dataclasses.replace(opened, examples=examples), tmp_path / "run.safetensors")


# --- What is refused


def test_another_autoencoder_is_refused(experiment, latents, tmp_path):
    other = open_autoencoder(save_autoencoder(tmp_path, seed=1))
    with pytest.raises(ValueError, match=r"on latents of the autoencoder .* got .* give the folder"):
        medium_of(experiment, other)
    with pytest.raises(ValueError, match="were made by the autoencoder"):
        encode_data(Path(latents[0].folder).parent, other)


def test_latents_are_not_judged_without_their_autoencoder_nor_pixels_with_one(experiment, opened):
    with pytest.raises(ValueError, match="give the folder of the autoencoder"):
        medium_of(experiment, None)
    pixels = configure(opened.experiment.data.source, "digits", AsyncPatch((1, 2)), batch_size=8)
    assert medium_of(pixels, None).view == PixelView()
    with pytest.raises(ValueError, match="leave the autoencoder out"):
        medium_of(pixels, opened)


def test_latents_of_other_images_are_refused(experiment, opened):
    swapped = dataclasses.replace(experiment.data, held_out=experiment.data.source)
    with pytest.raises(ValueError, match="150 latents in its data's held_out, the autoencoder 30 images"):
        medium_of(dataclasses.replace(experiment, data=swapped), opened)


@pytest.mark.parametrize(("wish", "named"), [({"flip": True}, "RandomFlip"), ({"pad_to": 8}, "PadTo")])
def test_latents_are_not_flipped_or_padded(latents, wish, named):
    with pytest.raises(ValueError, match=f"{named} changes pixels, and these records are latents"):
        configure(latents[0], "digits", AsyncPatch((1, 2)), **wish)


# --- The bound


def test_the_bound_is_on_a_density_of_latents(run, tmp_path):
    rows = likelihood(run, tmp_path, ("synchronous", "window"), 2, (1, 2), 4, Ends(), Effort(points=2))
    assert [row.law for row in rows] == ["synchronous", "window"]
    assert all(np.isfinite(row.bits) for row in rows)
    assert json.loads((tmp_path / "likelihood.json").read_text())["bounded"] == "latents, as a density"
    _, model = open_model(run, Ends(), 4)
    with pytest.raises(ValueError, match="no 8-bit values"):
        EightBit().check(model.images)
