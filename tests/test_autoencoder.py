"""The VQ autoencoder: what its latents may depend on, its codes, its losses, its discriminator, and what it refuses."""

import dataclasses
import functools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree

from asyncpatch.losses import (
    adversarial_weight,
    beside_hidden,
    fooling_loss,
    judging_loss,
    quantisation_loss,
    reconstruction_errors,
)
from asyncpatch.masks import Extrema, OneOf, RandomBox, Square
from asyncpatch.nn import (
    AUTOENCODERS,
    AutoencoderConfig,
    Codebook,
    CodeUse,
    DiscriminatorConfig,
    Stages,
    autoencoder_preset,
    known_sites,
)
from asyncpatch.nn.layers import draw_weights

SIDE = 16
SMALL = AutoencoderConfig(
    channels=2,
    encoder=Stages((4, 6, 8), (1, 1, 0)),
    decoder=Stages((4, 6, 8), (1, 0, 2), attention=1, head=4),
    codes=16,
)
FAR = dataclasses.replace(SMALL, encoder=Stages((4, 6, 8), (1, 1, 1), attention=1, head=4))
CONFIGS = {"near": SMALL, "attention": FAR}
every_autoencoder = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
MASKS = OneOf((Square(), Extrema(), RandomBox()))


@functools.cache
def awake_autoencoder(config):
    """With every weight moved off its start, at which residual blocks are the identity."""

    def build():
        start_key, move_key = jr.split(jr.key(0))
        autoencoder = config.build(start_key)
        leaves, tree = jax.tree.flatten(eqx.filter(autoencoder, eqx.is_inexact_array))
        flat, restore = ravel_pytree(leaves)
        return eqx.combine(jax.tree.unflatten(tree, restore(flat + 0.2 * jr.normal(move_key, flat.shape))), autoencoder)

    return eqx.filter_jit(build)()


@eqx.filter_jit
def encode(autoencoder, image, known):
    return autoencoder.encode(image, known)


@eqx.filter_jit
def there_and_back(autoencoder, image, known):
    return autoencoder(image, known)


@functools.cache
def draw_known(seed):
    return MASKS(jr.key(seed), SIDE, SIDE)


def draw_image(seed):
    return jr.uniform(jr.key(seed), (SIDE, SIDE, 2), minval=-1.0)


# --- what latents and images depend on ---


@every_autoencoder
@given(seed=st.integers(0, 2**20))
def test_no_latent_and_no_pixel_tells_of_a_hidden_pixel(config, seed):
    """To the bit, whatever stands there."""
    autoencoder, known, image = awake_autoencoder(config), draw_known(seed), draw_image(seed)
    changed = jnp.where(known[..., None], image, draw_image(seed + 1) * jnp.array([1e30, jnp.nan])[None, None])
    np.testing.assert_array_equal(encode(autoencoder, image, known), encode(autoencoder, changed, known))
    np.testing.assert_array_equal(*(there_and_back(autoencoder, one, known) for one in (image, changed)))


def test_an_encoder_that_is_not_told_shows_hidden_pixels_in_known_latents():
    """The wrong twin of the last: what every other latent inpainter does."""
    autoencoder, known, image = awake_autoencoder(SMALL), draw_known(0), draw_image(0)
    everything = jnp.ones_like(known)
    changed = jnp.where(known[..., None], image, draw_image(1))
    moved = jnp.any(encode(autoencoder, image, everything) != encode(autoencoder, changed, everything), axis=-1)
    assert jnp.any(moved & known_sites(known, SMALL.factor))


@pytest.mark.parametrize("config", [SMALL, FAR], ids=["law", "wrong twin"])
def test_beyond_its_reach_the_known_region_changes_no_latent(config):
    autoencoder, image = awake_autoencoder(config), draw_image(0)
    hidden = jnp.zeros((SIDE, SIDE), bool).at[0, 0].set(True)
    whole, masked = (encode(autoencoder, image, known) for known in (jnp.ones_like(hidden), ~hidden))
    moved = np.any(np.asarray(whole != masked), axis=-1)
    row, col = np.indices(moved.shape)
    far = np.maximum(row, col) > SMALL.encoder.reach
    assert SMALL.encoder.reach == 2
    assert moved[0, 0]
    assert moved[far].any() == (config is FAR)
    assert math.isinf(FAR.encoder.reach)


