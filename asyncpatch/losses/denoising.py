"""The denoising loss of one image: the weighted squared error of the velocity at a time field.

For every law of time fields its minimiser is the same, the conditional mean of the velocity, hence the joint score at
every time field of the law's support (paper Theorem 1).
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from asyncpatch.losses.weighting import AbstractWeighting
from asyncpatch.process import AbstractDenoiser, Prediction, corrupt
from asyncpatch.shapes import Image, Label, TimeField


def denoising_errors(
    denoiser: AbstractDenoiser,
    weighting: AbstractWeighting,
    data: Image,
    t: TimeField,
    noise: Image,
    label: Label,
) -> Image:
    """`weight(t) (v - vhat)^2` of every token and channel, with `noise` unit Gaussian."""
    schedule = denoiser.schedule
    prediction = denoiser(corrupt(schedule, data, t, noise), t, label)
    error = prediction.velocity(schedule, t) - Prediction(data, noise).velocity(schedule, t)
    return weighting(schedule, t)[..., None] * jnp.square(error)


def denoising_loss(
    denoiser: AbstractDenoiser,
    weighting: AbstractWeighting,
    data: Image,
    t: TimeField,
    noise: Image,
    label: Label,
) -> Float[Array, ""]:
    """The mean of these errors."""
    return jnp.mean(denoising_errors(denoiser, weighting, data, t, noise, label))
