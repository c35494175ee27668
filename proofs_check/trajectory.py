"""The closed form of the limit, in both of its clocks, with all the properties that are claimed of it (paper B.2).

    d tau = ds / sum_j omega_j (1 - gamma_j),     gamma_i = 1 - exp(-omega_i tau),     s = sum_i gamma_i

The truth is a numerical solution of `gamma_i' = omega_i (1 - gamma_i) / sum_j omega_j (1 - gamma_j)` by scipy, and the
properties one by one in float64, from `s = 1e-6 d` to `s = d - 1e-6 d`.
"""

import functools
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from matplotlib.figure import Figure
from scipy.integrate import solve_ivp

import asyncpatch.elbo as elbo
from proofs_check.fluid_limit import one_clock_for_all
from proofs_check.statement import Row, Size

CLAIM = "The limit has the closed form 1 - exp(-omega tau): it solves its equation and has the listed properties"
SOURCE = "paper B.2, eqs. 17-29"

TOKENS = 6
NEAREST = 1e-6
"""Of the ends, as a share of `d`."""

SATURATED = 1e-12
"""A token this near to pure noise is not asked to rise by a representable amount."""

ROUNDING = 1e-9
"""1e-16, magnified by up to 1e6 where `d - s` is read off a rounded `s`."""

Curve = Callable[[Float[Array, " tokens"], Float[Array, ""]], Float[Array, " tokens"]]

RIGHT: Curve = elbo.trajectory
WRONG: Curve = one_clock_for_all


def check(size: Size, subject: Curve) -> list[Row]:
    environments, points = {Size.QUICK: (20, 120), Size.FULL: (500, 600)}[size]
    with jax.enable_x64(True):
        log_rates = _log_rates(environments)
        # Evenly in the logit of s / d, so that both ends are looked at as closely as the middle.
        s = TOKENS * jax.nn.sigmoid(jnp.linspace(np.log(NEAREST), -np.log(NEAREST), points))
        return [
            *_property_rows(subject, log_rates, s),
            _equation_row(subject, log_rates[:10]),
            *_clock_rows(environments),
        ]


def _log_rates(environments: int) -> jax.Array:
    return jnp.asarray(np.log(np.random.default_rng(7).exponential(size=(environments, TOKENS))))


def _property_rows(curve: Curve, log_rates: jax.Array, s: jax.Array) -> list[Row]:
    """The levels, ends, rise and slopes of the curve; `s` rises."""

    def along(log_rates):
        def at(s):
            gamma, slope = jax.jvp(lambda s: curve(log_rates, s), (s,), (jnp.ones_like(s),))
            rate = jnp.exp(log_rates) * (1 - gamma)
            return gamma, jnp.sum(slope), jnp.max(jnp.abs(slope - rate / jnp.sum(rate)))

        return jax.vmap(at)(s)

    gamma, slopes, off = map(np.asarray, jax.jit(jax.vmap(along))(log_rates))
    ends = jnp.array([0.0, TOKENS])
    both = jax.jit(jax.vmap(lambda rates: jax.vmap(curve, in_axes=(None, 0))(rates, ends)))(log_rates)
    first, last = np.moveaxis(np.asarray(both), 1, 0)
    level, rises = gamma.sum(axis=-1), np.diff(gamma, axis=1) > 0
    where = f"rounding, {gamma.shape[0]} environments, {gamma.shape[1]} points"
    rows = {
        "time at s = 0": np.abs(first),
        "missing to 1 at s = d": np.abs(1 - last),
        "sum of times minus s, relative": np.abs(level / np.asarray(s) - 1),
        "sum of slopes minus 1": np.abs(slopes - 1),
        "slope minus the right-hand side of the equation": off,
    }
    stuck = float((~rises & (gamma[:, :-1] < 1 - SATURATED)).sum())
    return [
        *(Row(f"largest {what}", float(values.max()), 0.0, ROUNDING, where) for what, values in rows.items()),
        Row("tokens that do not rise from point to point", stuck, 0.0, 0.0, f"exact, up to 1 - {SATURATED:g}"),
    ]


def _equation_row(curve: Curve, log_rates: jax.Array) -> Row:
    """The curve against the equation's solution by a Runge-Kutta method of order 8."""
    s = np.linspace(0.05, 0.98, 60) * TOKENS
    worst = 0.0
    along = jax.jit(lambda rates: jax.vmap(curve, in_axes=(None, 0))(rates, jnp.asarray(s)))
    for rates in log_rates:
        omega = np.exp(np.asarray(rates))

        def slope(_, gamma, omega=omega):
            return omega * (1 - gamma) / np.sum(omega * (1 - gamma))

        solution = solve_ivp(slope, (0.0, s[-1]), np.zeros(TOKENS), "DOP853", s, rtol=1e-12, atol=1e-14)
        worst = max(worst, np.abs(np.asarray(along(rates)) - solution.y.T).max())
    return Row("largest distance to the equation solved by Runge-Kutta", float(worst), 0.0, 1e-7, "solver at 1e-12")


@functools.cache
def _clock_rows(environments: int) -> list[Row]:
    """Both clocks are inverse to one another, and the auxiliary one runs at the stated speed."""

    def along(log_rates):
        # From where the fastest token has begun to where the slowest is all but done.
        least, most = np.log(NEAREST) - jnp.max(log_rates), jnp.log(10.0) - jnp.min(log_rates)

        def at(log_tau):
            s, speed = jax.jvp(lambda x: elbo.physical_clock(log_rates, x), (log_tau,), (jnp.ones_like(log_tau),))
            gamma = -jnp.expm1(-jnp.exp(log_rates + log_tau))
            stated = jnp.exp(log_tau) * jnp.sum(jnp.exp(log_rates) * (1 - gamma))
            return jnp.abs(elbo.log_auxiliary_clock(log_rates, s) - log_tau), jnp.abs(speed / stated - 1)

        return jax.vmap(at)(jnp.linspace(least, most, 100))

    back, speed = jax.jit(jax.vmap(along))(_log_rates(environments))
    return [
        Row("largest error of log tau, to s and back", float(jnp.max(back)), 0.0, ROUNDING, "rounding"),
        Row("largest error of ds / d tau, relative", float(jnp.max(speed)), 0.0, ROUNDING, "rounding"),
    ]


def picture(path: Path) -> None:
    """One environment in both clocks."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    physical, auxiliary = figure.subplots(1, 2)
    omega = np.array([0.1, 0.4, 1.0, 2.0, 4.0])
    s = jnp.linspace(1e-4, 5 - 1e-4, 400)
    gamma = jax.vmap(elbo.trajectory, in_axes=(None, 0))(jnp.log(jnp.asarray(omega, jnp.float32)), s)
    labels = [f"rate {rate:g}" for rate in omega]
    physical.plot(s, gamma, label=labels)
    physical.plot(s, s / 5, "k--", linewidth=1, label="mean, s/d")
    tau = np.geomspace(1e-3, 1e2, 400)
    auxiliary.semilogx(tau, -np.expm1(-omega[None] * tau[:, None]), label=labels)
    physical.set(xlabel="physical clock s", ylabel="time of a token", title="In the clock that counts steps")
    auxiliary.set(xlabel="auxiliary clock tau", title="In the clock in which tokens part ways")
    physical.legend()
    figure.savefig(path, dpi=120)
