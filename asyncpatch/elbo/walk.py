"""The random walk through the grid of time fields, from all-clean to all-noise (paper B.1, eq. 14).

Each of `d` tokens climbs the levels `0, 1, .., n`; every step lifts one token by one level, token `i` with probability

    P(x -> x + e_i) = omega_i (n - x_i) / sum_j omega_j (n - x_j) .

**How it is drawn.** Give each of the `n` levels of token `i` an alarm at an `Exp(omega_i)` time, all independent, and
let the token climb when one rings. Exponential times have no memory: when `n - x_i` alarms of token `i` are left, it
is the next to climb with exactly the probability above. The walk is therefore the order of `n d` random times, and one
sort draws it; a literal walk of `n d` dependent steps is what the tests compare it with.

Invariant: token `i` occurs exactly `n` times among the `n d` steps.
"""

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray


def random_walk(key: PRNGKeyArray, log_rates: Float[Array, " tokens"], levels: int) -> Int[Array, " steps"]:
    """Which token climbs at each of the `levels * tokens` steps. `jax.vmap` over keys draws many walkers at once.

    Raises `ValueError` for less than one level.
    """
    if levels < 1:
        raise ValueError(f"a walk needs at least one level, got levels={levels}; give a positive number")
    log_alarms = -jr.gumbel(key, (levels, log_rates.size)) - log_rates[None, :]
    return jnp.argsort(log_alarms.ravel()) % log_rates.size


def positions(walk: Int[Array, " steps"], tokens: int) -> Int[Array, "steps_and_start {tokens}"]:
    """How often each token has climbed before the first step, after it, and so on to the last."""
    climbed = jnp.cumsum(jax.nn.one_hot(walk, tokens, dtype=jnp.int32), axis=0)
    return jnp.concatenate([jnp.zeros((1, tokens), jnp.int32), climbed])