@every_autoencoder
def test_every_known_pixel_and_its_being_known_count(config):
    """The site and the image that a pixel lies in depend on it, by gradient, and on whether it is known."""
    autoencoder, known, image = awake_autoencoder(config), jnp.ones((SIDE, SIDE), bool), draw_image(2)
    factor = config.factor
    middle = jax.jit(jax.grad(lambda image: jnp.sum(autoencoder.encode(image, known)[1, 1])))(image)
    assert jnp.all(middle[factor : 2 * factor, factor : 2 * factor] != 0)
    black = jnp.zeros_like(image)
    for place in ((4, 4), (7, 6)):
        region = known.at[place].set(False)
        assert jnp.any(encode(autoencoder, black, known)[1, 1] != encode(autoencoder, black, region)[1, 1])
    latents = encode(autoencoder, image, known)
    decode = eqx.filter_jit(lambda latents, known: autoencoder.decode(latents, known))
    assert jnp.any(decode(latents, known) != decode(latents, draw_known(0)))


def test_gradients_pass_straight_through_the_codes_and_reach_the_encoder():
    autoencoder, known, image = awake_autoencoder(SMALL), draw_known(3), draw_image(3)
    slope = eqx.filter_jit(eqx.filter_grad(lambda autoencoder: jnp.sum(autoencoder(image, known) ** 2)))(autoencoder)
    assert jnp.any(slope.encoder.stem.weight != 0)
    assert jnp.all(slope.codebook.codes == 0), "the codes have a loss of their own"


def test_a_site_is_known_when_all_its_pixels_are():
    known = jnp.ones((4, 6), bool).at[1, 2].set(False)
    np.testing.assert_array_equal(known_sites(known, 2), [[True, False, True], [True, True, True]])
    with pytest.raises(ValueError, match="sites of 4x4 pixels do not tile a region of 4x6"):
        known_sites(known, 4)


def test_half_precision_is_close_and_recomputing_changes_no_gradient():
    known, image = draw_known(4), draw_image(4)
    exact, low = (
        encode(awake_autoencoder(dataclasses.replace(SMALL, compute_dtype=kind)), image, known)
        for kind in ("float32", "bfloat16")
    )
    assert low.dtype == jnp.float32
    assert 0 < jnp.linalg.norm(low - exact) < 0.1 * jnp.linalg.norm(exact)

    @eqx.filter_jit
    @eqx.filter_grad
    def slope(autoencoder):
        return jnp.sum(autoencoder(image, known) ** 2)

    stored, again = (
        slope(awake_autoencoder(dataclasses.replace(SMALL, rematerialise=value))) for value in (False, True)
    )
    for one, other in zip(jax.tree.leaves(stored), jax.tree.leaves(again), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-3, atol=2e-3 * float(jnp.max(jnp.abs(one))))


# --- codes ---


def a_codebook(codes=16, channels=3):
    return draw_weights(Codebook(codes, channels), jr.key(0))


@pytest.mark.parametrize("twin", [False, True], ids=["law", "wrong twin"])
def test_the_nearest_code_is_found_and_returned_to_the_bit(twin):
    """Against all distances in float64. The twin forgets the lengths of codes."""
    codebook, latents = a_codebook(), 3 * jr.normal(jr.key(1), (5, 7, 3))
    found = eqx.filter_jit(codebook)(latents)
    codes, sites = np.asarray(codebook.codes, np.float64), np.asarray(latents, np.float64)[:, :, None]
    measure = -(sites * codes).sum(-1) if twin else np.square(sites - codes).sum(-1)
    assert (found.index == measure.argmin(-1)).all() != twin
    np.testing.assert_array_equal(found.latents, codebook.codes[found.index])
    np.testing.assert_array_equal(found.codes, codebook.codes[found.index])


