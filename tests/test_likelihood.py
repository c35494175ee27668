"""The experiments on the bound, run small, and the statements that their numbers rest on."""

import dataclasses
import json

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from asyncpatch.config import to_json
from asyncpatch.data import Digits
from asyncpatch.elbo import Continuous, EightBit
from asyncpatch.noise_schedule import Cosine, LogLinear, Truncated
from asyncpatch.paths import Environment, EnvironmentPath, Learned, Synchronous, Window, raster, start_learning
from asyncpatch.process import AbstractDenoiser, FiniteDenoiser, GaussianDenoiser, OnSchedule, Prediction
from asyncpatch.runs import configure, open_batches
from asyncpatch.timesteps import AsyncPatch
from asyncpatch.train import RunConfig, init_state, make_mesh
from asyncpatch.train.checkpoint import Checkpoints
from experiments.likelihood import choose_laws, likelihood, path_laws
from experiments.parts.bounds import Effort, Model, take
from experiments.parts.consistency import Spread, consistency_gap, gap_of
from experiments.parts.learn_path import FitConfig, fit
from experiments.parts.rescheduled import Rescheduled
from experiments.tightest_bound import gap, learn, sweep

SIDE, IMAGES = 4, 3
LITTLE = Effort(points=4, draws=2)
SCHEDULE = LogLinear(8.0, -8.0)


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    """A run that has saved its first weights and nothing else, of a network as small as can be."""
    folder = tmp_path_factory.mktemp("run")
    experiment = configure(Digits(), "digits", AsyncPatch((1, 2)), batch_size=8)
    network = dataclasses.replace(experiment.network, base=8, head=8)
    experiment = dataclasses.replace(experiment, network=network)
    state = init_state(experiment.learner, experiment.training, make_mesh(1, 1))
    with Checkpoints(folder, RunConfig(steps=1)) as checkpoints:
        checkpoints.save(state, to_json(experiment), {})
    return folder


def test_likelihood_leaves_numbers_config_table_and_picture(untrained, tmp_path):
    rows = likelihood(untrained, tmp_path, laws=("synchronous", "window", "spiral"), images=4, effort=LITTLE)
    assert [row.law for row in rows] == ["synchronous", "window", "spiral"]
    assert rows[0].difference == rows[0].difference_error == 0
    assert all(np.isfinite(dataclasses.astuple(row)[1:]).all() for row in rows)
    for row in rows:
        assert row.bits == pytest.approx(row.diffusion + row.reconstruction + row.prior, rel=1e-5)
    record = json.loads((tmp_path / "likelihood.json").read_text())
    assert record["calls"] == 3 * 4 * 8
    assert {"commit", "machine", "command", "arguments"} <= record.keys()
    assert record["arguments"]["effort"]["seed"] == 0
    assert json.loads((tmp_path / "config.json").read_text())["network"]["base"] == 8
    assert (tmp_path / "table.md").read_text().count("\n") == 5
    assert (tmp_path / "likelihood.png").exists()


def test_the_three_questions_leave_their_answers(monkeypatch, tmp_path):
    """The exact denoiser of a few digits stands in for a checkpoint: no network to compile."""
    experiment = configure(Digits(), "digits", AsyncPatch((1, 2)), batch_size=8)

    def open_finite(run, ends, images):
        pixels, labels = take(open_batches(experiment, 0)[1], images)
        schedule = LogLinear(ends.max_log_snr, ends.min_log_snr)
        return experiment, Model(FiniteDenoiser(pixels, schedule), EightBit(), pixels, labels)

    monkeypatch.setattr("experiments.tightest_bound.open_model", open_finite)
    # Environments take XLA long to compile; `learn` has one, and the others make do without.
    monkeypatch.setattr("experiments.tightest_bound.Environment", Window)
    sweep(tmp_path, tmp_path, spreads=(float("inf"),), patches=(2,), images=4, effort=LITTLE)
    gap(tmp_path, tmp_path, paths=3, images=4, effort=LITTLE)
    fitting = FitConfig(steps=2, images_a_step=2, points=2)
    learn(tmp_path, tmp_path, training_images=8, images=4, fitting=fitting, effort=LITTLE)
    for name in ("sweep", "gap", "learn"):
        assert "commit" in json.loads((tmp_path / f"{name}.json").read_text())
        assert (tmp_path / f"{name}.png").exists()


def test_unknown_laws_are_refused_by_name():
    available = path_laws(8, 8, 2, (1, 2))
    with pytest.raises(ValueError, match=r"laws are called synchronous, .* got \['diagonal'\]"):
        choose_laws(("synchronous", "diagonal"), available)
    with pytest.raises(ValueError, match="got none"):
        choose_laws((), available)


