"""A learning rate that falls to 0 at the end of a run, and what becomes of such a run that is prolonged."""

import logging
import shutil
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from toy_training import TOY_CONFIG, TOY_RUN, arrays_of, losses_of, toy_train

from asyncpatch.data import Digits
from asyncpatch.runs import configure, with_cooldown
from asyncpatch.timesteps import Synchronous
from asyncpatch.train import ConfigMismatchError, Cooldown

SHORT, LONG = Cooldown(8, 4), Cooldown(12, 6)


def cool(folder, cooldown: Cooldown | None, steps: int, config=TOY_CONFIG, keep_last: int = 3):
    """The state of a toy run after so many steps, with a checkpoint every five."""
    run = replace(TOY_RUN, steps=steps, checkpoint_every=5, keep_last=keep_last)
    return arrays_of(toy_train(folder, replace(config, cooldown=cooldown), run))


def same(first: dict, second: dict) -> bool:
    """To the bit."""
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


def steps_in(folder) -> set[int]:
    """The steps of the checkpoints in a folder; those that were set aside have a time in their name too."""
    return {int(path.name.split("-")[0]) for path in folder.iterdir() if path.name[0].isdigit()}


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    """The folder of a run with the longer cooldown that was never interrupted, and its state."""
    folder = tmp_path_factory.mktemp("long")
    return folder, cool(folder, LONG, 18)


def test_the_rate_falls_in_a_straight_line_to_nothing(long):
    rates = losses_of(long[0], "learning_rate")  # at step n, the rate of the n-th update
    full = TOY_CONFIG.optimizer.learning_rate
    np.testing.assert_allclose([rates[step] for step in range(4, 14)], full, rtol=1e-6)
    np.testing.assert_allclose([rates[step] for step in range(13, 19)], full * np.arange(6, 0, -1) / 6, rtol=1e-6)
    assert float(replace(TOY_CONFIG, cooldown=LONG).learning_rate_at(jnp.int32(18))) == 0
    assert float(TOY_CONFIG.learning_rate_at(jnp.int32(10**6))) == pytest.approx(full)


def test_an_update_is_as_short_as_the_rate(tmp_path):
    """The second of a cooldown of four: three quarters of what it would have been."""
    before, after = cool(tmp_path / "constant", None, 9), cool(tmp_path / "constant", None, 10)
    shorter = cool(tmp_path / "cooling", SHORT, 10)
    weights = [name for name in before if name.startswith(".denoiser")]
    assert len(weights) == 3
    for name in weights:
        full = after[name] - before[name]
        assert np.abs(full).max() > 1e-3
        np.testing.assert_allclose(shorter[name] - before[name], 0.75 * full, atol=1e-6, err_msg=name)


def test_the_average_reaches_back_over_no_more_steps_than_are_left(long):
    config = replace(TOY_CONFIG, ema_decay=0.8, cooldown=LONG)
    decays = [float(config.ema_decay_at(jnp.int32(step))) for step in range(11, 18)]
    np.testing.assert_allclose(decays, [12 / 21, 13 / 22, 14 / 23, 15 / 24, 16 / 25, 1 / 2, 0], rtol=1e-6)
    for name in [name for name in long[1] if name.startswith(".ema")]:
        np.testing.assert_array_equal(long[1][name], long[1][name.replace(".ema", ".denoiser")], err_msg=name)


def test_an_interruption_while_it_cools_changes_nothing(long, tmp_path):
    cool(tmp_path, LONG, 15)
    assert same(cool(tmp_path, LONG, 18), long[1])


@pytest.mark.parametrize(
    ("cooldown", "steps", "goes_on_from", "left"),
    [(SHORT, 12, 8, {10, 12}), (None, 15, 10, {15}), (None, 10, 10, set()), (Cooldown(15, 3), 18, 10, {15, 18})],
)
def test_a_prolonged_run_goes_on_from_where_it_had_not_cooled(
    cooldown, steps, goes_on_from, left, long, tmp_path, caplog
):
    cool(tmp_path, cooldown, steps, keep_last=4)
    with caplog.at_level(logging.WARNING):
        assert same(cool(tmp_path, LONG, 18), long[1])
    assert losses_of(tmp_path) == losses_of(long[0]), "and its log is that of one run"
    assert (steps_in(tmp_path / "cooled") if left else set()) == left, "nothing is deleted"
    assert len([line for line in caplog.messages if f"going on from step {goes_on_from}" in line]) == len(left)


def test_a_cooled_run_may_lose_its_end(long, tmp_path):
    shutil.copytree(long[0], tmp_path / "run")
    assert same(cool(tmp_path / "run", None, 20), cool(tmp_path / "constant", None, 20))


def test_what_a_longer_run_goes_on_from_is_kept(tmp_path):
    cool(tmp_path, SHORT, 12, keep_last=1)
    assert steps_in(tmp_path / "checkpoints") >= {8, 12}
    assert 10 not in steps_in(tmp_path / "checkpoints")


def test_where_all_has_cooled_it_is_refused(long, tmp_path):
    cool(tmp_path, SHORT, 12)
    shutil.rmtree(tmp_path / "checkpoints" / "8")
    with pytest.raises(ConfigMismatchError, match=r"cooldown\.start was 8 and is now 12.*another folder"):
        cool(tmp_path, LONG, 18)
    assert steps_in(tmp_path / "checkpoints") == {10, 12}


def test_another_config_is_not_excused_by_a_cooldown(tmp_path):
    cool(tmp_path, SHORT, 12)
    with pytest.raises(ConfigMismatchError, match=r"ema_decay was 0\.9 and is now 0\.5"):
        cool(tmp_path, LONG, 18, config=replace(TOY_CONFIG, ema_decay=0.5))
    assert steps_in(tmp_path / "checkpoints") == {8, 10, 12}


def test_a_share_of_the_steps():
    experiment = configure(Digits(), "digits", Synchronous())
    assert with_cooldown(experiment, 800, 1 / 8).training.cooldown == Cooldown(700, 100)
    assert with_cooldown(experiment, 800, 0.0) == with_cooldown(experiment, 3, 0.1) == experiment
    for share in (1.0, -0.1):
        with pytest.raises(ValueError, match=r"cooldown must be in \[0, 1\)"):
            with_cooldown(experiment, 800, share)
    with pytest.raises(ValueError, match=r"steps must be .*, got 0"):
        Cooldown(5, 0)
    with pytest.raises(ValueError, match="start must be at least 0, got -1"):
        Cooldown(-1, 5)