def test_each_term_of_the_quantisation_moves_its_own_side():
    latents, codebook = jr.normal(jr.key(1), (2, 2, 3)), a_codebook()

    def loss(latents, codes):
        return quantisation_loss(latents, eqx.tree_at(lambda book: book.codes, codebook, codes)(latents).codes)

    by_latents, by_codes = jax.jit(jax.grad(loss, argnums=(0, 1)))(latents, codebook.codes)
    found = codebook(latents)
    away = 2 * (latents - found.codes) / latents.size
    np.testing.assert_allclose(by_latents, 0.25 * away, rtol=1e-5)
    np.testing.assert_allclose(jnp.sum(by_codes, axis=0), -jnp.sum(away, axis=(0, 1)), rtol=1e-4)
    wrong_twin = away
    assert not np.allclose(by_latents, wrong_twin)


def test_dead_codes_are_revived_and_others_are_left_alone():
    codebook, latents = a_codebook(codes=4), 10 + jr.normal(jr.key(1), (4, 3))
    book, use = CodeUse.none_yet(4).revive(codebook, latents)
    np.testing.assert_array_equal(book.codes, latents, "at first all are dead")
    assert not use.dead().any()
    for _ in range(300):
        use = use.after(jnp.array([2.0, 2.0, 0.0, 2.0]))
    np.testing.assert_array_equal(use.dead(), [False, False, True, False])
    again, use = use.revive(book, latents + 50)
    np.testing.assert_array_equal(jnp.any(again.codes != book.codes, axis=-1), [False, False, True, False])
    assert not use.dead().any()


def test_perplexity_counts_codes_that_are_chosen_alike():
    assert CodeUse(jnp.array([0.2, 0.2, 0.0, 0.2])).perplexity() == pytest.approx(3.0, rel=1e-5)
    assert CodeUse(jnp.array([0.9, 0.05, 0.05, 0.0])).perplexity() < 2


# --- losses ---


def test_hidden_pixels_are_not_asked_for():
    image, known = draw_image(5), draw_known(5)
    painted = image + 0.5
    errors = reconstruction_errors(painted, image, known)
    assert jnp.mean(errors) == pytest.approx(0.5, rel=1e-5)
    assert jnp.all(errors[~known] == 0)
    elsewhere = jnp.where(known[..., None], painted, 1e9)
    assert jnp.all(reconstruction_errors(elsewhere, image, known) == errors)
    assert jnp.all(beside_hidden(elsewhere, image, known) == beside_hidden(painted, image, known))
    assert jnp.all(reconstruction_errors(painted, image, jnp.zeros_like(known)) == 0), "nothing known: nothing asked"
    wrong_twin = jnp.abs(painted - image).mean() * known.mean()
    assert wrong_twin != pytest.approx(0.5, rel=1e-2)


def test_the_hinge_and_the_weight():
    silent = jnp.zeros((2, 3))
    assert judging_loss(silent, silent) == 1
    assert judging_loss(silent + 1, silent - 1) == 0
    assert judging_loss(silent + 9, silent - 9) == 0, "certainty is not rewarded"
    assert judging_loss(silent - 1, silent + 1) == 2
    assert fooling_loss(silent + 3) == -3
    assert adversarial_weight(jnp.float32(2.0), jnp.float32(0.5)) == pytest.approx(4.0, rel=1e-3)
    assert adversarial_weight(jnp.float32(1.0), jnp.float32(0.0)) == pytest.approx(1e4)


def test_a_judgement_is_of_texture_and_not_of_the_image():
    discriminator = DiscriminatorConfig(channels=2, widths=(4, 6)).build(jr.key(0))
    judge = eqx.filter_jit(discriminator)
    image = jr.normal(jr.key(1), (32, 32, 2))
    assert judge(image).shape == (8, 8)
    seen = jax.jit(jax.grad(lambda image: discriminator(image)[4, 4]))(image)
    rows, cols = np.nonzero(np.any(np.asarray(seen) != 0, axis=-1))
    # Two sites of 4 pixels on either side by the two last 3x3 kernels, and half a site by the first.
    assert (rows.min(), rows.max(), cols.min(), cols.max()) == (6, 29, 6, 29)


