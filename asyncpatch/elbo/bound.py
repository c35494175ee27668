"""The likelihood bound of one image, for any law of paths (paper Theorem 2, and beyond it).

For every curve `gamma` from all-0 to all-1 along which no time falls, and therefore for every law of such curves,

    -log p(x) <= prior + reconstruction + int_0^1 sum_i gamma_i'(r) D_i(gamma(r)) dr,
    D_i(t) = -(1/2) log_snr'(t_i) E |eps_i - epshat_i(z_t, t)|^2 .

The paper's bound is the law of random walks; ordinary diffusion is the diagonal; MuLAN (arXiv 2312.13236) bounds along
per-pixel schedules. For the exact denoiser all are equal to `-log p(x)`, up to the two ends. Derivation in
docs/theory.md.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from asyncpatch.elbo.design import AbstractDesign
from asyncpatch.paths import AbstractPathLaw
from asyncpatch.process import AbstractDenoiser, corrupt
from asyncpatch.shapes import Image, Label, TimeField


def error_rate(
    denoiser: AbstractDenoiser,
    image: Image,
    t: TimeField,
    noise: Image,
    label: Label,
) -> TimeField:
    """`-(1/2) log_snr'(t_i) |eps_i - epshat_i|^2` of every token, at one draw of the noise: nats per unit of time.

    The schedule is the denoiser's; `asyncpatch.process.OnSchedule` moves a denoiser to another one.
    """
    schedule = denoiser.schedule
    slope = jax.jvp(schedule.log_snr, (t,), (jnp.ones_like(t),))[1]
    prediction = denoiser(corrupt(schedule, image, t, noise), t, label)
    return -0.5 * slope * jnp.sum((noise - prediction.noise) ** 2, axis=-1)


def diffusion_nats(
    key: PRNGKeyArray,
    denoiser: AbstractDenoiser,
    law: AbstractPathLaw,
    design: AbstractDesign,
    image: Image,
    label: Label,
) -> Float[Array, ""]:
    """One unbiased draw of the line integral; differentiable with respect to the law as well."""
    points = design.draw(key, law, *image.shape)

    def at_point(t, weights, noise):
        return jnp.sum(weights * error_rate(denoiser, image, t, noise, label))

    return jnp.sum(jax.vmap(at_point)(points.times, points.weights, points.noise))
