"""The loss of a denoiser's statement about its own error: a Gaussian likelihood whose mean is given.

With `e = |v - vhat|^2`, the mean over channels, and the stated logarithm `u` of its expectation, a token loses

    (u + e exp(-u)) / 2,     smallest where  exp(u) = E[e | z, t]

so `exp(u)` is learned as a conditional mean, whatever the law of `e` is. The prediction is detached: what a statement
learns from does not change by it. Source: paper §5.5; Kendall and Gal (arXiv 1703.04977) for the likelihood.
"""

import jax
import jax.numpy as jnp

from asyncpatch.process import AbstractDenoiser, Prediction, corrupt
from asyncpatch.shapes import Image, Label, TimeField


def stated_and_measured(
    denoiser: AbstractDenoiser, data: Image, t: TimeField, noise: Image, label: Label
) -> tuple[TimeField, TimeField]:
    """What the denoiser says of its squared velocity error, as a logarithm, and that error; `noise` is unit Gaussian.

    Raises `ValueError` for a denoiser that says nothing.
    """
    schedule = denoiser.schedule
    prediction = denoiser(corrupt(schedule, data, t, noise), t, label)
    if prediction.log_error is None:
        raise ValueError(
            f"a {type(denoiser).__name__} does not say how wrong it expects to be; give a SelfAssessingDenoiser"
        )
    error = prediction.velocity(schedule, t) - Prediction(data, noise).velocity(schedule, t)
    return prediction.log_error, jax.lax.stop_gradient(jnp.mean(jnp.square(error), axis=-1))


def difficulty_errors(denoiser: AbstractDenoiser, data: Image, t: TimeField, noise: Image, label: Label) -> TimeField:
    """The loss of every token."""
    stated, measured = stated_and_measured(denoiser, data, t, noise, label)
    return (stated + measured * jnp.exp(-stated)) / 2
