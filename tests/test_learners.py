"""The laws of every learner, and adversarial training against plain formulae."""

import dataclasses
import functools
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from test_autoencoder import awake_autoencoder
from toy_adversarial import ADVERSARIAL, AUTOENCODER, QUICK, START, contrast, quick_train
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
from asyncpatch.train import (
    NonFiniteLossError,
    StepInputs,
    init_state,
    make_mesh,
    put_batch,
    train,
    train_step,
)
from asyncpatch.train.adversarial import NUMBERS
from asyncpatch.train.adversarial_gradients import adversarial_gradients

LEARNERS = {"descent": TOY_LEARNER, "adversarial": ADVERSARIAL}
every_learner = pytest.mark.parametrize("learner", LEARNERS.values(), ids=LEARNERS)


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


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """By the learner's name, the folder and the arrays of a run that was never interrupted."""

    @functools.cache
    def run(name):
        folder = tmp_path_factory.mktemp(name)
        return folder, arrays_of(quick_train(folder, LEARNERS[name]))

    return run


@pytest.mark.parametrize("name", LEARNERS)
def test_an_interrupted_run_goes_on_to_the_bit(name, whole, tmp_path):
    """From step 4, when the discriminator counts already."""
    folder, arrays = whole(name)
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    for step in (6, 8):
        shutil.rmtree(tmp_path / "checkpoints" / str(step))
    parts = arrays_of(quick_train(tmp_path, LEARNERS[name]))
    assert arrays.keys() == parts.keys()
    for place, value in arrays.items():
        np.testing.assert_array_equal(value, parts[place], err_msg=place)
    assert losses_of(folder) == losses_of(tmp_path)
    first = arrays_of(take_steps(LEARNERS[name], 4)[0])
    still = [place for place, value in first.items() if np.array_equal(value, arrays[place])]
    assert len(still) < len(arrays) / 2, "a run that stands still resumes to the bit as well"


@pytest.mark.timeout(300)
def test_killed_in_the_middle_of_adversarial_training_it_goes_on_to_the_bit(whole, tmp_path):
    _, arrays = whole("adversarial")
    script = Path(__file__).with_name("toy_adversarial.py")
    environment = os.environ | {"PYTHONPATH": str(script.parents[1])}
    process = subprocess.Popen([sys.executable, script, tmp_path, "0.2"], stderr=subprocess.DEVNULL, env=environment)
    while not (tmp_path / "checkpoints" / "4").is_dir():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    parts = arrays_of(quick_train(tmp_path))
    for place, value in arrays.items():
        np.testing.assert_array_equal(value, parts[place], err_msg=place)


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
    """One seed: the error of known pixels halves in 60 steps, against a discriminator for most of them."""
    _, metrics = take_steps(ADVERSARIAL, 60)
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
