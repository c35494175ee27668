"""The laws of every learner, and adversarial training against plain formulae."""

import dataclasses
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from test_autoencoder import awake_autoencoder
from toy_training import SIZE, TOY_CONFIG, TOY_LEARNER, ToyData, arrays_of, losses_of

from asyncpatch.losses import (
    AutoencoderObjective,
    adversarial_weight,
    beside_hidden,
    fooling_loss,
    judging_loss,
    quantisation_loss,
    reconstruction_errors,
)
from asyncpatch.masks import RandomBox
from asyncpatch.nn import AutoencoderConfig, DiscriminatorConfig, Stages
from asyncpatch.train import (
    Adversarial,
    NonFiniteLossError,
    OptimizerConfig,
    RunConfig,
    StepInputs,
    init_state,
    make_mesh,
    put_batch,
    train,
    train_step,
)
from asyncpatch.train.adversarial import NUMBERS
from asyncpatch.train.adversarial_gradients import adversarial_gradients

AUTOENCODER = AutoencoderConfig(
    channels=1, encoder=Stages((4, 8), (0, 1)), decoder=Stages((4, 8), (0, 1)), latent_channels=2, codes=8
)
START = 2


def contrast(first, second):
    """A perceptual distance of the tests: the squared difference of neighbours' differences."""
    return jnp.mean(jnp.square(jnp.diff(first - second, axis=2)), axis=(1, 2, 3))


ADVERSARIAL = Adversarial(
    autoencoder=AUTOENCODER,
    discriminator=DiscriminatorConfig(channels=1, widths=(4,)),
    objective=AutoencoderObjective(masks=RandomBox(), start=START),
    discriminator_optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=1),
    perceptual=contrast,
)
LEARNERS = {"descent": TOY_LEARNER, "adversarial": ADVERSARIAL}
every_learner = pytest.mark.parametrize("learner", LEARNERS.values(), ids=LEARNERS)
QUICK = RunConfig(steps=6, log_every=1, checkpoint_every=3, sample_every=100)


def take_steps(learner, steps, config=TOY_CONFIG, state=None, data=None):
    """The state after some steps outside the loop, and the metrics of each."""
    mesh, data = make_mesh(), ToyData() if data is None else data
    state = init_state(learner, config, mesh) if state is None else state
    found = []
    for _ in range(steps):
        batch = put_batch(data.batch(int(state.step)), mesh)
        state, metrics = train_step(StepInputs(batch, learner, config, 1, mesh), state)
        found.append(metrics)
    return state, found


# --- every learner ---


@every_learner
def test_an_interrupted_run_goes_on_to_the_bit(learner, tmp_path):
    """The adversarial run is interrupted after its discriminator has begun to count."""

    def run(folder, steps):
        config = dataclasses.replace(QUICK, steps=steps)
        return train(folder, (TOY_CONFIG, config), TOY_CONFIG, config, learner, ToyData(), make_mesh())

    whole = arrays_of(run(tmp_path / "whole", 6))
    first = arrays_of(run(tmp_path / "parts", 3))
    parts = arrays_of(run(tmp_path / "parts", 6))
    assert whole.keys() == parts.keys()
    for name, value in whole.items():
        np.testing.assert_array_equal(value, parts[name], err_msg=name)
    assert losses_of(tmp_path / "whole") == losses_of(tmp_path / "parts")
    still = [name for name, value in first.items() if np.array_equal(value, whole[name])]
    assert len(still) < len(whole) / 2, "a run that stands still resumes to the bit as well"


@every_learner
def test_accumulation_equals_the_big_batch(learner):
    """Before the discriminator counts: the ratio of gradients is one of the whole batch, or of each part of it."""
    (whole, parts), (one, other) = zip(
        *(take_steps(learner, START, dataclasses.replace(TOY_CONFIG, accumulation=parts)) for parts in (1, 2)),
        strict=True,
    )
    for now, then in zip(one, other, strict=True):
        assert float(now.loss) == pytest.approx(float(then.loss), rel=1e-4)
    for name, value in arrays_of(whole.denoiser).items():
        np.testing.assert_allclose(arrays_of(parts.denoiser)[name], value, rtol=1e-2, atol=1e-3, err_msg=name)


@every_learner
def test_a_step_that_is_not_finite_changes_nothing(learner):
    def spoil(step, image, label):
        if step == 3:
            image[1, 2, 2] = np.inf

    state, _ = take_steps(learner, 3)
    before = arrays_of(state)
    state, (metrics, _) = take_steps(learner, 2, state=state, data=ToyData(edit=spoil))
    assert int(metrics.broken_at) == 3
    after = arrays_of(state)
    assert [name for name in before if not np.array_equal(before[name], after[name])] == [".broken_at"]


# --- adversarial training ---


@functools.cache
def parts_of_a_step():
    """An autoencoder and a discriminator with moved weights, images and known regions."""
    discriminator = ADVERSARIAL.discriminator.build(jr.key(1))
    images = jr.uniform(jr.key(2), (3, SIZE, SIZE, 1), minval=-1.0)
    known = jr.bernoulli(jr.key(3), 0.7, (3, SIZE, SIZE))
    return awake_autoencoder(AUTOENCODER), discriminator, images, known


