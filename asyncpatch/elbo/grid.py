"""The discrete bound along one grid of time fields, step by step (paper eqs. 10-13).

For fields `u^0 = 0 <= u^1 <= .. <= u^M = 1`, in which any number of tokens may rise at a step,

    -log p(x) <= prior + reconstruction
                 + sum_m sum_i (1/2) (SNR(u_i^(m-1)) - SNR(u_i^m)) E |x_i - xhat_i(z, u^m)|^2,    z at u^m ,

because the step's two Gaussians share their variance and are independent over tokens. In terms of the noise a token's
part of step `m` is `(1/2) (exp(log_snr(u^(m-1)) - log_snr(u^m)) - 1) |eps_i - epshat_i|^2`, exactly 0 for a token that
stays. A plan read backwards is such a grid.
"""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray

from asyncpatch.process import AbstractDenoiser, corrupt
from asyncpatch.shapes import Image, Label


def grid_diffusion_nats(
    key: PRNGKeyArray,
    denoiser: AbstractDenoiser,
    fields: Float[Array, "fields height width"],
    image: Image,
    label: Label,
) -> Float[Array, ""]:
    """One draw of the sum over all steps, one denoiser call each; `fields` as `check_grid` returns them."""
    schedule = denoiser.schedule

    def step(carry, neighbours):
        total, key = carry
        key, noise_key = jr.split(key)
        cleaner, noisier = neighbours
        noise = jr.normal(noise_key, image.shape)
        prediction = denoiser(corrupt(schedule, image, noisier, noise), noisier, label)
        gap = jnp.expm1(schedule.log_snr(cleaner) - schedule.log_snr(noisier))
        return (total + 0.5 * jnp.sum(gap[..., None] * (noise - prediction.noise) ** 2), key), None

    (total, _), _ = jax.lax.scan(step, (jnp.zeros((), image.dtype), key), (fields[:-1], fields[1:]))
    return total


def check_grid(fields: ArrayLike) -> Float[Array, "fields height width"]:
    """A user's rising grid of time fields.

    Raises `ValueError` unless there are at least two fields, the first is all 0, the last all 1, and no time falls.
    """
    values = np.asarray(fields, np.float32)
    if values.ndim != 3 or len(values) < 2:
        raise ValueError(f"a grid is at least two time fields, fields x height x width, got shape {values.shape}")
    if not ((values >= 0) & (values <= 1)).all():  # the negation catches NaN
        least, most = np.min(values), np.max(values)
        raise ValueError(f"times must lie in [0, 1], got values from {least} to {most}; rescale them")
    if (values[0] != 0).any() or (values[-1] != 1).any():
        raise ValueError(
            f"a grid rises from all 0 to all 1, got a first field up to {values[0].max()} and a last field down to "
            f"{values[-1].min()}; add the missing end (a plan must be reversed first)"
        )
    falls = np.argwhere(np.diff(values, axis=0) < 0)
    if len(falls):
        step, row, col = falls[0].tolist()
        raise ValueError(
            f"no time may fall along a grid, but token ({row}, {col}) falls from {values[step, row, col]} to "
            f"{values[step + 1, row, col]} at step {step + 1}; sort the fields, or reverse a plan"
        )
    return jnp.asarray(values)
