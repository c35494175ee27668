"""The two ends of the bound: how well the image can be read off its cleanest version, and what pure noise still says.

    reconstruction = E[-log p(x | z_0)],      prior = KL(q(z_1 | x) || N(0, I))

Both need no network. The prior term is closed form; the reconstruction depends on the *decoder* `p(x | z_0)`, which
reads every entry of the image from the same entry of `z_0 = alpha(0) x + sigma(0) eps`.
"""

import abc
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from asyncpatch.noise_schedule import AbstractNoiseSchedule
from asyncpatch.shapes import Image

LEVELS = 256
"""The values of an 8-bit channel; value `k` stands for `2 k / 255 - 1`."""

ROUNDING = 1e-3
"""How far, in levels, a pixel may lie from an 8-bit value."""


class AbstractDecoder(eqx.Module):
    """`p(x | z_0)`, entry by entry.

    To write one more: implement `nats` so that `exp(-nats)` sums, or integrates, to at most 1 over all images for every
    noise, check images in `check`, and enrol the class in `tests/test_elbo_bound.py`.
    """

    @abc.abstractmethod
    def nats(self, schedule: AbstractNoiseSchedule, image: Image, noise: Image) -> Float[Array, ""]:
        """`-log p(x | z_0)` at `z_0 = alpha(0) image + sigma(0) noise`."""

    @abc.abstractmethod
    def check(self, images: np.ndarray | jax.Array) -> None:
        """Raise `ValueError` for images that the decoder gives no probability to."""


class EightBit(AbstractDecoder):
    """Every entry is one of 256 values, with probabilities proportional to the Gaussian likelihood of `z_0`.

    Source: Variational Diffusion Models (arXiv 2107.00630), their eq. 6. `nats` is minus the log-probability of the
    image itself, so that the bound is one on discrete images and can be given in bits per dimension.
    """

    def nats(self, schedule: AbstractNoiseSchedule, image: Image, noise: Image) -> Float[Array, ""]:
        log_snr = schedule.log_snr(jnp.zeros((), image.dtype))
        # (z_0 - alpha v)^2 / sigma^2 with z_0 = alpha x + sigma eps, in units of sigma. In whole levels, so that the
        # gap to the image's own is exactly 0.
        own = jnp.rint((image + 1) * ((LEVELS - 1) / 2))[..., None]
        gaps = (own - jnp.arange(LEVELS, dtype=image.dtype)[None, None, None, :]) * (2 / (LEVELS - 1))
        distance = jnp.exp(log_snr / 2) * gaps + noise[..., None]
        log_shares = -0.5 * distance**2
        return jnp.sum(jax.nn.logsumexp(log_shares, axis=-1) + 0.5 * noise**2)

    def check(self, images: np.ndarray | jax.Array) -> None:
        level = (np.asarray(images, np.float64) + 1) * ((LEVELS - 1) / 2)
        off = np.abs(level - np.rint(level))
        wrong = ~((off <= ROUNDING) & (level >= -ROUNDING) & (level <= LEVELS - 1 + ROUNDING))  # catches NaN
        if wrong.any():
            raise ValueError(
                f"{wrong.sum()} of {wrong.size} pixel values are no 8-bit values, the first is "
                f"{np.asarray(images)[wrong][0]}: bits per dimension need values 2 k / 255 - 1, k = 0..255; give "
                "images as asyncpatch.data.to_float makes them, not changed afterwards, or use Continuous()"
            )


class Continuous(AbstractDecoder):
    """Real-valued entries: `p(x | z_0) = N(z_0 / alpha(0), sigma(0)^2 / alpha(0)^2)`.

    The posterior under a flat prior, so the bound on a density is loose by what `z_0` leaves open; a high log-SNR at
    `t = 0` makes that vanish.
    """

    def nats(self, schedule: AbstractNoiseSchedule, image: Image, noise: Image) -> Float[Array, ""]:
        log_snr = schedule.log_snr(jnp.zeros((), image.dtype))
        return 0.5 * (jnp.sum(noise**2) + image.size * (math.log(2 * math.pi) - log_snr))

    def check(self, images: np.ndarray | jax.Array) -> None:
        finite = np.isfinite(np.asarray(images))
        if not finite.all():
            raise ValueError(f"{(~finite).sum()} values are NaN or infinite; mend the images before bounding them")


def prior_nats(schedule: AbstractNoiseSchedule, image: Image) -> Float[Array, ""]:
    """`KL(q(z_1 | x) || N(0, I))` of an image, in nats."""
    end = jnp.ones((), image.dtype)
    alpha, sigma = schedule.alpha(end), schedule.sigma(end)
    return 0.5 * jnp.sum((alpha * image) ** 2 + sigma**2 - 1 - 2 * jnp.log(sigma))


def check_schedule(schedule: AbstractNoiseSchedule) -> None:
    """Raise `ValueError` unless the log-SNR is finite at both ends, as every bound needs."""
    ends = schedule.log_snr(jnp.array([0.0, 1.0]))
    if not bool(jnp.isfinite(ends).all()):
        raise ValueError(
            f"a bound needs a finite log-SNR at both ends, got {float(ends[0])} at t = 0 and {float(ends[1])} at "
            f"t = 1; run the schedule between two ends, as in Truncated({type(schedule).__name__}(), 13.0, -10.0)"
        )