@pytest.mark.parametrize("started", [True, False])
def test_gradients_of_one_pass_are_those_of_the_losses(started):
    autoencoder, discriminator, images, known = parts_of_a_step()
    objective = ADVERSARIAL.objective
    found = eqx.filter_jit(adversarial_gradients)(
        autoencoder, discriminator, objective, contrast, images, known, jnp.asarray(started)
    )

    def losses(autoencoder):
        latents = jax.vmap(lambda *of: autoencoder.encode(*of))(images, known)
        quantised = jax.vmap(lambda latents: autoencoder.quantise(latents))(latents)
        painted = jax.vmap(lambda *of: autoencoder.decode(*of))(quantised.latents, known)
        shown = jax.vmap(beside_hidden)(painted, images, known)
        asked = jnp.mean(jax.vmap(reconstruction_errors)(painted, images, known)) + jnp.mean(contrast(shown, images))
        fooled = jnp.mean(jax.vmap(lambda image: fooling_loss(discriminator(image)))(shown))
        return (asked, jnp.mean(jax.vmap(quantisation_loss)(latents, quantised.codes)), fooled), shown

    def of(number):
        return eqx.filter_jit(eqx.filter_grad(lambda autoencoder: losses(autoencoder)[0][number]))(autoencoder)

    asked, quantising, fooling = (of(number) for number in range(3))
    norms = (jnp.linalg.norm(part.decoder.last.weight) for part in (asked, fooling))
    weight = started * objective.adversarial * adversarial_weight(*norms)
    expected = jax.tree.map(lambda a, b, c: a + b + weight * c, asked, quantising, fooling)
    for one, other in zip(jax.tree.leaves(found.autoencoder), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-3, atol=1e-5)
    assert found.numbers["adversarial_weight"] == pytest.approx(float(weight), rel=1e-3)
    wrong_twin = jax.tree.map(jnp.add, asked, quantising)
    close = np.allclose(found.autoencoder.decoder.last.weight, wrong_twin.decoder.last.weight, atol=1e-5)
    assert close != started

    shown = losses(autoencoder)[1]

    def judging(discriminator):
        return jnp.mean(jax.vmap(lambda *pair: judging_loss(*map(discriminator, pair)))(images, shown))

    slope = eqx.filter_jit(eqx.filter_grad(judging))(discriminator)
    for one, other in zip(jax.tree.leaves(found.discriminator), jax.tree.leaves(slope), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-3, atol=1e-5)
    assert {*found.numbers} == {*NUMBERS}


def test_the_discriminator_waits_for_its_start_and_codes_are_filled_from_the_first_batch():
    first, _ = take_steps(ADVERSARIAL, 0)
    begun = arrays_of(first.opt_state)
    state, metrics = take_steps(ADVERSARIAL, START, state=first)
    waited = arrays_of(state.opt_state)
    judges = [name for name in begun if "discriminator" in name]
    assert judges
    assert all(np.array_equal(begun[name], waited[name]) for name in judges)
    assert all(float(metric.details["adversarial_weight"]) == 0 for metric in metrics)
    assert float(metrics[0].details["codes_in_use"]) < 1, "codes that were drawn, before any was revived"
    assert np.all(waited[".use.share"] > 0)
    state, (metric,) = take_steps(ADVERSARIAL, 1, state=state)
    moved = arrays_of(state.opt_state)
    assert any(not np.array_equal(waited[name], moved[name]) for name in judges)
    assert float(metric.details["adversarial_weight"]) > 0
    assert {*metric.details} == {*NUMBERS[1:], "codes_in_use", "code_perplexity"}


def test_an_autoencoder_learns_its_images():
    """One seed: the error of known pixels halves from 0.5 in 60 steps, and most codes are used."""
    config = dataclasses.replace(TOY_CONFIG, accumulation=1)
    learner = dataclasses.replace(ADVERSARIAL, objective=dataclasses.replace(ADVERSARIAL.objective, start=40))
    _, metrics = take_steps(learner, 60, config)
    errors = [float(metric.details["reconstruction"]) for metric in metrics]
    assert np.mean(errors[-5:]) < 0.5 * errors[0]
    assert float(metrics[-1].details["code_perplexity"]) > 3


def test_what_breaks_adversarial_training_is_said(tmp_path):
    def spoil(step, image, label):
        image[0, 0, 0] = np.nan

    with pytest.raises(NonFiniteLossError, match=r"not finite at step 0, .*images \[0\] have bad pixels"):
        train(tmp_path, QUICK, TOY_CONFIG, QUICK, ADVERSARIAL, ToyData(edit=spoil), make_mesh())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"whole": 1.5}, r"whole must be in \[0, 1\], got 1.5"),
        ({"perceptual": -1.0}, "perceptual must be at least 0, got -1.0"),
        ({"adversarial": float("nan")}, "adversarial must be finite and at least 0, got nan"),
        ({"start": -1}, "start must be at least 0, got -1"),
    ],
)
def test_bad_objectives_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        AutoencoderObjective(**change)


def test_whole_images_have_their_share_and_others_are_masked():
    """2,048 fixed draws: 4.9 deviations of a share of 0.25 are 0.05, a false-alarm rate of 1e-6."""
    objective = AutoencoderObjective(masks=RandomBox(), whole=0.25)
    known = jax.jit(jax.vmap(lambda key: objective.draw_known(key, 8, 8)))(jr.split(jr.key(0), 2048))
    assert abs(float(known.all((1, 2)).mean()) - 0.25) < 0.05