def test_images_are_taken_once_each():
    _, held_out = open_batches(configure(Digits(), "digits", AsyncPatch((1,))), 0)
    images, labels = take(held_out, 180)
    assert len(labels) == 180
    assert len(np.unique(np.asarray(images).reshape(180, -1), axis=0)) == 180
    with pytest.raises(ValueError, match="at least two"):
        take(held_out, 1)


class OneTime(AbstractDenoiser):
    """Wrong twin: right where all tokens share their time, and told the mean time elsewhere."""

    exact: GaussianDenoiser

    schedule = SCHEDULE
    num_classes = None

    def __call__(self, z, t, label):
        data = self.exact(z, jnp.full_like(t, jnp.mean(t)), label).data
        return Prediction.from_data(self.exact.schedule, z, t, data)


def gaussian_model(wrong: bool) -> Model:
    """Images that are no draws of the Gaussian: the bound is the same on all paths for each of them."""
    place = jnp.arange(SIDE * SIDE, dtype=jnp.float32)
    covariance = jnp.exp(-jnp.abs(place[:, None] - place[None, :]) / 3)
    exact = GaussianDenoiser(jnp.zeros((SIDE, SIDE, 1)), covariance, SCHEDULE)
    images = jr.uniform(jr.key(1), (IMAGES, SIDE, SIDE, 1), minval=-1.0)
    return Model(OneTime(exact) if wrong else exact, Continuous(), images, jnp.zeros(IMAGES, jnp.int32))


def test_gap_is_zero_for_an_exact_denoiser_and_not_for_another():
    """The intervals are of 95%: the false-alarm rate is 5% each; the seed is fixed."""
    effort = Effort(points=32, draws=4)
    exact, wrong = (consistency_gap(gaussian_model(w), "", Window((1,)), 8, effort) for w in (False, True))
    assert exact.image.low < 0 < exact.image.high
    assert exact.shared.low < 0 < exact.shared.high
    assert wrong.image.low > 10 * exact.image.high
    assert wrong.image.low < wrong.image.value < wrong.image.high


PATHS, READ_IMAGES, SETS = 12, 8, 300


def readings_with_gap(rng: np.random.Generator, shared: float, own: float) -> np.ndarray:
    """Two readings a path of heavy-tailed noise, whose fourth moment is infinite, and a gap of known variance."""
    of_path = shared * rng.normal(size=(PATHS, 1, 1)) + own * rng.normal(size=(PATHS, 1, READ_IMAGES))
    return of_path + rng.standard_t(3, size=(PATHS, 2, READ_IMAGES))


def former_interval(bits: np.ndarray) -> tuple[float, float]:
    """Wrong twin: the variance of the mean over readings less that by noise, and two errors of its own jackknife."""

    def shared(bits: np.ndarray) -> float:
        noise = np.var(bits, axis=1, ddof=1) / bits.shape[1]
        return np.var(np.mean(bits, axis=(1, 2)), ddof=1) - np.mean(noise) / bits.shape[2]

    without = [shared(np.delete(bits, i, axis=0)) for i in range(len(bits))]
    error = np.sqrt((len(bits) - 1) * np.var(without))
    return shared(bits) - 2 * error, shared(bits) + 2 * error


@pytest.mark.parametrize(("shared", "own"), [(0.0, 0.0), (0.3, 0.0), (1.0, 0.3), (3.0, 1.0)])
def test_intervals_of_gaps_hold_the_truth_nine_times_in_ten_and_the_estimate_is_unbiased(shared, own):
    """Of 300 sets 270 must: of intervals that hold 93% a false alarm at 2%. The mean is within 4 errors: 1e-4."""
    rng = np.random.default_rng(0)
    sets = [readings_with_gap(rng, shared, own) for _ in range(SETS)]
    gaps = [gap_of("", bits) for bits in sets]
    for spreads, truth in (
        ([found.image for found in gaps], shared**2 + own**2),
        ([found.shared for found in gaps], shared**2 + own**2 / READ_IMAGES),
    ):
        assert np.mean([spread.low <= truth <= spread.high for spread in spreads]) >= 0.9
        values = np.array([spread.value for spread in spreads])
        assert abs(values.mean() - truth) < 4 * values.std() / np.sqrt(SETS)
    if shared >= 1:  # the paths' own scatter decides, and the former error is too small whenever the value is
        ends = [former_interval(bits) for bits in sets]
        truth = shared**2 + own**2 / READ_IMAGES
        assert np.mean([low <= truth <= high for low, high in ends]) < 0.87


