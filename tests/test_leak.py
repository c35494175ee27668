"""The leak score: 0 to the bit for an encoder that sees no hidden pixel, and a leak where there is one."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from test_autoencoder import SMALL, awake_autoencoder

from asyncpatch.metrics import greyed, leak_score, probe_accuracy, told, untold
from asyncpatch.metrics.leak import distances

COUNT, SIDE, FACTOR = 32, 32, SMALL.factor


@pytest.fixture(scope="module")
def masked_images():
    """Smooth images, so that latents of neighbours go together, and a corner hidden in each."""
    coarse = jr.normal(jr.key(0), (COUNT, 4, 4, 2))
    images = np.asarray(jnp.tanh(jax.image.resize(coarse, (COUNT, SIDE, SIDE, 2), "linear")))
    known = np.ones((COUNT, SIDE, SIDE), bool)
    known[:, :10, :10] = False
    return images, known


def test_distances_count_sites_and_diagonals_as_one():
    known = np.ones((1, 8, 12), bool)
    known[0, 3, 0] = False
    expected = [[1, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5], [1, 1, 2, 3, 4, 5], [2, 2, 2, 3, 4, 5]]
    np.testing.assert_array_equal(distances(known, 2)[0], expected)
    with pytest.raises(ValueError, match="nothing is hidden in image 1"):
        distances(np.concatenate([known, np.ones_like(known)]), 2)


def test_an_encoder_that_is_told_leaks_nothing_and_its_twins_do(masked_images):
    autoencoder = awake_autoencoder(SMALL)
    candid, grey, whole = (leak_score(way(autoencoder), *masked_images, FACTOR) for way in (told, greyed, untold))
    assert [leak.distance for leak in candid] == [1, 2, 3, 4, 5]
    assert candid[0].sites == COUNT * 7
    assert all(leak.by_pixels == 0 for leak in candid)
    assert candid[0].by_region > 0.01
    assert all(leak.by_region == 0 for leak in candid if leak.distance > SMALL.encoder.reach)
    assert all(leak.by_pixels == 0 for leak in grey)
    assert grey[0].by_region > 0.01
    assert whole[0].by_pixels > 0.01
    assert whole[0].by_pixels > whole[1].by_pixels
    assert all(leak.by_region == 0 for leak in whole), "it does not know of the region, and shows its pixels"


def test_movement_is_in_units_of_the_spread(masked_images):
    """Twice the latents, the same score; a step of half the spread scores a half."""
    images, known = masked_images
    latents = np.random.default_rng(0).standard_normal((COUNT, 8, 8, 3)) * np.array([1.0, 10.0, 100.0])
    spread = latents.std(axis=(0, 1, 2))

    def encode(images, region):
        return latents + (0.5 * spread if not region.all() else 0.0)

    for leak in leak_score(encode, images, known, FACTOR):
        assert leak.by_region == pytest.approx(0.5)
        assert leak.by_pixels == 0


def test_a_probe_finds_the_region_where_it_leaks_and_only_there(masked_images):
    encode = told(awake_autoencoder(SMALL))
    far = probe_accuracy(encode, *masked_images, FACTOR, distance=5)
    assert far.value == 0.5, "windows of both kinds are the same, and half of the answers are right"

    def leaking(images, known):
        return encode(images, known) + (0.0 if known.all() else 2.0)

    leak = probe_accuracy(leaking, *masked_images, FACTOR, distance=5)
    assert leak.value > 0.9
    assert leak.standard_error < 0.05


def test_what_cannot_be_scored_is_refused(masked_images):
    images, known = masked_images
    encode = told(awake_autoencoder(SMALL))
    with pytest.raises(ValueError, match="takes two images or more, each with the known region of its pixels, got 1"):
        leak_score(encode, images[:1], known[:1], FACTOR)
    with pytest.raises(ValueError, match="no site is known in any image"):
        leak_score(encode, images, np.zeros_like(known), FACTOR)
    with pytest.raises(ValueError, match="four images or more with a known site 9 from the hidden region, got 0"):
        probe_accuracy(encode, images, known, FACTOR, distance=9)
