"""Classifier-free guidance: away from what any image looks like, towards what the class looks like.

    s_w = s(z, t, null) + w (s(z, t, label) - s(z, t, null))                                       (paper eq. 6)

At fixed `(z, t)` data, noise and velocity are affine in the score with coefficients that both branches share, so
the same mix holds for each of them. Invariant: `w = 1` is off, `w = 0` ignores the label.
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from asyncpatch.guidance.strength import ALWAYS, Weight, as_floats, check_interval, check_weight, excess
from asyncpatch.noise_schedule import AbstractNoiseSchedule
from asyncpatch.process import AbstractDenoiser, Prediction
from asyncpatch.shapes import NULL_LABEL, Image, Label, TimeField


class ClassifierFree(AbstractDenoiser):
    """Another denoiser, guided by its own answer to `NULL_LABEL`.

    `weight` is one number or a map of them (height width), which acts on the tokens whose time is in `interval`, the
    cleaner end first. Both branches run as a batch of two. Raises `ValueError` for weights that are not finite, a map
    of another size and an interval that is none.

    Source: paper §3.3; intervals: arXiv 2404.07724.
    """

    denoiser: AbstractDenoiser
    weight: Weight = eqx.field(converter=as_floats)
    interval: Float[Array, "2"] = eqx.field(converter=as_floats, default=ALWAYS)

    def __check_init__(self):
        check_weight(self.weight)
        check_interval(self.interval)

    @property
    def schedule(self) -> AbstractNoiseSchedule:
        return self.denoiser.schedule

    @property
    def num_classes(self) -> int | None:
        return self.denoiser.num_classes

    def __call__(self, z: Image, t: TimeField, label: Label) -> Prediction:
        extra = excess(self.weight, 1.0, self.interval, t)[..., None]
        labels = jnp.stack([label, jnp.full_like(label, NULL_LABEL)])
        both = eqx.filter_vmap(self.denoiser, in_axes=(None, None, 0))(z, t, labels)
        # Written from the labelled branch, so that a weight of 1 returns it unchanged.
        data, noise = (branch[0] + extra * (branch[0] - branch[1]) for branch in (both.data, both.noise))
        return Prediction(data, noise, None if both.log_error is None else both.log_error[0])
