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
from asyncpatch.data import Digits, Folds, LatentColours, PixelView, latents_of, to_uint8
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
from asyncpatch.timesteps import AsyncPatch, Masked, Synchronous
from asyncpatch.train import OptimizerConfig, RunConfig
from experiments import latent
from experiments.evaluate import evaluate
from experiments.export_autoencoder import export_autoencoder
from experiments.likelihood import likelihood
from experiments.parts.asked import Own, asked_of_own
from experiments.parts.bounds import Effort, Ends, open_model
from experiments.parts.judges import OwnClassifier, read_images
from experiments.parts.latents_of import LatentsOf
from experiments.parts.law_table import MASKS
from experiments.parts.made import completed_images
from experiments.parts.medium import AS_DECODED, medium_for, medium_of
from experiments.parts.rows import Inpainting, RePaint, Steps, Together, Trailing, read_rows
from experiments.parts.tables import task_name
from experiments.sample import main as sample
from experiments.timestep_sampling import Judging
from experiments.train import main as train

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
    completing=((Together(), FEW), (Trailing(), FEW)),
    baselines=((RePaint(), Steps(steps=30)),),
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


@pytest.fixture(scope="module")
def files(given, tmp_path_factory):
    """A held-out image, a mask with its right half and one pixel hidden, and strengths from kept to made anew."""
    folder = tmp_path_factory.mktemp("own")
    known = np.tile(np.arange(8) < 4, (8, 1))
    known[0, 0] = False
    strength = np.where(known, 0, 255)
    strength[4:, 4:] = 128
    for name, values in (("image", to_uint8(given[0][0])[..., 0]), ("mask", known * 255), ("strength", strength)):
        Image.fromarray(values.astype(np.uint8)).save(folder / f"{name}.png")
    return folder, known, strength


FEW_STEPS = SamplingConfig(steps=2, guidance=1.0)


def test_an_image_of_ones_own_is_filled_and_its_known_pixels_given_back(run, autoencoder, files, tmp_path):
    folder, known, _ = files
    own = Own(folder / "image.png", mask=folder / "mask.png")
    pixels = np.asarray(Image.open(folder / "image.png"))
    made = {}
    for name, asked in (("decoded", own), ("given back", dataclasses.replace(own, give_back=True))):
        sample(str(run), tmp_path / name, FEW_STEPS, asked, count=2, autoencoder=autoencoder)
        made[name] = np.asarray(Image.open(tmp_path / name / "inpainting" / "0.png"))
    assert np.array_equal(made["given back"][known], pixels[known])
    assert not np.array_equal(made["decoded"][known], pixels[known]), "the wrong twin: the weights are random"
    assert np.array_equal(made["given back"][~known], made["decoded"][~known])


def test_what_is_made_anew_is_not_read_and_a_site_changes_as_its_most_changed_pixel(run, opened, files, tmp_path):
    folder, known, strength = files
    opened_run = open_run(run)
    medium = medium_for(opened_run.experiment, opened)
    pixels = np.asarray(Image.open(folder / "image.png"))

    def asked(changed, **what):
        Image.fromarray(np.where(changed, 255 - pixels, pixels)).save(tmp_path / "image.png")
        return asked_of_own(opened_run, medium, Own(tmp_path / "image.png", **what), FEW_STEPS, (), 1, None)

    kinds = {
        "inpainting": ({"mask": folder / "mask.png"}, ~known),
        "image_to_image": ({"strength": folder / "strength.png"}, strength == 255),
    }
    for name, (what, hidden) in kinds.items():
        plain, other, read = (asked(changed, **what) for changed in (np.zeros((8, 8), bool), hidden, ~hidden))
        assert list(plain.tasks) == [name]
        assert np.array_equal(plain.images, other.images)
        assert not np.array_equal(plain.images, read.images), "the wrong twin: pixels that are read"
    begins = asked(known, strength=folder / "strength.png").tasks["image_to_image"].plan.times[0]
    assert begins[0].tolist() == [1, 0, 1, 1], "a site with one pixel that is made anew is made anew"
    assert begins[3].tolist() == [0, 0, np.float32(128 / 255), np.float32(128 / 255)]
    assert np.array_equal(asked(known, mask=folder / "mask.png").tasks["inpainting"].known, begins == 0)


