"""Every statement holds as it stands, and its wrong twin does not; what is checked in float64 runs in float64."""

import jax
import jax.numpy as jnp
import jax.random as jr
import pytest

from asyncpatch.elbo import log_density, token_log_weights, trajectory
from asyncpatch.noise_schedule import Cosine, LogLinear, RectifiedFlow, Truncated
from asyncpatch.paths import AnyOrder, Environment, Staged, Synchronous, Window, derivative, raster
from asyncpatch.process import FiniteDenoiser, GaussianDenoiser
from asyncpatch.shapes import NULL_LABEL
from proofs_check.report import examine, report, short_name, statements
from proofs_check.statement import Row, Size

STATEMENTS = statements()

EXPECTED = {
    "conditional_score",
    "discrete_bound",
    "fluid_limit",
    "pushforward",
    "score_identity",
    "token_weights",
    "trajectory",
    "transition",
    "walk",
}

SCHEDULES = [RectifiedFlow(), Cosine(), LogLinear(), Truncated(RectifiedFlow())]
LAWS = [Synchronous(), Window((1, 2)), Environment((1, 2)), Staged(raster(2, 2, 1), 0.3), AnyOrder(1)]


def test_every_statement_enrols_itself():
    assert {short_name(statement) for statement in STATEMENTS} >= EXPECTED


@pytest.mark.parametrize("statement", STATEMENTS, ids=short_name)
def test_statement_holds(statement):
    failing = [row for row in statement.check(Size.QUICK, statement.RIGHT) if not row.holds]
    assert not failing


@pytest.mark.parametrize("statement", STATEMENTS, ids=short_name)
def test_wrong_twin_is_rejected(statement):
    assert not all(row.holds for row in statement.check(Size.QUICK, statement.WRONG))


@pytest.mark.parametrize(("measured", "holds"), [(1.1, True), (1.3, False), (float("nan"), False)])
def test_row_holds_within_its_tolerance(measured, holds):
    assert Row("what", measured, 1.0, 0.2, "basis").holds is holds


class Toy:
    """A statement of one row."""

    CLAIM, SOURCE, RIGHT, WRONG = "one | is <one>", "nowhere", 1.0, 2.0
    __name__ = "proofs_check.toy"

    def check(self, size, subject):
        return [Row("a number", subject, 1.0, 0.0, "exact")]


class Blind(Toy):
    """A statement that its wrong twin passes."""

    WRONG = 1.0


class Failing(Toy):
    """A statement that fails."""

    RIGHT = 3.0


@pytest.mark.parametrize(("statement", "holds"), [(Toy(), True), (Blind(), False), (Failing(), False)])
def test_report_tells_what_fails(monkeypatch, tmp_path, statement, holds):
    monkeypatch.setattr("proofs_check.report.statements", lambda: [statement])
    assert examine(statement, Size.QUICK, tmp_path).holds is holds
    assert report(tmp_path, Size.QUICK) is holds
    page, text = ((tmp_path / name).read_text() for name in ("report.html", "report.md"))
    assert "one | is &lt;one&gt;" in page
    assert "| a number |" in text
    assert ("all hold" in text) is holds


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_schedules_run_in_float64(schedule):
    with jax.enable_x64(True):
        t = jnp.array([0.25, 0.5])
        log_snr = schedule.log_snr(t)
        values = [t, log_snr, schedule.alpha(t), schedule.sigma(t), schedule.time(log_snr), *schedule.velocity_mix(t)]
        assert {value.dtype for value in values} == {jnp.dtype("float64")}
        assert jnp.max(jnp.abs(schedule.time(log_snr) - t)) < 1e-13


@pytest.mark.parametrize("law", LAWS, ids=lambda law: type(law).__name__)
def test_paths_run_in_float64(law):
    with jax.enable_x64(True):
        path, r = law.sample(jr.key(0), 2, 2), jnp.array(0.3)
        assert path(r).dtype == derivative(path, r).dtype == jnp.float64


def test_exact_denoisers_and_densities_run_in_float64():
    with jax.enable_x64(True):
        t, z, ell = jnp.full((1, 2), 0.5), jnp.ones((1, 2, 1)), jnp.array([0.5, 2.0])
        schedule, label = RectifiedFlow(), jnp.int32(NULL_LABEL)
        gaussian = GaussianDenoiser(jnp.zeros((1, 2, 1)), jnp.eye(2), schedule)(z, t, label)
        finite = FiniteDenoiser(jnp.zeros((3, 1, 2, 1)), schedule)(z, t, label)
        values = [gaussian.data, gaussian.noise, finite.data, finite.noise]
        values += [log_density(ell), token_log_weights(ell), trajectory(ell, jnp.array(0.7))]
        assert {value.dtype for value in values} == {jnp.dtype("float64")}
