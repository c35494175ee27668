"""The time distribution of the likelihood bound, drawn exactly: a random point of a random walk's limit.

With the rates `omega` of `asyncpatch.paths.Environment`, one token `i` of the image drawn evenly and `u ~ U(0, 1)`,

    tau = -log(1 - u) / omega_i,      t_j = 1 - exp(-omega_j tau)

so token `i` is at `u` and all others are where their clocks stand at that moment. This is the law of `path(r)`,
`r ~ U(0, 1)`, without solving for `tau` and without rejection; `OnPath(Environment(...))` draws the same law through
`r`, which is then the mean of the field. Derivation in docs/theory.md.

The mean of the field is U(0, 1), exactly. With `c = 0` all tokens agree; the spread inside an image grows with `c`,
up to `m (1 - m)` around the mean `m`, where every token is either clean or noise; the scale is the patch.
"""

import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from asyncpatch.paths import Environment as EnvironmentLaw
from asyncpatch.paths import clock, time_of_clock
from asyncpatch.timesteps.base import AbstractTimestepSampler


class Environment(AbstractTimestepSampler):
    """A random point of a random path of `law`, whose patch sizes and spread are the scale and spread of the fields."""

    law: EnvironmentLaw

    def __call__(self, key: PRNGKeyArray, height: int, width: int) -> Float[Array, "{height} {width}"]:
        path_key, token_key, level_key = jr.split(key, 3)
        log_rates = self.law.sample(path_key, height, width).log_rates
        log_rate = log_rates.ravel()[jr.randint(token_key, (), 0, log_rates.size)]
        return time_of_clock(jnp.exp(log_rates - log_rate + jnp.log(clock(jr.uniform(level_key)))))
