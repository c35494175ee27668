"""A run on latents from its autoencoder to rows of evaluation, its bound, and what is refused on the way."""

import dataclasses
from pathlib import Path

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from PIL import Image
from toy_latents import AUTOENCODER, save_autoencoder

from asyncpatch.data import LatentColours, PixelView, latents_of
from asyncpatch.elbo import EightBit
from asyncpatch.masks import OfSites, Square, mask_set
from asyncpatch.metrics import hash_images, save_classifier, train_classifier
from asyncpatch.nn import known_sites
from asyncpatch.runs import (
    SamplingConfig,
    configure,
    encode_data,
    latent_view,
    open_autoencoder,
    open_run,
    train_run,
)
from asyncpatch.timesteps import AsyncPatch
from asyncpatch.train import RunConfig
from experiments.evaluate import evaluate
from experiments.likelihood import likelihood
from experiments.parts.bounds import Effort, Ends, open_model
from experiments.parts.judges import OwnClassifier, read_images
from experiments.parts.medium import AS_DECODED, medium_of
from experiments.parts.rows import Generation, Inpainting, RePaint, Steps
from experiments.parts.scores import completed_images

COUNT = 8
FEW = Steps(steps=2)


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory) -> Path:
    return save_autoencoder(tmp_path_factory.mktemp("autoencoder"))


@pytest.fixture(scope="module")
def opened(autoencoder):
    return open_autoencoder(autoencoder)


@pytest.fixture(scope="module")
def latents(opened, tmp_path_factory):
    return tmp_path_factory.mktemp("latents"), *encode_data(tmp_path_factory.getbasetemp() / "encoded", opened)


@pytest.fixture(scope="module")
def experiment(latents):
    _, training, held_out = latents
    whole = configure(training, "digits", AsyncPatch((1, 2)), held_out=held_out, batch_size=8)
    return dataclasses.replace(whole, network=dataclasses.replace(whole.network, base=8, head=8))


@pytest.fixture(scope="module")
def run(experiment, opened, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    view = latent_view(opened, experiment)
    sampling = SamplingConfig(steps=2, guidance=1.0, patch=2)
    train_run(folder, experiment, RunConfig(steps=1, validation_batches=1), sampling=sampling, view=view)
    return folder


@pytest.fixture(scope="module")
def judge(opened, tmp_path_factory) -> OwnClassifier:
    file = tmp_path_factory.mktemp("judge") / "classifier.npz"
    images, labels = read_images(opened.experiment, opened.experiment.data.source)
    save_classifier(file, train_classifier(images, labels, 10, seed=0, steps=2))
    return OwnClassifier(file)


@pytest.fixture(scope="module")
def given(opened):
    """Held-out images, their labels and known regions."""
    images, labels = read_images(opened.experiment, opened.experiment.data.held_out, COUNT)
    return images, labels, mask_set(Square(), COUNT, 8, 8, 0)


# --- The run


def test_a_site_is_a_token_and_pictures_are_of_pixels(run, experiment):
    opened = open_run(run)  # which needs no autoencoder
    assert opened.experiment == experiment
    assert opened.image_shape == (4, 4, 2)
    (sheet,) = (run / "samples").glob("*.png")
    pixels, gap, columns, rows = 8, 2, 8, 4
    wide, high = (count * (pixels + gap) + gap for count in (columns, rows))
    width, height = Image.open(sheet).size
    assert width * high == height * wide
    assert width % wide == 0


def test_without_the_autoencoder_latents_are_shown_as_colours():
    made = jnp.array([-6.0, -1.5, 0.0, 3.0]).reshape(1, 2, 2, 1)
    assert LatentColours().images(made).ravel().tolist() == [-1.0, -0.5, 0.0, 1.0]


def test_latents_are_encoded_once_and_held_out_ones_scaled_as_the_others(latents, opened):
    _, training, held_out = latents
    folder = Path(training.folder).parent
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert encode_data(folder, opened) == (training, held_out)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert held_out.scale == training.scale
    assert latents_of(training) is training


# --- Evaluation


def test_rows_are_of_pixels_and_name_the_autoencoder(run, autoencoder, opened, judge, given, tmp_path):
    rows = tmp_path / "rows.jsonl"
    generated, completed, repainted = (
        evaluate(run, rows, task, FEW, judge, autoencoder=autoencoder)
        for task in (Generation(COUNT), Inpainting(Square(), COUNT), Inpainting(Square(), COUNT, method=RePaint(1, 1)))
    )
    for row in (generated, completed, repainted):
        assert row["autoencoder"] == opened.fingerprint
        assert row["data_hash"] == hash_images([given[0]])
        assert all(np.isfinite(value["value"]) for value in row["values"].values())
    names = {"FD-classifier", "PSNR", "SSIM"}
    both = names | {name + AS_DECODED for name in names}
    assert completed["values"].keys() == repainted["values"].keys() == both
    assert completed["values"]["PSNR"] == completed["values"]["PSNR" + AS_DECODED], "it is of hidden pixels"
    distances = [completed["values"]["FD-classifier" + form]["value"] for form in ("", AS_DECODED)]
    assert distances[0] < distances[1], "a random autoencoder gives nothing back"


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


# --- What is refused


def test_another_autoencoder_is_refused(experiment, latents, tmp_path):
    other = open_autoencoder(save_autoencoder(tmp_path, seed=1))
    with pytest.raises(ValueError, match=r"on latents of the autoencoder .* got .* give the folder"):
        medium_of(experiment, other)
    with pytest.raises(ValueError, match="were made by the autoencoder"):
        encode_data(Path(latents[1].folder).parent, other)


def test_latents_are_not_judged_without_their_autoencoder_nor_pixels_with_one(experiment, opened):
    with pytest.raises(ValueError, match="give the folder of the autoencoder"):
        medium_of(experiment, None)
    pixels = configure(opened.experiment.data.source, "digits", AsyncPatch((1, 2)), batch_size=8)
    assert medium_of(pixels, None).view == PixelView()
    with pytest.raises(ValueError, match="leave the autoencoder out"):
        medium_of(pixels, opened)


def test_latents_of_other_images_are_refused(experiment, opened):
    swapped = dataclasses.replace(experiment.data, held_out=experiment.data.source)
    with pytest.raises(ValueError, match="60 latents in its data's held_out, the autoencoder 30 images"):
        medium_of(dataclasses.replace(experiment, data=swapped), opened)


@pytest.mark.parametrize(("wish", "named"), [({"flip": True}, "RandomFlip"), ({"pad_to": 8}, "PadTo")])
def test_latents_are_not_flipped_or_padded(latents, wish, named):
    with pytest.raises(ValueError, match=f"{named} changes pixels, and these records are latents"):
        configure(latents[1], "digits", AsyncPatch((1, 2)), **wish)


# --- The bound


def test_the_bound_is_on_a_density_of_latents(run, tmp_path):
    rows = likelihood(run, tmp_path, ("synchronous", "window"), 2, (1, 2), 4, Ends(), Effort(points=2))
    assert [row.law for row in rows] == ["synchronous", "window"]
    assert all(np.isfinite(row.bits) for row in rows)
    _, model = open_model(run, Ends(), 4)
    with pytest.raises(ValueError, match="no 8-bit values"):
        EightBit().check(model.images)
