"""What one generation is told: the plan that it follows, and the region that is known.

    t_i = trail p_i  where token i is known,     t_i = p_i  elsewhere,          p the times of the plan

Generation knows nothing, inpainting and outpainting know a region, and every one of them is a `Task`. A known token
with `trail = 0` is clean throughout. With a larger one it is only *less* noisy than the others: it follows its own
noisy versions, so that a network meets fields that are less unlike those it was trained on, and 1 is what samplers for
one time per image do (replacement).

Invariant: known tokens end as they were given, to the bit, whatever the trail.
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Shaped

from asyncpatch.plans.base import AbstractPlan
from asyncpatch.plans.fixed import FixedPlan


def _as_share(value: ArrayLike) -> Float[Array, "*any"]:
    return jnp.asarray(value, jnp.float32)


def _as_region(known: ArrayLike | None) -> Shaped[Array, "*any"] | None:
    return None if known is None else jnp.asarray(known)


class Task(eqx.Module):
    """A plan, the known region, and the share of the plan's times at which known tokens trail.

    `known` is one region for all images, or one for each with a leading axis; nothing is known if it is not given.
    Raises `TypeError` if it is not boolean (the polarity of a mask of numbers is anybody's guess), and `ValueError` if
    its shape is not the plan's or `trail` leaves [0, 1].
    """

    plan: AbstractPlan
    known: Bool[Array, "*batch height width"] | None = eqx.field(converter=_as_region, default=None)
    trail: Float[Array, ""] = eqx.field(converter=_as_share, default=0.0)

    def __check_init__(self):
        if self.trail.ndim or (not isinstance(self.trail, Tracer) and not 0 <= float(self.trail) <= 1):
            got = f"an array of shape {self.trail.shape}" if self.trail.ndim else f"{float(self.trail):g}"
            raise ValueError(
                f"known tokens trail at one share of the others' times, in [0, 1], got {got}; 0 holds them clean"
            )
        if self.known is None:
            return
        if self.known.dtype != bool:
            raise TypeError(
                f"known must be boolean, True where a token is observed, got dtype {self.known.dtype}; compare it"
            )
        if isinstance(self.plan, FixedPlan) and self.known.shape[-2:] != self.plan.times.shape[-2:]:
            raise ValueError(
                f"known is {self.known.shape}, the plan's time fields are {self.plan.times.shape[-2:]}; make them equal"
            )

    def knows_something(self) -> bool:
        """Whether any token is known. Not under `jax.jit`."""
        return self.known is not None and bool(np.any(np.asarray(self.known)))