def test_the_former_error_bar_calls_variances_negative_and_the_interval_does_not():
    """Without a gap, of 16 times as many images, whose noise is known well: the interval lies below 0 at most in 1 set
    of 25 (2.5% are meant to, false alarm 5%), the former one, which means the same, in more than 1 of 16."""
    rng = np.random.default_rng(1)
    sets = [rng.normal(size=(PATHS, 2, 16 * READ_IMAGES)) for _ in range(SETS)]
    assert np.mean([gap_of("", bits).shared.high < 0 for bits in sets]) < 1 / 25
    assert np.mean([former_interval(bits)[1] < 0 for bits in sets]) > 1 / 16


def test_a_gap_that_was_not_measured_is_not_called_zero():
    assert Spread(0.04, 0.01, 0.09).words == "0.2 (0.1 to 0.3)"
    assert Spread(0.04, -0.01, 0.09).words == "not above noise, below 0.3"
    assert Spread(-0.04, -0.09, -0.01).words == "not above noise"
    assert gap_of("", np.ones((3, 2, 4))).image == Spread(0.0, 0.0, 0.0)


def test_gap_needs_three_paths():
    with pytest.raises(ValueError, match="at least three paths, got 2"):
        consistency_gap(gaussian_model(False), "", Window((1,)), 2, LITTLE)


def test_a_rescheduled_law_has_the_bound_that_it_has_under_its_own_schedule():
    """A denoiser whose bound depends on the path tells schedules apart; 4 standard errors, false-alarm rate 1e-4."""
    model, own, law = gaussian_model(wrong=True), Truncated(Cosine(), 8.0, -8.0), Environment((1,))
    on_own = dataclasses.replace(model, denoiser=OnSchedule(model.denoiser, own))
    effort = Effort(points=32, draws=32)
    expected = on_own.bound(law, effort)
    for candidate, agrees in ((Rescheduled(law, own, SCHEDULE), True), (law, False)):
        found = model.bound(candidate, effort)
        error = np.sqrt(np.sum(found.draw_error**2 + expected.draw_error**2))
        assert (abs(np.sum(found.nats - expected.nats)) < 4 * error) == agrees


def test_the_diagonal_is_the_diagonal_under_every_schedule():
    path = Rescheduled(Synchronous(), Truncated(Cosine(), 8.0, -8.0), SCHEDULE).sample(jr.key(0), SIDE, SIDE)
    r = jnp.linspace(0, 1, 33)
    times = np.asarray(jax.vmap(path)(r))
    np.testing.assert_allclose(times, np.broadcast_to(np.asarray(r)[:, None, None], times.shape), atol=2e-6)
    assert np.all(times[0] == 0)
    assert np.all(times[-1] == 1)


def test_before_learning_the_law_is_its_environment():
    law = start_learning(raster(SIDE, SIDE, 2), spread=0.7, pieces=5)
    path = law.sample(jr.key(0), SIDE, SIDE)
    plain = EnvironmentPath(path.base.log_rates)
    for r in (0.0, 0.3, 1.0):
        np.testing.assert_allclose(path(jnp.float32(r)), plain(jnp.float32(r)), atol=1e-6)
    assert float(jnp.exp(law.log_spread)) == pytest.approx(0.7)


class Tangled(AbstractDenoiser):
    """Exact for white noise, but for an error in proportion to how far a token's time strays from the mean."""

    schedule = SCHEDULE
    num_classes = None

    def __call__(self, z, t, label):
        error = 3 * (t - jnp.mean(t))
        return Prediction.from_data(SCHEDULE, z, t, (SCHEDULE.alpha(t) * z[..., 0] + error)[..., None])


def test_learning_turns_a_law_towards_the_tighter_bound():
    """The tangled denoiser is right on the diagonal alone, so the spread is to fall."""
    model = eqx.tree_at(lambda model: model.denoiser, gaussian_model(wrong=False), Tangled())
    start = start_learning(raster(SIDE, SIDE, 2), spread=1.0, pieces=2)
    learned, history = fit(model, start, FitConfig(steps=20, images_a_step=IMAGES, points=4, learning_rate=0.1))
    assert history[0][1] == pytest.approx(1.0)
    assert float(jnp.exp(learned.log_spread)) < 0.7


def test_bad_learned_laws_are_refused():
    groups = raster(SIDE, SIDE, 2)
    with pytest.raises(ValueError, match="spread must be positive to be learned, got 0"):
        start_learning(groups, spread=0.0)
    with pytest.raises(ValueError, match="at least one piece, got 0"):
        start_learning(groups, spread=1.0, pieces=0)
    with pytest.raises(ValueError, match="the groups name 4 warps, but 3 are given"):
        Learned(jnp.zeros(()), jnp.zeros((3, 2)), groups)
    with pytest.raises(ValueError, match="grid of 4x4 tokens, but the path is asked for 8x8"):
        start_learning(groups, spread=1.0).sample(jr.key(0), 8, 8)
