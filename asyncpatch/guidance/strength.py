"""How strongly a guidance acts at every token: its weight, within an interval of times.

Weights and intervals are arrays, so that one compiled program serves all of them.
"""

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from asyncpatch.ranges import check_guidance
from asyncpatch.shapes import TimeField

Weight = Float[Array, "..."]
"""One weight for the image, or a map of them (height width): `check_weight` and `excess` say so in words."""

ALWAYS = (0.0, 1.0)


def as_floats(value: ArrayLike | tuple[float, float]) -> Float[Array, "*shape"]:
    """For the converters of fields."""
    return jnp.asarray(value, jnp.float32)


def check_weight(weight: Weight) -> None:
    """Raises `ValueError` unless every weight leaves images finite, or there is one or a map of them."""
    if weight.ndim not in (0, 2):
        raise ValueError(f"a weight of guidance is one number or a map (height, width), got shape {weight.shape}")
    if not isinstance(weight, Tracer):
        for value in np.unique(np.asarray(weight)):
            check_guidance(float(value))


def check_interval(interval: Float[Array, "2"]) -> None:
    """Raises `ValueError` unless it is two times, the cleaner one first."""
    if interval.shape != (2,):
        raise ValueError(f"an interval is two times, got shape {interval.shape}; give the cleaner and the noisier one")
    if not isinstance(interval, Tracer) and not 0 <= float(interval[0]) <= float(interval[1]) <= 1:
        low, high = (float(time) for time in interval)
        raise ValueError(f"guidance acts between two times 0 <= low <= high <= 1, got {low:g} and {high:g}")


def excess(weight: Weight, neutral: float, interval: Float[Array, "2"], t: TimeField) -> TimeField:
    """How far the weight of every token is from the one that is off: 0 where its time is outside of the interval.

    Raises `ValueError`, before any compute, for a map of another shape than the image.
    """
    if weight.ndim == 2 and weight.shape != t.shape:
        raise ValueError(f"a map of weights is of the image's size, {t.shape}, got {weight.shape}; resize it")
    acts = (t >= interval[0]) & (t <= interval[1])
    return jnp.where(acts, jnp.broadcast_to(weight, t.shape) - neutral, 0.0)