def test_latents_go_beyond_the_border_of_an_image(run, autoencoder, opened, files, tmp_path):
    folder, _, _ = files
    own = Own(folder / "image.png", canvas=(14, 12), give_back=True)
    sample(str(run), tmp_path, FEW_STEPS, own, count=1, autoencoder=autoencoder)
    made = np.asarray(Image.open(tmp_path / "outpainting" / "0.png"))
    assert made.shape == (14, 12)
    assert np.array_equal(made[2:10, 2:10], np.asarray(Image.open(folder / "image.png"))), "on the corner of a site"
    opened_run = open_run(run)
    medium = medium_for(opened_run.experiment, opened)
    texture = Own(exemplar=folder / "image.png", canvas=(12, 12))
    wanted = asked_of_own(opened_run, medium, texture, FEW_STEPS, (), 1, None)
    assert wanted.tasks["texture"].known.sum() == 16
    with pytest.raises(ValueError, match="cannot divide an image of 13x12 pixels"):
        asked_of_own(opened_run, medium, dataclasses.replace(own, canvas=(13, 12)), FEW_STEPS, (), 1, None)


def test_an_image_of_ones_own_takes_an_autoencoder_and_whole_sites(run, opened, files, tmp_path):
    folder, _, _ = files
    own = Own(folder / "image.png", mask=tmp_path / "chequered.png")
    with pytest.raises(ValueError, match="give the folder of the autoencoder that made the latents"):
        sample(str(run), tmp_path, FEW_STEPS, own)
    Image.fromarray((np.indices((8, 8)).sum(0) % 2 * 255).astype(np.uint8)).save(own.mask)
    opened_run = open_run(run)
    with pytest.raises(ValueError, match="no latent site has all of its 2x2 pixels known"):
        asked_of_own(opened_run, medium_for(opened_run.experiment, opened), own, FEW_STEPS, (), 1, None)


def test_a_file_takes_no_latents_for_examples(run, tmp_path):
    opened = open_run(run)
    examples = Examples(jnp.zeros((1, 4, 4, 2)), jnp.zeros(1, jnp.int32))
    with pytest.raises(ValueError, match="the run is on latents; leave the examples out"):
        write_file(dataclasses.replace(opened, examples=examples), tmp_path / "run.safetensors")


def test_the_ordinary_command_trains_on_latents_and_draws_pixels(autoencoder, latents, tmp_path):
    data = LatentsOf(str(autoencoder), Path(latents[0].folder).parent)
    short = RunConfig(steps=1, checkpoint_every=1, sample_every=1, validation_batches=1)
    settings = {"preset": "tiny", "timesteps": Synchronous(), "batch_size": 8, "sampling": FEW_STEPS}
    train(str(tmp_path), data, run_config=short, **settings)
    found = open_run(tmp_path)
    assert (found.experiment.data.source, found.experiment.data.held_out) == latents
    assert found.experiment.timesteps == Synchronous()
    (sheet,) = (tmp_path / "samples").glob("*.png")
    pixels, gap, columns, rows = 8, 2, 8, 4
    wide, high = (count * (pixels + gap) + gap for count in (columns, rows))
    width, height = size_of(sheet)
    assert width * high == height * wide, "decoded, and not a pixel a site"
    for wrong in ({"held_out": Digits()}, {"held_out_one_in": 5}, {"evaluate_every": 1}):
        with pytest.raises(ValueError, match="an autoencoder says which of its images are held out"):
            train(str(tmp_path), data, **settings, **wrong)


# --- The autoencoder as a file


def test_an_exported_autoencoder_encodes_and_decodes_with_its_own_latents(autoencoder, opened, tmp_path):
    file = tmp_path / "ours.safetensors"
    found = export_autoencoder(str(autoencoder), file, images=COUNT)
    assert found.measured.keys() == {"held-out images", "PSNR, dB", "SSIM"}, "no perceptual network was asked for"
    assert found.rounded_from == opened.fingerprint
    assert encode_data(tmp_path / "latents", found) == encode_data(tmp_path / "latents", open_autoencoder(file))
    with pytest.raises(ValueError, match="were made by the autoencoder"):
        encode_data(tmp_path / "latents", opened)
    elsewhere = export_autoencoder(str(file), tmp_path / "mine.safetensors", Digits(), images=COUNT)
    assert elsewhere.fingerprint == found.fingerprint
    assert elsewhere.rounded_from == opened.fingerprint
    assert elsewhere.experiment.data.held_out == Folds(Digits(), 10, (0,))
    with pytest.raises(ValueError, match="without any to train on"):
        export_autoencoder(str(file), file, held_out=Digits())


# --- What is refused


def test_another_autoencoder_is_refused(experiment, latents, tmp_path):
    other = open_autoencoder(save_autoencoder(tmp_path, seed=1))
    refusal = "on latents of the autoencoder .* got .* give the one that they were made by"
    with pytest.raises(ValueError, match=refusal):
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
