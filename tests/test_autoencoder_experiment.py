"""What `experiments.autoencoder` measures and draws."""

import dataclasses
import json

import jax.random as jr
import numpy as np
import pytest
from PIL import Image
from test_autoencoder import awake_autoencoder
from toy_adversarial import AUTOENCODER

from asyncpatch.data import TextureCrops
from asyncpatch.data.textures import HELD_OUT
from asyncpatch.losses import AutoencoderObjective
from asyncpatch.masks import RandomBox
from asyncpatch.metrics import psnr
from asyncpatch.nn import DiscriminatorConfig
from asyncpatch.runs import OpenedAutoencoder, configure_autoencoder
from asyncpatch.train import Saved
from experiments.autoencoder import held_out_images, measure
from experiments.parts.autoencoder_quality import codebook_use, qualities, reconstruct, regions_of

COUNT = 16


def experiment_of(whole):
    usual = configure_autoencoder(TextureCrops(), "photographs-64", held_out=TextureCrops(bands=HELD_OUT), batch_size=8)
    return dataclasses.replace(
        usual,
        autoencoder=AUTOENCODER,
        discriminator=DiscriminatorConfig(channels=1, widths=(4,)),
        objective=AutoencoderObjective(masks=RandomBox(), whole=whole, start=1),
    )


@pytest.fixture(scope="module")
def opened():
    """One whose config says that it was trained on masks, and one that was not, with random weights."""
    autoencoder = awake_autoencoder(AUTOENCODER)
    return [
        OpenedAutoencoder(experiment, autoencoder, Saved(experiment, 2, None, "0", "unknown"))
        for experiment in map(experiment_of, (0.5, 1.0))
    ]


def test_measurements_are_written_with_what_made_them(opened, tmp_path):
    masked, without = opened
    images = held_out_images(masked.experiment, COUNT)
    assert images.shape == (COUNT, 32, 32, 1)
    tables = measure(tmp_path, masked, without, images)
    record = json.loads((tmp_path / "quality.json").read_text())
    assert [one["fingerprint"] for one in record["autoencoders"]] == [masked.fingerprint, without.fingerprint]
    assert [one["experiment"]["objective"]["whole"] for one in record["autoencoders"]] == [0.5, 1.0]
    assert record["images"] == COUNT
    assert record["perceptual_network"] is None
    assert record["quality"].keys() == {"whole", "square", "extrema", "thin", "wide"}
    ways = {name: {one["way"] for one in every} for name, every in record["leaks"].items()}
    assert ways == {"this": {"told"}, "beside": {"greyed", "masked afterwards"}}
    by_pixels = {
        one["way"]: max(leak["by_pixels"] for leak in one["by_distance"])
        for every in record["leaks"].values()
        for one in every
        if one["family"] == "square"
    }
    assert by_pixels["told"] == 0
    assert by_pixels["greyed"] == 0
    assert by_pixels["masked afterwards"] > 0, "it sees what is hidden, so the score can tell"
    assert "Known pixels given back" in tables
    assert "| beside | greyed | square |" in tables
    for name in ("leak.png", "square.png", "extrema.png", "thin.png", "wide.png"):
        with Image.open(tmp_path / name) as picture:
            assert picture.width > 100


def test_quality_is_of_known_pixels_alone(opened):
    autoencoder, images = opened[0].autoencoder, held_out_images(opened[0].experiment, 4)
    known = regions_of(images)["square"]
    found = qualities(autoencoder, images, {"square": known}, None)["square"]
    back = reconstruct(autoencoder, images, known)
    spoilt = np.where(known[..., None], back, -back)
    by_hand = [psnr(*one) for one in zip(spoilt, images, ~known, strict=True)]
    assert found.psnr.value == pytest.approx(np.mean(by_hand))


def test_codes_are_counted_over_all_images(opened):
    autoencoder = opened[0].autoencoder
    images = np.asarray(jr.uniform(jr.key(0), (4, 32, 32, 1), minval=-1.0))
    share, perplexity = codebook_use(autoencoder, images, batch=2)
    assert 0 < perplexity <= share <= 1
    one_colour = np.zeros_like(images)
    assert codebook_use(autoencoder, one_colour, batch=2)[0] <= share
