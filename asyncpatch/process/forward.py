"""The joint forward process: every token is noised to its own time, independently given the image.

    q(z_t | x) = prod_i N(z_i; alpha(t_i) x_i, sigma(t_i)^2)                              (paper eq. 1)

and its posterior between two time fields `s <= t`, with `a = alpha_t / alpha_s`, `v = sigma_t^2 - a^2 sigma_s^2`:

    q(z_s | z_t, x) = N( (a sigma_s^2 / sigma_t^2) z_t + (alpha_s v / sigma_t^2) x ,  v sigma_s^2 / sigma_t^2 )

Invariant: a token with `s_i = t_i` does not move: its mean is `z_i` to the bit and its deviation is 0.
"""

import jax.numpy as jnp

from asyncpatch.noise_schedule import AbstractNoiseSchedule, safe_divide
from asyncpatch.shapes import Image, TimeField


def corrupt(schedule: AbstractNoiseSchedule, data: Image, t: TimeField, noise: Image) -> Image:
    """`z = alpha(t) data + sigma(t) noise`, per token; `noise` is unit Gaussian."""
    return schedule.alpha(t)[..., None] * data + schedule.sigma(t)[..., None] * noise


def noise_further(schedule: AbstractNoiseSchedule, z: Image, s: TimeField, t: TimeField, noise: Image) -> Image:
    """A draw of `q(z_t | z_s)` for `t >= s` elementwise; a token with `t_i = s_i` keeps its bits.

    `noise` is unit Gaussian. Not checked: `t >= s`.
    """
    ratio = safe_divide(schedule.alpha(t), schedule.alpha(s))
    added = jnp.maximum(schedule.sigma(t) ** 2 - (ratio * schedule.sigma(s)) ** 2, 0.0)
    noised = ratio[..., None] * z + jnp.sqrt(added)[..., None] * noise
    return jnp.where((s == t)[..., None], z, noised)


def posterior(
    schedule: AbstractNoiseSchedule, z: Image, data: Image, t: TimeField, s: TimeField
) -> tuple[Image, TimeField]:
    """Mean and standard deviation of `q(z_s | z_t, x = data)` for `s <= t` elementwise.

    The deviation is one number per token. Not checked: `s <= t`, which holds for any valid plan.
    """
    ratio = safe_divide(schedule.alpha(t), schedule.alpha(s))
    var_s, var_t = schedule.sigma(s) ** 2, schedule.sigma(t) ** 2
    added = jnp.maximum(var_t - ratio**2 * var_s, 0.0)
    on_z = safe_divide(ratio * var_s, var_t)[..., None]
    on_data = safe_divide(schedule.alpha(s) * added, var_t)[..., None]
    stays = s == t
    mean = jnp.where(stays[..., None], z, on_z * z + on_data * data)
    return mean, jnp.where(stays, 0.0, jnp.sqrt(safe_divide(added * var_s, var_t)))
