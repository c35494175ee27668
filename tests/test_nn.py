"""The UNet and the transformer: their size, ends, what outputs depend on, and what they refuse."""

import dataclasses
import functools
from types import SimpleNamespace

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from asyncpatch.nn import (
    PRESETS,
    DroppingDenoiser,
    LeanUNetConfig,
    NetworkDenoiser,
    TransformerConfig,
    UNetConfig,
    preset,
)
from asyncpatch.nn.blocks import attend, attention_kernel
from asyncpatch.nn.ends import PatchEnds
from asyncpatch.nn.layers import RMS_EPSILON, Conv, draw_weights, time_features, unit_rms
from asyncpatch.nn.products import product
from asyncpatch.nn.transformer import MODULATIONS, Block, Turns
from asyncpatch.noise_schedule import RectifiedFlow
from asyncpatch.shapes import NULL_LABEL
from asyncpatch.tokens import merge_patches

PIXELS = UNetConfig(channels=1, num_classes=3, base=4, multipliers=(1, 2), blocks=1, attention=(False, True), head=4)
PATCHES = dataclasses.replace(PIXELS, patch=2, pixel_channels=4)
TOKENS = TransformerConfig(channels=1, num_classes=3, width=16, depth=2, hidden=16, head=8, patch=2, pixel_channels=4)
LEAN = LeanUNetConfig(channels=1, num_classes=3, widths=(8, 16), blocks=(1,), head=8, embedding=8)
CONFIGS = {"pixels": PIXELS, "patches": PATCHES, "transformer": TOKENS, "lean": LEAN}
every_network = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


def awake(network, key):
    """The network with every parameter moved off its start: at the start its velocity is zero."""
    leaves, tree = jax.tree.flatten(eqx.filter(network, eqx.is_inexact_array))
    flat, restore = ravel_pytree(leaves)
    return eqx.combine(jax.tree.unflatten(tree, restore(flat + 0.2 * jr.normal(key, flat.shape))), network)


@functools.cache
def awake_network(config):
    start_key, move_key = jr.split(jr.key(0))
    return eqx.filter_jit(lambda: awake(config.build(start_key), move_key))()


@eqx.filter_jit
def run(network, z, t, label):
    return network(z, t, label)


def inputs(config, size=8):
    image_key, time_key = jr.split(jr.key(1))
    return jr.normal(image_key, (size, size, config.channels)), jr.uniform(time_key, (size, size)), jnp.asarray(1)


def parameters(config):
    shapes = eqx.filter_eval_shape(config.build, jr.key(0))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes) if isinstance(leaf, jax.ShapeDtypeStruct))


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("digits", 0, 1e6),
        ("fashion", 0, 5e6),
        ("fashion-small", 0.27e6, 0.32e6),
        ("miniature", 0, 1e6),
        ("60m", 57e6, 63e6),
        ("600m", 600e6, 630e6),
        ("miniature-transformer", 1e6, 1.7e6),
        ("60m-transformer", 57e6, 63e6),
        ("600m-transformer", 600e6, 630e6),
    ],
)
def test_presets_have_their_size(name, least, most):
    assert least <= parameters(PRESETS[name]) <= most


def test_weights_are_drawn_with_the_deviation_of_their_layer():
    """2,304 weights of deviation 1/sqrt(9*16): the estimate strays by 1.5% (1 s.e.); 6% is a 4 s.e. bound."""
    conv = draw_weights(Conv(3, 16, 16), jr.key(0))
    np.testing.assert_allclose(jnp.std(conv.weight) * 12, 1.0, atol=0.06)
    assert jnp.all(conv.bias == 0)


@every_network
def test_network_starts_at_zero_velocity(config):
    assert jnp.all(run(eqx.filter_jit(config.build)(jr.key(0)), *inputs(config)) == 0)


@every_network
def test_every_output_depends_on_every_token_and_every_time(config):
    network = awake_network(config)
    z, t, label = inputs(config)
    corner = jax.jit(jax.grad(lambda z, t: network(z, t, label)[0, 0, 0], argnums=(0, 1)))
    on_tokens, on_times = corner(z, t)
    assert jnp.all(on_tokens != 0)
    assert jnp.all(on_times != 0)


