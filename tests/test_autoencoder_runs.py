"""An autoencoder from its config to being opened again, and what is refused on the way."""

import dataclasses
import gc
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors import safe_open
from toy_adversarial import AUTOENCODER

from asyncpatch.config import from_json, to_json
from asyncpatch.data import Digits, Folds, TextureCrops
from asyncpatch.losses import AutoencoderObjective
from asyncpatch.masks import RandomBox
from asyncpatch.nn import DiscriminatorConfig, autoencoder_preset, fingerprint_of
from asyncpatch.runs import (
    AutoencoderExperiment,
    FileFormatError,
    LpipsOnAlexNet,
    as_stored,
    configure_autoencoder,
    open_autoencoder,
    open_run,
    read_autoencoder,
    shipped,
    shipped_autoencoders,
    train_autoencoder,
    write_autoencoder,
)
from asyncpatch.runs.autoencoder_file import FORM
from asyncpatch.runs.opening import MODELS
from asyncpatch.runs.sealed import stored_as
from asyncpatch.train import CheckpointError, RunConfig, read_metrics

QUICK = RunConfig(steps=2, log_every=1, checkpoint_every=2, validation_batches=2)
GOLDEN = Path(__file__).parent / "golden" / "run_0_1_0"

# When it reads a damaged file, Orbax leaves behind coroutines with exceptions that nobody asks for.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module", autouse=True)
def collected():
    """Lets what those reads leave behind be found under this file's filter."""
    yield
    gc.collect()


