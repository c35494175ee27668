"""The density of time fields under the bound, for every spread `c` of the environment, in closed form.

With `a = 1/c`, `S = sum_j ell_j^a`, `C = sum_j ell_j (1 - t_j)` and `L = sum_j ell_j`:

    rho_c(t) = a^(d-1) (d-1)! C prod_j ell_j^(a-1) e^L / S^d .

It is compared with the integral over `tau` that it comes from, with the formula itself in 64 bits (where it has digits
to spare), and on two tokens with the share of walks in which one rate is below a multiple of the other, which `w_1`
must give at every `t_1`.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from asyncpatch.elbo import log_density, log_transition_probabilities
from proofs_check.statement import Row, Size

CLAIM = "Rates E^c give the time fields the density rho_c(t) = a^(d-1) (d-1)! C prod ell^(a-1) e^L / S^d, a = 1/c."
SOURCE = "docs/theory.md 9.2"

SPREADS = (0.3, 1.0, 3.0)
TOKENS = {Size.QUICK: (2, 64, 4096), Size.FULL: (2, 5, 64, 1024, 4096, 16384)}
INTEGRATED = 64
"""Up to this many tokens the integral over `tau` is computed as well."""
RELATIVE = 1e-5
"""What 32 bits may lose, of the largest of 1 and the logarithm itself."""
NEAR = 1e-6
"""How near to 0 and to 1 single times are put."""


def paper_density(ell: Float[Array, " tokens"], spread: float) -> Float[Array, ""]:
    """Wrong twin: the paper's density, whatever the spread."""
    return log_density(ell, 1.0)


RIGHT = log_density
WRONG = paper_density


def check(size: Size, subject) -> list[Row]:
    rows = []
    density = jax.jit(subject)
    for tokens in TOKENS[size]:
        for spread in SPREADS:
            for where, ell in fields(tokens, spread).items():
                measured = float(density(jnp.asarray(ell), spread))
                case = f"log rho, d = {tokens}, c = {spread:g}, {where}"
                rows.append(_row(case + ": in 64 bits", measured, log_density_in_64_bits(ell, spread)))
                if tokens <= INTEGRATED:
                    rows.append(_row(case + ": integral over tau", measured, integral_over_tau(ell, spread)))
    for spread in SPREADS:
        for time, ratio in ((0.01, 1000.0), (0.9, 4.0)):
            case = f"int w_1 dt_2 over ell_2 < {ratio:g} ell_1 at t_1 = {time:g}, c = {spread:g}"
            expected = ratio ** (1 / spread) / (1 + ratio ** (1 / spread))
            rows.append(Row(case, mass_at(subject, time, ratio, spread), expected, 1e-9, "quadrature in 64 bits"))
    return rows


def _row(what: str, measured: float, expected: float) -> Row:
    tolerance = RELATIVE * max(1.0, abs(expected))
    return Row(what, measured, expected, tolerance, f"{RELATIVE:g} of the value, in 32 bits")


def fields(tokens: int, spread: float) -> dict[str, Float[np.ndarray, " tokens"]]:
    """Clocks of a field drawn from the density, and with its first two tokens nearly clean and nearly noise."""
    rng = np.random.default_rng(tokens)
    log_rates = spread * np.log(rng.exponential(size=tokens))
    typical = np.float32(np.exp(np.maximum(log_rates + np.log(rng.exponential()) - log_rates[0], -80.0)))
    extreme = typical.copy()
    extreme[:2] = -math.log1p(-NEAR), -math.log(NEAR)
    return {"typical": typical, "times within 1e-6 of 0 and 1": extreme}


def log_density_in_64_bits(ell: Float[np.ndarray, " tokens"], spread: float) -> float:
    """The formula as it stands."""
    logs = np.log(ell.astype(np.float64))
    power, tokens = 1 / spread, len(ell)
    log_moving = np.logaddexp.reduce(logs - np.exp(logs))
    products = (power - 1) * math.fsum(logs)
    constant = (tokens - 1) * math.log(power) + math.lgamma(tokens)
    return constant + log_moving + products + math.fsum(np.exp(logs)) - tokens * np.logaddexp.reduce(power * logs)


def integral_over_tau(ell: Float[np.ndarray, " tokens"], spread: float) -> float:
    """`log int prod_j f(ell_j / tau) / (tau (1 - t_j)) (C / tau) dtau`, `f` the density of a rate.

    The trapezoidal rule in `u = log(tau / peak) / c` over a range outside which the integrand is below 1e-20 of its
    peak; it converges exponentially, because the integrand is analytic there.
    """
    logs = np.log(ell.astype(np.float64))
    power, tokens = 1 / spread, len(ell)
    peak = (np.logaddexp.reduce(power * logs) - math.log(tokens)) / power
    u, step = np.linspace(-5.0, 50.0, 4_001, retstep=True)
    log_tau = peak + spread * u
    log_rate = logs[:, None] - log_tau[None, :]
    log_densities = math.log(power) + (power - 1) * log_rate - np.exp(power * log_rate)
    log_changes = np.exp(logs)[:, None] - log_tau[None, :]
    log_moving = np.logaddexp.reduce(logs - np.exp(logs)) - log_tau
    log_integrand = np.sum(log_densities + log_changes, axis=0) + log_moving + log_tau  # dtau = c tau du
    return float(np.logaddexp.reduce(log_integrand) + math.log(step * spread))


def mass_at(subject, time: float, ratio: float, spread: float) -> float:
    """`int w_1 dt_2` where the first of two tokens is at `time`, over `ell_2 < ratio ell_1`, by Gauss-Legendre.

    It is the share of walks with `omega_2 < ratio omega_1`, and over all `t_2` it is 1. In the angle `theta`,
    `tan^2 theta = (ell_2 / ell_1)^a`, the integrand is smooth.
    """
    nodes, weights = np.polynomial.legendre.leggauss(64)
    most = math.atan(ratio ** (0.5 / spread))
    theta = most / 2 * (nodes + 1)
    first = -math.log1p(-time)
    second = first * np.tan(theta) ** (2 * spread)
    slope = second * 2 * spread / (np.sin(theta) * np.cos(theta))  # d ell_2 / d theta
    with jax.enable_x64(True):
        ell = jnp.asarray(np.stack([np.full_like(second, first), second], axis=1))
        log_weights = _first_log_weights(ell, spread, subject)
    return float(np.sum(most / 2 * weights * slope * np.exp(np.asarray(log_weights) - second)))  # dt = e^-ell d ell


@partial(jax.jit, static_argnames="subject")
def _first_log_weights(ell, spread, subject):
    return jax.vmap(lambda both: subject(both, spread) + log_transition_probabilities(both)[0])(ell)