@every_network
def test_which_pixel_of_a_patch_has_which_time_matters(config):
    """Pooled over the patch the two fields are the same, and a network that sees nothing else cannot tell."""
    network = awake_network(config)
    z, t, label = inputs(config)
    swapped = t.at[0, 0].set(t[0, 1]).at[0, 1].set(t[0, 0])
    assert not jnp.allclose(run(network, z, t, label), run(network, z, swapped, label), atol=1e-3)


@every_network
def test_one_network_takes_images_of_any_size(config):
    network = awake_network(config)
    for size in (4, 12):
        z, t, label = inputs(config, size)
        assert jnp.all(jnp.isfinite(run(network, z, t, label)))


@every_network
def test_a_batch_of_images_is_each_image(config):
    network = awake_network(config)
    z, t, label = inputs(config)
    batch = jnp.stack([z, -z]), jnp.stack([t, 1 - t]), jnp.stack([label, label + 1])
    together = jax.jit(jax.vmap(lambda *one: network(*one)))(*batch)
    for i in range(2):
        alone = run(network, *(part[i] for part in batch))
        np.testing.assert_allclose(together[i], alone, rtol=2e-4, atol=2e-4)


@every_network
def test_constant_time_field_equals_a_scalar_time(config):
    network = awake_network(config)
    z, _, label = inputs(config)
    t = jnp.full((8, 8), 0.3)
    field = run(network, z, t, label)
    scalar = eqx.filter_jit(network.from_features)(z, time_features(t[:1, :1]), label)
    np.testing.assert_allclose(field, scalar, rtol=2e-4, atol=2e-4)


@every_network
def test_label_matters_and_the_null_label_is_a_label_of_its_own(config):
    network = awake_network(config)
    z, t, _ = inputs(config)
    velocities = [run(network, z, t, jnp.asarray(label)) for label in (NULL_LABEL, 0, 1, 2)]
    for i, one in enumerate(velocities):
        assert not any(jnp.allclose(one, other) for other in velocities[:i])


def position_spread(image, patch):
    """Largest difference between pixels that differ only in their position inside a patch, borders left out."""
    inner = image[patch:-patch, patch:-patch]
    return jnp.max(inner) - jnp.min(inner)


def test_head_on_patches_has_no_weight_of_a_position():
    """From equal sites and equal pixels comes an equal image; a depth-to-space head draws its grid at once."""
    ends = eqx.filter_jit(lambda: awake(PatchEnds(1, PATCHES.base, PATCHES.patch, PATCHES.pixel_channels), jr.key(1)))()
    site_key, pixel_key, twin_key = jr.split(jr.key(2), 3)
    sites = jnp.broadcast_to(jr.normal(site_key, (1, 1, PATCHES.base)), (4, 4, PATCHES.base))
    pixels = jnp.broadcast_to(jr.normal(pixel_key, (1, 1, PATCHES.pixel_channels)), (8, 8, PATCHES.pixel_channels))
    features, embedding = time_features(jnp.full((1, 1), 0.5)), jnp.ones(PATCHES.base)
    # The head reaches two pixels far: rows and columns nearer to the border see its zero padding.
    leave = eqx.filter_jit(lambda *inputs: ends.head(ends.leave(*inputs)))
    assert position_spread(leave(sites, pixels, features, embedding), 2) < 1e-5

    wrong_twin = merge_patches(draw_weights(Conv(1, PATCHES.base, 4), twin_key)(sites), 2)
    assert position_spread(wrong_twin, 2) > 1e-2


@every_network
def test_bfloat16_compute_is_close_and_returns_float32(config):
    z, t, label = inputs(config)
    # One seed, weights moved by 20%: bfloat16 keeps 8 bits, a few per cent after a dozen layers.
    exact = run(awake_network(config), z, t, label)
    low = run(awake_network(dataclasses.replace(config, compute_dtype="bfloat16")), z, t, label)
    assert low.dtype == jnp.float32
    assert jnp.linalg.norm(low - exact) < 0.1 * jnp.linalg.norm(exact)
    assert not jnp.all(low == exact)


