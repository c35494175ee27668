"""Classifier-free guidance: away from what any image looks like, towards what the class looks like.

    s_w = s(z, t, null) + w (s(z, t, label) - s(z, t, null))                                       (paper eq. 6)

At fixed `(z, t)` data, noise and velocity are affine in the score with coefficients that both branches share, so
the same mix holds for each of them. Invariant: `w = 1` is off, `w = 0` ignores the label.
"""

import equinox as eqx
import jax.numpy as jnp
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from asyncpatch.noise_schedule import AbstractNoiseSchedule
from asyncpatch.process import AbstractDenoiser, Prediction
from asyncpatch.ranges import check_guidance
from asyncpatch.shapes import NULL_LABEL, Image, Label, TimeField


def _as_weight(weight: ArrayLike) -> Float[Array, ""]:
    return jnp.asarray(weight, jnp.float32)


class ClassifierFree(AbstractDenoiser):
    """Another denoiser, guided by its own answer to `NULL_LABEL`. Raises `ValueError` for a weight that is not finite.

    Source: paper §3.3.

    The weight is an array, so that one compiled program serves all weights. Both branches run as a batch of two.
    """

    denoiser: AbstractDenoiser
    weight: Float[Array, ""] = eqx.field(converter=_as_weight)

    def __check_init__(self):
        if eqx.is_array(self.weight) and not isinstance(self.weight, Tracer):
            check_guidance(float(self.weight))

    @property
    def schedule(self) -> AbstractNoiseSchedule:
        return self.denoiser.schedule

    @property
    def num_classes(self) -> int | None:
        return self.denoiser.num_classes

    def __call__(self, z: Image, t: TimeField, label: Label) -> Prediction:
        labels = jnp.stack([label, jnp.full_like(label, NULL_LABEL)])
        both = eqx.filter_vmap(self.denoiser, in_axes=(None, None, 0))(z, t, labels)
        # Written from the labelled branch, so that a weight of 1 returns it unchanged.
        mixed = (branch[0] + (self.weight - 1) * (branch[0] - branch[1]) for branch in (both.data, both.noise))
        return Prediction(*mixed, None if both.log_error is None else both.log_error[0])
