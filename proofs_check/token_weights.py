"""Every token's weight integrates to 1 over the times of all others, wherever its own time stands (paper B.4).

    w_i(t) = rho(t) p_i(t),      int w_i dt_-i = 1   for every i and t_i

so that the bound counts each token's noise levels as ordinary diffusion does; with one token `w = 1`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from asyncpatch.elbo import log_density, token_log_weights
from proofs_check.quadrature import LEAST, MOST, integrate
from proofs_check.statement import Row, Size

CLAIM = "The weight of a token integrates to 1 over the times of the others, at every time of its own"
SOURCE = "paper B.4"

CUT = 1e-6
"""What the quadrature leaves out is `(1e13 / 10)^(-1/1.5)` at a spread of 1.5 and the longest own clock, far below."""

OWN_CLOCKS = [1e-3, 0.1, 1.0, 10.0]

Weights = Callable[[Float[Array, " tokens"], float], Float[Array, " tokens"]]
"""Logarithms of the weights at some clocks, for a spread of the environment."""


def equal_shares(ell: Float[Array, " tokens"], spread: float) -> Float[Array, " tokens"]:
    """Wrong twin: the density, shared evenly among tokens."""
    return jnp.full_like(ell, log_density(ell, spread) - jnp.log(ell.size))


RIGHT: Weights = token_log_weights
WRONG: Weights = equal_shares


def check(size: Size, subject: Weights) -> list[Row]:
    cases, many = {
        Size.QUICK: ([(2, 1.0, 0.25)], []),
        Size.FULL: (
            [(tokens, spread, step) for tokens, step in ((2, 0.2), (3, 0.25)) for spread in (0.5, 1.0, 1.5)],
            [16, 256, 1024],
        ),
    }[size]
    with jax.enable_x64(True):
        one = float(jnp.exp(subject(jnp.ones(1), 1.0))[0])
        rows = [Row("weight of a single token", one, 1.0, 1e-12, "rounding")]
        rows += [_quadrature_row(subject, *case) for case in cases]
        return rows + [_directions_row(subject, tokens) for tokens in many]


def _quadrature_row(subject: Weights, tokens: int, spread: float, step: float) -> Row:
    """The integral that is furthest from 1, over clocks of the first and of the last token."""

    @jax.jit
    def integrals(own):
        first = integrate(lambda rest: subject(jnp.concatenate([own, rest]), spread)[0], tokens - 1, step)
        last = integrate(lambda rest: subject(jnp.concatenate([rest, own]), spread)[-1], tokens - 1, step)
        return jnp.stack([first, last])

    values = np.array([integrals(jnp.array([own])) for own in OWN_CLOCKS]).ravel()
    worst = float(values[np.argmax(np.abs(values - 1))])
    basis = f"quadrature, step {step:g}, {len(values)} own clocks"
    return Row(f"integral furthest from 1, {tokens} tokens, spread {spread:g}", worst, 1.0, CUT, basis)


def _directions_row(subject: Weights, tokens: int) -> Row:
    """For many tokens: at spread 1 the weight depends on the others through their sum alone.

    Its integral is one over the sum, at any fixed proportions; those are drawn.
    """
    draw = np.random.default_rng(tokens)
    shares = draw.exponential(size=tokens - 1)
    shares = jnp.asarray(shares / shares.sum())
    # Of the others' clocks at a sum M: the simplex they fill has the volume M^(d-2) / (d-2)!.
    log_volume = -sum(np.log(np.arange(1, tokens - 1)))

    @jax.jit
    def integral(own):
        def at(log_sum):
            rest = jnp.exp(log_sum) * shares
            log_weight = subject(jnp.concatenate([own, rest]), 1.0)[0]
            return jnp.exp(log_weight - jnp.sum(rest) + (tokens - 1) * log_sum + log_volume)

        step = 0.1 / np.sqrt(tokens)
        return step * jnp.sum(jax.lax.map(at, jnp.arange(LEAST, MOST, step), batch_size=256))

    values = np.array([integral(jnp.array([own])) for own in OWN_CLOCKS])
    worst = float(values[np.argmax(np.abs(values - 1))])
    return Row(f"integral furthest from 1, {tokens} tokens", worst, 1.0, CUT, "quadrature over the sum of clocks")