@every_network
def test_rematerialisation_changes_no_gradient(config):
    z, t, label = inputs(config)

    @eqx.filter_jit
    @eqx.filter_grad
    def slope(network):
        return jnp.sum(network(z, t, label) ** 2)

    stored = slope(awake_network(config))
    recomputed = slope(awake_network(dataclasses.replace(config, rematerialise=True)))
    for one, other in zip(jax.tree.leaves(stored), jax.tree.leaves(recomputed), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-3, atol=2e-3 * float(jnp.max(jnp.abs(one))))


@every_network
def test_dropout_is_drawn_from_its_key_and_off_without(config):
    denoiser = NetworkDenoiser(awake_network(dataclasses.replace(config, dropout=0.5)), RectifiedFlow())
    z, t, label = inputs(config)
    plain = run(denoiser, z, t, label).data
    one, again, other = (run(DroppingDenoiser(denoiser, jr.key(k)), z, t, label).data for k in (1, 1, 2))
    assert jnp.all(one == again)
    assert not jnp.allclose(one, other)
    assert not jnp.allclose(one, plain)
    assert DroppingDenoiser(denoiser, jr.key(1)).schedule is denoiser.schedule
    without = NetworkDenoiser(awake_network(config), RectifiedFlow())
    assert jnp.allclose(run(without, z, t, label).data, plain)


@pytest.mark.parametrize(
    ("config", "shape", "message"),
    [
        (PATCHES, (10, 8, 1), "multiples of 4"),
        (PATCHES, (8, 8, 3), "takes images of 1 channels, got 3"),
        (TOKENS, (8, 9, 1), "multiples of 2"),
        (TOKENS, (8, 8, 3), "takes images of 1 channels, got 3"),
    ],
)
def test_images_that_do_not_fit_are_refused_before_compute(config, shape, message):
    network = eqx.filter_eval_shape(config.build, jr.key(0))
    with pytest.raises(ValueError, match=message):
        eqx.filter_eval_shape(lambda net: net(jnp.zeros(shape), jnp.zeros(shape[:2]), jnp.asarray(0)), network)


def test_unknown_preset_is_refused_by_name():
    with pytest.raises(
        ValueError, match="no preset is called '60M'; choose one of digits, fashion, fashion-small, mini"
    ):
        preset("60M", channels=3, num_classes=1000)


