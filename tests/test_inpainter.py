"""The supervised inpainter: what it may look at, and how it is trained and guided."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from asyncpatch.config import from_json, to_json
from asyncpatch.guidance import GuidingRegion, InputGuidance
from asyncpatch.masks import Square
from asyncpatch.nn import LeanUNetConfig, NetworkDenoiser, supervised_inpainter
from asyncpatch.noise_schedule import RectifiedFlow
from asyncpatch.timesteps import Masked

BODY = LeanUNetConfig(channels=2, num_classes=3, widths=(8, 16), blocks=(1,), head=8, embedding=8)
CONFIG = supervised_inpainter(BODY)
KNOWN = jnp.zeros((8, 8), bool).at[2:5, 1:7].set(True)
LABEL = jnp.asarray(1, jnp.int32)
Z = jr.normal(jr.key(1), (8, 8, 2))


def awake(config=CONFIG):
    """A network whose every parameter is moved off its start: at the start its velocity is zero."""
    network = eqx.filter_jit(config.build)(jr.key(0))
    leaves, tree = jax.tree.flatten(eqx.filter(network, eqx.is_inexact_array))
    keys = jr.split(jr.key(2), len(leaves))
    moved = [leaf + 0.2 * jr.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    return eqx.combine(jax.tree.unflatten(tree, moved), network)


NETWORK = awake()


@eqx.filter_jit
def velocity(z, t, network=NETWORK):
    return network(z, t, LABEL)


def test_apart_from_which_tokens_are_clean_only_the_largest_time_matters():
    t = jnp.where(KNOWN, 0.0, 0.6)
    lower = t.at[7].set(0.2)
    np.testing.assert_array_equal(velocity(Z, t), velocity(Z, lower))
    assert not np.array_equal(velocity(Z, t), velocity(Z, jnp.where(KNOWN, 0.0, 0.5)))
    assert not np.array_equal(velocity(Z, t), velocity(Z, t.at[7].set(0.0)))


def test_every_unknown_pixel_depends_on_every_known_and_unknown_one():
    t = jnp.where(KNOWN, 0.0, 0.6)
    for at in ((3, 3), (7, 7)):
        assert np.all(np.any(velocity(Z, t) != velocity(Z.at[at].add(1.0), t), axis=-1))


def test_with_no_clean_token_the_conditioning_is_null():
    """The body alone, told zeros: read off by calling it."""
    told = jnp.concatenate([Z, jnp.zeros((8, 8, 3))], axis=-1)
    alone = NETWORK.body(told, jnp.full((8, 8), 0.7), LABEL)[..., :2]
    np.testing.assert_allclose(velocity(Z, jnp.full((8, 8), 0.7)), alone, rtol=2e-4, atol=2e-5)


def test_guidance_away_from_the_null_image_is_input_guidance_at_the_noisiest_time():
    t, noise = jnp.where(KNOWN, 0.0, 0.6), jr.normal(jr.key(4), Z.shape)
    denoiser = NetworkDenoiser(NETWORK, RectifiedFlow())
    guided = InputGuidance(denoiser, [GuidingRegion(2.0, noisier=None)], noise)(Z, t, LABEL)
    null = denoiser(jnp.where(KNOWN[..., None], 0.4 * Z + 0.6 * noise, Z), jnp.full((8, 8), 0.6), LABEL)
    known = denoiser(Z, t, LABEL)
    wanted = known.data + 2.0 * (known.data - null.data)
    np.testing.assert_allclose(guided.data[~KNOWN], wanted[~KNOWN], rtol=1e-3, atol=1e-4)


def test_it_is_written_and_read_as_json():
    assert from_json(to_json(CONFIG)) == CONFIG


def test_what_is_said_twice_must_agree():
    with pytest.raises(ValueError, match="the body's channels is 2, the inpainter's 1"):
        dataclasses.replace(CONFIG, channels=1)
    with pytest.raises(ValueError, match="got another inpainter"):
        supervised_inpainter(CONFIG)


def test_a_share_of_the_fields_knows_nothing():
    """2,000 draws: the share of null fields is within 6 deviations of a quarter, a false alarm below 1e-8."""
    law = Masked(Square(), dropped=0.25)
    times = np.asarray(jax.vmap(lambda key: law(key, 8, 8))(jr.split(jr.key(0), 2000)))
    null = (times > 0).all(axis=(1, 2))
    assert abs(null.mean() - 0.25) < 6 * np.sqrt(0.25 * 0.75 / 2000)
    assert (times[null].min(axis=(1, 2)) == times[null].max(axis=(1, 2))).all()
    plain = np.asarray(jax.vmap(lambda key: Masked(Square())(key, 8, 8))(jr.split(jr.key(0), 2000)))
    np.testing.assert_array_equal(times[~null], plain[~null])
    with pytest.raises(ValueError, match="dropped must be in"):
        Masked(Square(), dropped=1.5)
