"""The limit of the random walk for ever finer levels, in closed form (paper B.1-B.2, eqs. 15-29).

After `floor(n s)` steps the walk on `n` levels stands near `n gamma(s)`, where `s` in [0, d] is the *physical clock*:

    gamma_i' = omega_i (1 - gamma_i) / sum_j omega_j (1 - gamma_j) .

In the *auxiliary clock* `tau` in [0, inf), `d tau = ds / sum_j omega_j (1 - gamma_j)`, tokens part ways and

    gamma_i = 1 - exp(-omega_i tau),      s = sum_i gamma_i .

Along the curve the environment cancels from the probability that a token is the next to climb, with `ell = -log(1-t)`:

    p_i(t) = ell_i (1 - t_i) / sum_j ell_j (1 - t_j) .

Invariants: `gamma(0) = 0`, `gamma(d) = 1`, `sum_i gamma_i(s) = s`, `sum_i gamma_i'(s) = 1`, every token rises.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from asyncpatch.paths import log_shared_time, time_of_clock


def physical_clock(log_rates: Float[Array, " tokens"], log_tau: Float[Array, ""]) -> Float[Array, ""]:
    """`s = sum_i (1 - exp(-omega_i tau))`, in [0, d]."""
    return jnp.sum(time_of_clock(jnp.exp(log_rates + log_tau)))


def log_auxiliary_clock(log_rates: Float[Array, " tokens"], s: Float[Array, ""]) -> Float[Array, ""]:
    """`log tau` at the physical clock `s` in (0, d): the inverse of `physical_clock`.

    As exact as `s` itself, from `1e-6 d` to `d - 1e-6 d` and beyond: `d - s` is taken before anything is rounded.
    """
    tokens = log_rates.size
    return log_shared_time(log_rates, s / tokens, (tokens - s) / tokens)


def trajectory(log_rates: Float[Array, " tokens"], s: Float[Array, ""]) -> Float[Array, " tokens"]:
    """`gamma(s)`, the time of every token at the physical clock `s` in (0, d)."""
    return time_of_clock(jnp.exp(log_rates + log_auxiliary_clock(log_rates, s)))


def log_transition_probabilities(ell: Float[Array, " tokens"]) -> Float[Array, " tokens"]:
    """`log p_i` of the token that climbs next, at clocks `ell` in [0, inf), at least one of them positive."""
    return jax.nn.log_softmax(jnp.log(ell) - ell)