@pytest.mark.parametrize(
    ("config", "change", "message"),
    [
        (PIXELS, {"attention": (True,)}, "give one per level"),
        (PIXELS, {"compute_dtype": "float16"}, "float32 or bfloat16"),
        (TOKENS, {"compute_dtype": "float16"}, "float32 or bfloat16"),
        (PIXELS, {"dropout": 1.0}, r"share in \[0, 1\)"),
        (TOKENS, {"dropout": -0.1}, r"share in \[0, 1\)"),
        (TOKENS, {"depth": 0}, "depth must be at least 1, got 0"),
        (TOKENS, {"patch": 0}, "patch must be at least 1, got 0"),
        (TOKENS, {"head": 6}, "heads of 6 that rows and columns turn; give a head that divides width"),
        (TOKENS, {"head": 12}, "16 channels cannot be split into heads of 12"),
    ],
)
def test_bad_configs_are_refused(config, change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(config, **change)


def test_heads_must_fill_the_channels():
    with pytest.raises(ValueError, match="cannot be split into heads of 5"):
        dataclasses.replace(PIXELS, head=5).build(jr.key(0))


def block_inputs():
    """Tokens, their modulation, and what turns them."""
    token_key, modulation_key = jr.split(jr.key(0))
    x = jr.normal(token_key, (4, 4, TOKENS.width))
    return x, jr.normal(modulation_key, (4, 4, MODULATIONS * TOKENS.width)), Turns.of_grid(4, 4, TOKENS.head, x.dtype)


def test_fresh_transformer_block_is_the_identity():
    block = eqx.filter_jit(lambda: draw_weights(Block(TOKENS), jr.key(1)))()
    x, modulation, turns = block_inputs()
    run_block = eqx.filter_jit(block)
    assert jnp.all(run_block(x, jnp.zeros_like(modulation), turns, None) == x)
    wrong_twin = modulation
    assert not jnp.allclose(run_block(x, wrong_twin, turns, None), x)


def test_transformer_modulates_each_token_by_itself():
    """Attention moves whatever sees a token that changed; once it is silent, a token's modulation moves this token."""
    wrong_twin = eqx.filter_jit(lambda: awake(draw_weights(Block(TOKENS), jr.key(1)), jr.key(2)))()
    silent = jax.tree.map(jnp.zeros_like, wrong_twin.output)
    block = eqx.tree_at(lambda block: block.output, wrong_twin, silent)
    x, modulation, turns = block_inputs()

    def moved(block):
        changed = modulation.at[1, 2].add(1.0)
        before, after = (eqx.filter_jit(block)(x, one, turns, None) for one in (modulation, changed))
        return jnp.any(before != after, axis=-1)

    assert jnp.all(moved(block) == jnp.zeros((4, 4), bool).at[1, 2].set(True))
    assert jnp.all(moved(wrong_twin))


def kept_of(config, size=16):
    """The shapes of what the backward pass of a network keeps."""
    arrays, rest = eqx.partition(eqx.filter_eval_shape(config.build, jr.key(0)), lambda leaf: hasattr(leaf, "shape"))
    z, t, label = inputs(config, size)

    def backward(arrays):
        return jax.vjp(lambda arrays: eqx.combine(arrays, rest)(z, t, label), arrays)[1]

    return [leaf.shape for leaf in jax.tree.leaves(jax.eval_shape(backward, arrays))]


def test_the_backward_pass_of_a_transformer_keeps_what_products_make():
    """Of every block: tokens, queries with keys and values, what attention and MLP add, both halves inside the MLP."""
    depth, tokens, hidden = 3, 32**2, 24
    config = dataclasses.replace(TOKENS, depth=depth, hidden=hidden)

    def channels(config):
        """Of what is kept for every token of every block; no weight of a block is as large as one for every token."""
        sizes = [np.prod(shape) for shape in kept_of(config, 2 * 32) if shape[:1] == (depth,)]
        return sum(size for size in sizes if size >= depth * tokens) / (depth * tokens)

    assert channels(config) == (1 + 3 + 1 + 1) * config.width + 2 * hidden
    assert channels(dataclasses.replace(config, rematerialise=True)) == config.width


@pytest.mark.parametrize(
    ("capability", "dtype", "head", "kernel"),
    [
        ("9.0", jnp.bfloat16, 64, "cudnn"),
        ("10.3", jnp.bfloat16, 128, "cudnn"),
        ("7.5", jnp.bfloat16, 64, "xla"),
        ("gfx942", jnp.bfloat16, 64, "xla"),
        ("9.0", jnp.float32, 64, "xla"),
        ("9.0", jnp.bfloat16, 4, "xla"),
        ("9.0", jnp.bfloat16, 136, "xla"),
    ],
)
def test_attention_is_cudnns_where_it_takes_the_heads(capability, dtype, head, kernel):
    card = SimpleNamespace(compute_capability=capability)
    assert attention_kernel(card, jnp.dtype(dtype), head) == kernel
    assert attention_kernel(jax.devices("cpu")[0], jnp.dtype(dtype), head) == "xla"


def test_attention_knows_displacements_alone():
    """Of equal queries and equal keys, products depend on how far two tokens lie apart and on nothing else."""
    rows, cols, head = 3, 4, 8
    query, key = (jnp.broadcast_to(jr.normal(jr.key(seed), (1, 1, head)), (rows * cols, 1, head)) for seed in (0, 1))

    def products(turns):
        return jnp.einsum("qnh,knh->qk", turns(query), turns(key)).reshape(rows, cols, rows, cols)

    def strays(products):
        """By how much the product of a token and the one below and right of it differs between tokens."""
        row, col = jnp.meshgrid(jnp.arange(rows - 1), jnp.arange(cols - 1), indexing="ij")
        return jnp.std(products[row, col, row + 1, col + 1])

    turns = Turns.of_grid(rows, cols, head, jnp.dtype("float32"))
    assert strays(products(turns)) < 1e-5
    from_the_corner = jnp.sort(products(turns)[0, 0].ravel())
    assert jnp.min(jnp.diff(from_the_corner)) > 1e-3
    wrong_twin = Turns(turns.cos**2, turns.sin)
    assert strays(products(wrong_twin)) > 1e-2


def test_attention_is_the_mean_of_values_by_softmax():
    """Against the definition in numpy."""
    query, key, value = (np.asarray(jr.normal(jr.key(seed), (5, 2, 4))) for seed in range(3))
    scores = np.einsum("qnh,knh->nqk", query, key) / np.sqrt(4)
    weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    found = jax.jit(attend)(*map(jnp.asarray, (query, key, value)))
    np.testing.assert_allclose(found, np.einsum("nqk,knh->qnh", weights, value), rtol=1e-4, atol=1e-5)


def program_size(config):
    """Operations of the compiler's input for a value and its slope."""
    network = eqx.filter_eval_shape(config.build, jr.key(0))
    arrays, rest = eqx.partition(network, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))

    def loss(arrays, z, t, label):
        return jnp.sum(eqx.combine(arrays, rest)(z, t, label) ** 2)

    return len(jax.jit(jax.grad(loss)).lower(arrays, *inputs(config)).as_text().splitlines())


