"""The UNet: its size, its ends, what its outputs depend on, and what it refuses."""

import dataclasses
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from asyncpatch.nn import PRESETS, DroppingDenoiser, NetworkDenoiser, UNet, UNetConfig, preset
from asyncpatch.nn.layers import Conv, draw_weights, time_features
from asyncpatch.nn.unet import PatchEnds
from asyncpatch.noise_schedule import RectifiedFlow
from asyncpatch.shapes import NULL_LABEL
from asyncpatch.tokens import merge_patches

PIXELS = UNetConfig(channels=1, num_classes=3, base=4, multipliers=(1, 2), blocks=1, attention=(False, True), head=4)
PATCHES = dataclasses.replace(PIXELS, patch=2, pixel_channels=4)
CONFIGS = {"pixels": PIXELS, "patches": PATCHES}


def awake(network, key):
    """The network with every parameter moved off its start: at the start its velocity is zero."""
    leaves, tree = jax.tree.flatten(eqx.filter(network, eqx.is_inexact_array))
    flat, restore = ravel_pytree(leaves)
    return eqx.combine(jax.tree.unflatten(tree, restore(flat + 0.2 * jr.normal(key, flat.shape))), network)


@functools.cache
def awake_network(config):
    start_key, move_key = jr.split(jr.key(0))
    return eqx.filter_jit(lambda: awake(UNet(config, start_key), move_key))()


@eqx.filter_jit
def run(network, z, t, label):
    return network(z, t, label)


def inputs(config, size=8):
    image_key, time_key = jr.split(jr.key(1))
    return jr.normal(image_key, (size, size, config.channels)), jr.uniform(time_key, (size, size)), jnp.asarray(1)


def parameters(config):
    shapes = eqx.filter_eval_shape(UNet, config, jr.key(0))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes) if isinstance(leaf, jax.ShapeDtypeStruct))


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [("60m", 57e6, 63e6), ("600m", 600e6, 630e6), ("digits", 0, 1e6), ("fashion", 0, 5e6), ("miniature", 0, 1e6)],
)
def test_presets_have_their_size(name, least, most):
    assert least <= parameters(PRESETS[name]) <= most


def test_weights_are_drawn_with_the_deviation_of_their_layer():
    """2,304 weights of deviation 1/sqrt(9*16): the estimate strays by 1.5% (1 s.e.); 6% is a 4 s.e. bound."""
    conv = draw_weights(Conv(3, 16, 16), jr.key(0))
    np.testing.assert_allclose(jnp.std(conv.weight) * 12, 1.0, atol=0.06)
    assert jnp.all(conv.bias == 0)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_network_starts_at_zero_velocity(config):
    assert jnp.all(run(eqx.filter_jit(UNet)(config, jr.key(0)), *inputs(config)) == 0)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_every_output_depends_on_every_token_and_every_time(config):
    network = awake_network(config)
    z, t, label = inputs(config)
    corner = jax.jit(jax.grad(lambda z, t: network(z, t, label)[0, 0, 0], argnums=(0, 1)))
    on_tokens, on_times = corner(z, t)
    assert jnp.all(on_tokens != 0)
    assert jnp.all(on_times != 0)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_constant_time_field_equals_a_scalar_time(config):
    network = awake_network(config)
    z, _, label = inputs(config)
    t = jnp.full((8, 8), 0.3)
    field = run(network, z, t, label)
    scalar = eqx.filter_jit(network.from_features)(z, time_features(t[:1, :1]), label)
    np.testing.assert_allclose(field, scalar, rtol=2e-4, atol=2e-4)


def test_label_matters_and_the_null_label_is_a_label_of_its_own():
    network = awake_network(PIXELS)
    z, t, _ = inputs(PIXELS)
    velocities = [run(network, z, t, jnp.asarray(label)) for label in (NULL_LABEL, 0, 1, 2)]
    for i, one in enumerate(velocities):
        assert not any(jnp.allclose(one, other) for other in velocities[:i])


def position_spread(image, patch):
    """Largest difference between pixels that differ only in their position inside a patch, borders left out."""
    inner = image[patch:-patch, patch:-patch]
    return jnp.max(inner) - jnp.min(inner)