def an_experiment() -> AutoencoderExperiment:
    usual = configure_autoencoder(Digits(), "photographs-64", batch_size=8)
    assert usual.autoencoder.channels == 1
    return dataclasses.replace(
        usual,
        autoencoder=AUTOENCODER,
        discriminator=DiscriminatorConfig(channels=1, widths=(4,)),
        objective=AutoencoderObjective(masks=RandomBox(), start=1),
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("autoencoder")
    return folder, train_autoencoder(folder, an_experiment(), QUICK)


def test_what_was_trained_is_opened_with_its_averaged_weights_and_its_fingerprint(trained):
    folder, state = trained
    opened = open_autoencoder(folder)
    assert opened.experiment == an_experiment()
    assert opened.saved.step == 2
    for one, other in zip(jax.tree.leaves(opened.autoencoder), jax.tree.leaves(state.ema), strict=True):
        np.testing.assert_array_equal(one, other)
    assert opened.fingerprint == fingerprint_of(state.ema)
    assert opened.fingerprint != fingerprint_of(state.denoiser)


def test_validation_tells_losses_apart_by_how_much_is_hidden(trained):
    found = {name for line in read_metrics(trained[0]) for name in line}
    assert {"validation_loss", "validation_loss_by_time/0-0.2"} <= found
    assert {"reconstruction", "discriminator_loss", "codes_in_use", "code_perplexity"} <= found


def test_the_config_survives_its_file():
    for experiment in (an_experiment(), dataclasses.replace(an_experiment(), perceptual=LpipsOnAlexNet())):
        assert from_json(to_json(experiment)) == experiment


def test_one_thing_is_not_opened_as_another(trained):
    with pytest.raises(ValueError, match="the folder holds a Experiment and no autoencoder"):
        open_autoencoder(GOLDEN)
    with pytest.raises(ValueError, match="the config of a AutoencoderExperiment, not of a run"):
        open_run(trained[0])


def test_an_autoencoder_that_is_cut_short_is_said_to_be(trained, tmp_path):
    """Every large file of the only checkpoint loses its second half."""
    (tmp_path / "checkpoints").mkdir()
    for path in sorted((trained[0] / "checkpoints").rglob("*")):
        copy = tmp_path / "checkpoints" / path.relative_to(trained[0] / "checkpoints")
        if path.is_dir():
            copy.mkdir(parents=True)
        else:
            content = path.read_bytes()
            copy.write_bytes(content[: len(content) // 2] if "/d/" in path.as_posix() else content)
    with pytest.raises(CheckpointError, match=r"none of the checkpoints in .* can be read"):
        open_autoencoder(tmp_path)


def test_a_file_is_the_autoencoder_to_the_bit_and_a_damaged_one_is_refused(trained, tmp_path):
    opened, path = open_autoencoder(trained[0]), tmp_path / "autoencoder.safetensors"
    again = read_autoencoder(write_autoencoder(opened, path))
    assert again.fingerprint == opened.fingerprint
    assert (again.experiment, again.saved) == (opened.experiment, opened.saved)
    whole = path.read_bytes()
    cut, odd = tmp_path / "cut", tmp_path / "odd"
    for length in (7, 200, len(whole) // 2, len(whole) - 1):
        cut.write_bytes(whole[:length])
        with pytest.raises(FileFormatError, match="is no safetensors file, or is damaged"):
            read_autoencoder(cut)
    odd.write_bytes(whole[:-3] + bytes(byte ^ 1 for byte in whole[-3:]))
    with pytest.raises(FileFormatError, match="its contents do not match its digest"):
        read_autoencoder(odd)
    with pytest.raises(FileFormatError, match=r"no autoencoder of asyncpatch: .* the format 'asyncpatch-run'"):
        read_autoencoder(MODELS / "fashion.safetensors")
    with pytest.raises(FileFormatError, match="but no run of asyncpatch"):
        open_run(path)
    with pytest.raises(FileNotFoundError, match="there is no autoencoder at"):
        read_autoencoder(tmp_path / "nothing")


def test_a_rounded_file_is_another_autoencoder_and_says_of_which(trained, tmp_path):
    """Its fingerprint is that of the weights that it gives back: what encodes with the file decodes with it."""
    opened, path = open_autoencoder(trained[0]), tmp_path / "half.safetensors"
    measured = dataclasses.replace(opened, measured={"PSNR, dB": 20.5})
    again = open_autoencoder(write_autoencoder(measured, path, "float16"))
    assert again.fingerprint == fingerprint_of(as_stored(opened.autoencoder, "float16"))
    assert again.fingerprint != opened.fingerprint, "the wrong twin: weights that were not rounded"
    assert again.rounded_from == opened.fingerprint
    assert "PSNR, dB         20.5" in repr(again)
    once_more = open_autoencoder(write_autoencoder(again, tmp_path / "twice.safetensors", "float16"))
    assert (once_more.fingerprint, once_more.rounded_from) == (again.fingerprint, opened.fingerprint)
    assert path.stat().st_size < write_autoencoder(opened, tmp_path / "whole").stat().st_size
    assert read_autoencoder(tmp_path / "whole").rounded_from is None
    with pytest.raises(ValueError, match="holds one step alone"):
        open_autoencoder(path, step=2)


def test_a_file_whose_weights_are_not_those_it_names_is_refused(trained, tmp_path):
    opened, path = open_autoencoder(trained[0]), tmp_path / "odd.safetensors"
    write_autoencoder(opened, path)
    with safe_open(path, framework="numpy") as file:
        record = json.loads(file.metadata()["record"])
    weights = stored_as(opened.autoencoder, "float32")
    FORM.write(path, record | {"fingerprint": "0" * 64}, weights)
    with pytest.raises(FileFormatError, match=r"says that its autoencoder is '000.* get it again"):
        open_autoencoder(path)
    FORM.write(path, record | {"measured": {"PSNR, dB": "high"}}, weights)
    with pytest.raises(FileFormatError, match="which are no numbers by name"):
        open_autoencoder(path)


def test_an_autoencoder_comes_with_the_package():
    assert "photographs" in shipped_autoencoders()
    assert not set(shipped_autoencoders()) & set(shipped()), "a run is another thing"
    opened = open_autoencoder("photographs")
    assert opened.experiment.data.shape == (64, 64, 3)
    assert opened.experiment.autoencoder == autoencoder_preset("photographs-64")[0]
    assert opened.measured["PSNR, dB"] > 24
    assert opened.saved.commit != "unknown"
    with pytest.raises(FileNotFoundError, match="that comes with the package: photographs"):
        open_autoencoder("nowhere")


def test_images_of_the_same_weights_may_lie_elsewhere(trained):
    opened = open_autoencoder(trained[0])
    elsewhere = opened.on(Folds(Digits(), 2, (0,)), Folds(Digits(), 2, (1,)))
    assert elsewhere.fingerprint == opened.fingerprint
    assert elsewhere.experiment.data.source == Folds(Digits(), 2, (0,))
    assert elsewhere.saved.experiment == elsewhere.experiment
    odd = TextureCrops(side=31)
    with pytest.raises(ValueError, match="cannot divide an image of 31x31 pixels"):
        opened.on(odd, odd)


def test_what_does_not_fit_is_refused_before_training(tmp_path):
    experiment = an_experiment()
    in_thirds = dataclasses.replace(experiment, training=dataclasses.replace(experiment.training, accumulation=3))
    with pytest.raises(ValueError, match=r"batch_size must be a multiple of 12 .* got 8"):
        train_autoencoder(tmp_path, in_thirds, QUICK)
    coarse = dataclasses.replace(experiment, discriminator=DiscriminatorConfig(channels=1, widths=(4,) * 4))
    with pytest.raises(ValueError, match="multiples of 16, got 8x8 of 1"):
        train_autoencoder(tmp_path, coarse, QUICK)
    with pytest.raises(ValueError, match="no autoencoder is called 'photos'"):
        configure_autoencoder(Digits(), "photos")
