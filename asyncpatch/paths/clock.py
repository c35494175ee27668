"""The clock of a token, `ell = -log(1 - t)`: 0 when clean, growing without bound towards pure noise.

In float32 `1 - t` dies at 6e-8, while `ell` goes on: whatever lies near noise is written in terms of it.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float


def clock(t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """`ell = -log(1 - t)`; infinite at 1. Raises `ValueError` for times outside [0, 1], where they can be seen."""
    if not isinstance(t, Tracer):
        values = np.asarray(t)
        if not ((values >= 0) & (values <= 1)).all():  # the negation catches NaN
            raise ValueError(
                f"times must lie in [0, 1], got values from {values.min()} to {values.max()}; rescale them"
            )
    return -jnp.log1p(-t)


@jax.custom_jvp
def time_of_clock(ell: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """`t = 1 - exp(-ell)`. Its derivative `exp(-ell)` does not pass through a rounded `1 - t`."""
    return -jnp.expm1(-ell)


@time_of_clock.defjvp
def _time_of_clock_jvp(primals, tangents):
    (ell,), (change,) = primals, tangents
    return time_of_clock(ell), jnp.exp(-ell) * change