def test_head_on_patches_has_no_weight_of_a_position():
    """From equal sites and equal pixels comes an equal image; a depth-to-space head draws its grid at once."""
    ends = eqx.filter_jit(lambda: awake(PatchEnds(PATCHES), jr.key(1)))()
    site_key, pixel_key, twin_key = jr.split(jr.key(2), 3)
    sites = jnp.broadcast_to(jr.normal(site_key, (1, 1, PATCHES.base)), (4, 4, PATCHES.base))
    pixels = jnp.broadcast_to(jr.normal(pixel_key, (1, 1, PATCHES.pixel_channels)), (8, 8, PATCHES.pixel_channels))
    features, embedding = time_features(jnp.full((1, 1), 0.5)), jnp.ones(PATCHES.base)
    # The head reaches two pixels far: rows and columns nearer to the border see its zero padding.
    leave = eqx.filter_jit(ends.leave)
    assert position_spread(leave(sites, pixels, features, embedding), 2) < 1e-5

    wrong_twin = merge_patches(draw_weights(Conv(1, PATCHES.base, 4), twin_key)(sites), 2)
    assert position_spread(wrong_twin, 2) > 1e-2


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_bfloat16_compute_is_close_and_returns_float32(config):
    z, t, label = inputs(config)
    # One seed, weights moved by 20%: bfloat16 keeps 8 bits, a few per cent after a dozen layers.
    exact = run(awake_network(config), z, t, label)
    low = run(awake_network(dataclasses.replace(config, compute_dtype="bfloat16")), z, t, label)
    assert low.dtype == jnp.float32
    assert jnp.linalg.norm(low - exact) < 0.1 * jnp.linalg.norm(exact)
    assert not jnp.all(low == exact)


def test_rematerialisation_changes_no_gradient():
    z, t, label = inputs(PIXELS)

    @eqx.filter_jit
    @eqx.filter_grad
    def slope(network):
        return jnp.sum(network(z, t, label) ** 2)

    stored = slope(awake_network(PIXELS))
    recomputed = slope(awake_network(dataclasses.replace(PIXELS, rematerialise=True)))
    for one, other in zip(jax.tree.leaves(stored), jax.tree.leaves(recomputed), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-3, atol=2e-3 * float(jnp.max(jnp.abs(one))))


def test_dropout_is_drawn_from_its_key_and_off_without():
    config = dataclasses.replace(PIXELS, dropout=0.5)
    denoiser = NetworkDenoiser(awake_network(config), RectifiedFlow())
    z, t, label = inputs(config)
    plain = run(denoiser, z, t, label).data
    one, again, other = (run(DroppingDenoiser(denoiser, jr.key(k)), z, t, label).data for k in (1, 1, 2))
    assert jnp.all(one == again)
    assert not jnp.allclose(one, other)
    assert not jnp.allclose(one, plain)
    assert DroppingDenoiser(denoiser, jr.key(1)).schedule is denoiser.schedule
    without = NetworkDenoiser(awake_network(PIXELS), RectifiedFlow())
    assert jnp.allclose(run(without, z, t, label).data, plain)


@pytest.mark.parametrize(
    ("shape", "message"),
    [((10, 8, 1), "multiples of 4"), ((8, 8, 3), "takes images of 1 channels, got 3")],
)
def test_images_that_do_not_fit_are_refused_before_compute(shape, message):
    network = eqx.filter_eval_shape(UNet, PATCHES, jr.key(0))
    with pytest.raises(ValueError, match=message):
        eqx.filter_eval_shape(lambda net: net(jnp.zeros(shape), jnp.zeros(shape[:2]), jnp.asarray(0)), network)


def test_unknown_preset_is_refused_by_name():
    with pytest.raises(
        ValueError, match="no preset is called '60M'; choose one of digits, fashion, miniature, 60m, 600m"
    ):
        preset("60M", channels=3, num_classes=1000)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attention": (True,)}, "give one per level"),
        ({"compute_dtype": "float16"}, "float32 or bfloat16"),
        ({"dropout": 1.0}, r"share in \[0, 1\)"),
    ],
)
def test_bad_configs_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(PIXELS, **change)


def test_heads_must_fill_the_channels():
    with pytest.raises(ValueError, match="cannot be split into heads of 5"):
        UNet(dataclasses.replace(PIXELS, head=5), jr.key(0))
