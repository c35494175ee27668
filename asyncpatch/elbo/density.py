"""Where random walks spend their time: the density of time fields under the bound (paper B.3, eqs. 30-31).

For rates `omega_i = E_i^c`, `E_i ~ Exp(1)`, with `a = 1/c`, `ell = -log(1-t)`, `L = sum ell_j`, `S = sum ell_j^a`,
`C = sum ell_j (1 - t_j)`,

    E_omega int_0^d f(gamma(s)) ds = int_[0,1]^d f(t) rho(t) dt,
    rho(t) = a^(d-1) (d-1)! C prod_j ell_j^(a-1) e^L / S^d ,

which at the paper's `c = 1` is `(d-1)! C e^L / L^d`. Its mass is `d`. The bound weighs the denoising error of token `i`
by `w_i = rho p_i`, `p_i = ell_i (1 - t_i) / C`; `int w_i dt_-i = 1` for every `t_i`.

**Digits.** The terms of `log rho` are of size `d log d` and cancel to a few units. With the mean `m` of the clocks,

    log rho = [log (d-1)! - d log d + d] + (d-1) log a + log C + (a-1) sum log(ell_j / m)
              + d [ (m - 1 - log m) + K(1) - K(a) ],        K(b) = log mean_j (ell_j / m)^b

where the bracket is taken in float64 on the host, `m - 1` is a mean of small numbers, and `K(1)`, which is 0, carries
the same rounding as `K(a)` near it.

Tokens may be patches that share one time: `d` is then their number.
"""

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

SERIES_REACH = 0.3
"""How far from `m = 1` the series of `m - 1 - log m` is used; what it neglects is 1e-8 of the sum there."""


def log_density(ell: Float[Array, " tokens"], spread: ArrayLike = 1.0) -> Float[Array, ""]:
    """`log rho` at the clocks `ell` (see `asyncpatch.paths.clock`), finite and positive; `spread` is `c > 0`.

    With one token the density is 1. At `c = 1` single clocks of 0 are allowed; at other spreads the density is 0 or
    infinite there.
    """
    if ell.size == 1:
        return jnp.zeros((), ell.dtype)
    return _log_ratio(ell, spread) + jax.nn.logsumexp(jnp.log(ell) - ell)


def token_log_weights(ell: Float[Array, " tokens"], spread: ArrayLike = 1.0) -> Float[Array, " tokens"]:
    """`log w_i = log rho + log p_i` of every token, at the clocks `ell`; arguments as in `log_density`.

    `C` cancels, so it is left out of both.
    """
    if ell.size == 1:
        return jnp.zeros_like(ell)
    return _log_ratio(ell, spread) + jnp.log(ell) - ell


def _log_ratio(ell: Float[Array, " tokens"], spread: ArrayLike) -> Float[Array, ""]:
    """`log(rho / C)`, for two tokens or more."""
    tokens = ell.size
    power = 1 / jnp.asarray(spread, ell.dtype)
    constant = math.lgamma(tokens) - tokens * math.log(tokens) + tokens
    relative = ell / jnp.mean(ell)
    log_relative = jnp.log(relative)
    tilt = jax.nn.logsumexp(log_relative) - jax.nn.logsumexp(power * log_relative)
    products = jnp.sum(jax.scipy.special.xlogy(power - 1, relative))
    return constant + (tokens - 1) * jnp.log(power) + products + tokens * (_mean_excess(ell) + tilt)


def _mean_excess(ell: Float[Array, " tokens"]) -> Float[Array, ""]:
    """`m - 1 - log m` of the mean `m`, without cancellation near `m = 1`."""
    mean, small = jnp.mean(ell), jnp.clip(jnp.mean(ell - 1), -SERIES_REACH, SERIES_REACH)
    # With y = m - 1 and z = y / (2 + y): log m = 2 artanh(z), and y - 2 z = y^2 / (2 + y).
    z = small / (2 + small)
    tail = z**3 * (1 / 3 + z**2 * (1 / 5 + z**2 * (1 / 7 + z**2 / 9)))
    near = small**2 / (2 + small) - 2 * tail
    return jnp.where(jnp.abs(mean - 1) < SERIES_REACH, near, mean - 1 - jnp.log(mean))