def test_depth_of_the_transformer_costs_no_compile_time():
    assert program_size(TOKENS) == program_size(dataclasses.replace(TOKENS, depth=7))
    wrong_twin = dataclasses.replace(PIXELS, blocks=2)
    assert program_size(PIXELS) < program_size(wrong_twin)


def _same_with_derivatives(function, reference, *inputs):
    """Values, tangents, gradients and the tangents of gradients."""
    keys = jr.split(jr.key(9), len(inputs))
    tangents = tuple(jr.normal(key, x.shape) for key, x in zip(keys, inputs, strict=True))

    def told(function):
        def gradient(*inputs):
            return jax.grad(lambda *inputs: jnp.sum(jnp.sin(function(*inputs))), tuple(range(len(inputs))))(*inputs)

        return jax.jvp(function, inputs, tangents), jax.jvp(gradient, inputs, tangents)

    for ours, theirs in zip(jax.tree.leaves(told(function)), jax.tree.leaves(told(reference)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("axes", [None, (0, None), (2, None), (None, 0), (1, 1)])
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_product_of_tokens_is_the_matrix_product_however_it_is_mapped(axes, compiled):
    keys = jr.split(jr.key(0))
    shape, kernel = [3, 2, 4], [4, 5]
    if axes is not None and axes[0] is not None:
        shape.insert(axes[0], 6)
    if axes is not None and axes[1] is not None:
        kernel.insert(axes[1], 6)
    inputs = jr.normal(keys[0], shape), jr.normal(keys[1], kernel)
    ours, theirs = (f if axes is None else jax.vmap(f, axes) for f in (product, jnp.matmul))
    _same_with_derivatives(jax.jit(ours) if compiled else ours, theirs, *inputs)


def test_gradient_of_a_weight_is_one_matrix_product_over_all_tokens_of_all_images():
    def loss(weight, images):
        return jnp.sum(jnp.sin(jax.vmap(jax.checkpoint(product), (0, None))(images, weight)))

    found = str(jax.make_jaxpr(jax.grad(loss))(jnp.ones((4, 5)), jnp.ones((6, 3, 2, 4))))
    assert "dimension_numbers=(([0], [0]), ([], []))" in found


def test_slope_of_normalisation_is_that_of_its_formula():
    def formula(x):
        return x / jnp.sqrt(jnp.mean(x**2, axis=-1, keepdims=True) + RMS_EPSILON)

    x = jr.normal(jr.key(0), (3, 2, 8)).at[0, 0].multiply(1e-3)
    _same_with_derivatives(unit_rms, formula, x[1:])
    assert jax.grad(lambda x: jnp.sum(unit_rms(x) ** 3))(jnp.zeros(4)).tolist() == [0.0] * 4
    small = [jax.jvp(f, (x[0],), (jnp.ones_like(x[0]),))[1] for f in (unit_rms, formula)]
    np.testing.assert_allclose(*small, rtol=1e-3)