# --- sizes, and what is refused ---


def parameters(config):
    shapes = eqx.filter_eval_shape(config.build, jr.key(0))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes) if isinstance(leaf, jax.ShapeDtypeStruct))


@pytest.mark.parametrize(
    ("name", "side", "latents", "least", "most"),
    [("photographs-64", 64, (16, 16, 3), 0.7e6, 1.5e6), ("paper-256", 256, (64, 64, 3), 50e6, 60e6)],
)
def test_presets_have_their_size_and_their_latents(name, side, latents, least, most):
    config, discriminator = AUTOENCODERS[name]
    assert least <= parameters(config) <= most
    assert config.encoder.reach == 2
    autoencoder = eqx.filter_eval_shape(config.build, jr.key(0))
    image, known = jax.ShapeDtypeStruct((side, side, 3), jnp.float32), jax.ShapeDtypeStruct((side, side), bool)
    assert eqx.filter_eval_shape(lambda net, *of: net.encode(*of), autoencoder, image, known).shape == latents
    assert eqx.filter_eval_shape(lambda net, *of: net(*of), autoencoder, image, known).shape == image.shape
    discriminator.check_image(side, side, 3)


def test_unknown_preset_is_refused_by_name():
    with pytest.raises(ValueError, match="no autoencoder is called '256'; choose one of photographs-64, paper-256"):
        autoencoder_preset("256")
    assert autoencoder_preset("photographs-64", channels=1)[0].channels == 1


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: dataclasses.replace(SMALL, codes=0), r"codes must be in 2 to 1,048,576 \(one code .*, got 0"),
        (lambda: dataclasses.replace(SMALL, codes=1), r"codes must be in 2 to .*, got 1"),
        (lambda: dataclasses.replace(SMALL, compute_dtype="float16"), "float32 or bfloat16"),
        (lambda: dataclasses.replace(SMALL, decoder=Stages((4, 4), (1, 1))), "by 4 and the decoder enlarges it by 2"),
        (lambda: Stages((4, 8), (1,)), r"widths=\(4, 8\) and blocks=\(1,\); give one"),
        (lambda: Stages((4, 8), (1, -1)), "a level has 0 to"),
        (lambda: Stages((4, 8), (1, 1), attention=2, head=4), "attention must be in 0 to 1"),
        (lambda: Stages((4, 8), (1, 1), attention=1, head=3), "8 channels cannot be split into heads of 3"),
        (lambda: DiscriminatorConfig(3, ()), "has levels of 1 to"),
        (lambda: DiscriminatorConfig(3).check_image(60, 64, 3), "multiples of 8, got 60x64 of 3"),
    ],
)
def test_bad_shapes_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize(
    ("image", "known", "error", "message"),
    [
        ((18, 16, 2), jnp.ones((18, 16), bool), ValueError, "an image of 18x16 pixels into its latent sites of 4x4"),
        ((16, 16, 3), jnp.ones((16, 16), bool), ValueError, "takes images of 2 channels, got 3"),
        ((16, 16, 2), jnp.ones((4, 4), bool), ValueError, r"an image of 16x16 pixels .* got one of shape \(4, 4\)"),
        ((16, 16, 2), jnp.ones((16, 16)), TypeError, "must be boolean, True where a pixel is observed, got float32"),
    ],
)
@pytest.mark.filterwarnings("default")
def test_images_and_regions_that_do_not_fit_are_refused_before_compute(image, known, error, message):
    autoencoder = eqx.filter_eval_shape(SMALL.build, jr.key(0))
    with pytest.raises(error, match=message):
        eqx.filter_eval_shape(lambda net: net.encode(jnp.zeros(image), known), autoencoder)


def test_latents_that_do_not_fit_are_refused():
    autoencoder = eqx.filter_eval_shape(SMALL.build, jr.key(0))
    with pytest.raises(ValueError, match=r"of 16x16 pixels have shape \(4, 4, 3\), got \(2, 4, 3\)"):
        eqx.filter_eval_shape(lambda net: net.decode(jnp.zeros((2, 4, 3)), jnp.ones((16, 16), bool)), autoencoder)
