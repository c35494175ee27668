"""Noise schedules: how much signal and how much noise a token holds at its time.

A schedule gives, elementwise in `t`, the signal scale `alpha(t)` and the noise scale `sigma(t)` of
`z = alpha(t) x + sigma(t) eps`, and the log signal-to-noise ratio `log_snr(t) = log(alpha^2 / sigma^2)`.

Invariants: `log_snr` strictly falls in `t`; `alpha` falls and `sigma` rises; `time` inverts `log_snr`.

The *velocity* of a schedule is the linear mix `p(t) x + q(t) eps` that its networks learn: `eps - x` for
rectified flow, `alpha eps - sigma x` for variance-preserving schedules. With `(z, velocity)` known, data and
noise follow by solving a 2x2 system whose determinant `alpha q - sigma p` is 1 in both families.

This module also owns the package's only policy for division by a vanishing scale: `safe_divide`.
"""

import abc
import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from asyncpatch.ranges import check_number

MAX_LOG_SNR = 80.0
"""Either way: beyond, `alpha^2` or `sigma^2` is no normal float32 above 0."""


def safe_divide(numerator: Float[Array, "*shape"], denominator: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """`numerator / denominator`, and 0 where the denominator is exactly 0. Gradients stay finite there.

    A scale that vanishes means that the quotient is not determined by the data (the noise of a clean token, the
    signal of a pure-noise token) and that whatever multiplies it later vanishes too, so 0 is as good as any.
    """
    vanishes = denominator == 0
    return jnp.where(vanishes, 0.0, numerator / jnp.where(vanishes, 1.0, denominator))


class AbstractNoiseSchedule(eqx.Module):
    """`alpha`, `sigma` and `log_snr` of a time, elementwise.

    To write one more: implement the five methods for arrays of any shape, keep the invariants in the module
    docstring, and enrol the class in `tests/test_noise_schedule.py`. Exact end values matter: `alpha` and
    `sigma` at `t = 0` and `t = 1` decide whether known pixels survive to the bit.
    """

    @abc.abstractmethod
    def alpha(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Signal scale, in [0, 1]."""

    @abc.abstractmethod
    def sigma(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Noise scale, in [0, 1]."""

    @abc.abstractmethod
    def log_snr(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """`log(alpha^2 / sigma^2)`: strictly falling; may be infinite at the ends."""

    @abc.abstractmethod
    def time(self, log_snr: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The time at which the schedule has this log-SNR: the inverse of `log_snr`."""

    @abc.abstractmethod
    def velocity_mix(self, t: Float[Array, "*shape"]) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
        """The pair `(p, q)` of `velocity = p x + q eps`, with `alpha q - sigma p = 1`."""


class RectifiedFlow(AbstractNoiseSchedule):
    """Straight lines from data to noise: `alpha = 1 - t`, `sigma = t`, velocity `eps - x`. Source: paper §2."""

    def alpha(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return 1 - t

    def sigma(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return t

    def log_snr(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return 2 * (jnp.log1p(-t) - jnp.log(t))

    def time(self, log_snr: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return jax.nn.sigmoid(-log_snr / 2)

    def velocity_mix(self, t: Float[Array, "*shape"]) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
        return -jnp.ones_like(t), jnp.ones_like(t)


class Cosine(AbstractNoiseSchedule):
    """Variance preserving on a quarter circle: `alpha = cos(pi t/2)`, `sigma = sin(pi t/2)`.

    Source: Nichol & Dhariwal 2021 (arXiv 2102.09672), without its offset.
    """

    def alpha(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        # sin of the complement: exactly 0 at t = 1, where cos(pi/2) is -4e-8 in float32.
        return jnp.sin(math.pi / 2 * (1 - t))

    def sigma(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return jnp.sin(math.pi / 2 * t)

    def log_snr(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return 2 * (jnp.log(self.alpha(t)) - jnp.log(self.sigma(t)))

    def time(self, log_snr: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return 2 / math.pi * jnp.arctan(jnp.exp(-log_snr / 2))

    def velocity_mix(self, t: Float[Array, "*shape"]) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
        return -self.sigma(t), self.alpha(t)


class LogLinear(AbstractNoiseSchedule):
    """Variance preserving with a log-SNR that falls linearly between two finite ends.

    Source: the schedules of Variational Diffusion Models (arXiv 2107.00630), with fixed ends.
    """

    max_log_snr: float = 10.0
    min_log_snr: float = -10.0

    def __check_init__(self):
        _check_log_snr_range(self.max_log_snr, self.min_log_snr)

    def alpha(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return jnp.sqrt(jax.nn.sigmoid(self.log_snr(t)))

    def sigma(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return jnp.sqrt(jax.nn.sigmoid(-self.log_snr(t)))

    def log_snr(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return self.max_log_snr + (self.min_log_snr - self.max_log_snr) * t

    def time(self, log_snr: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return (log_snr - self.max_log_snr) / (self.min_log_snr - self.max_log_snr)

    def velocity_mix(self, t: Float[Array, "*shape"]) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
        return -self.sigma(t), self.alpha(t)


class Truncated(AbstractNoiseSchedule):
    """Another schedule, run only between two finite log-SNRs: `[0, 1]` maps linearly onto the times between.

    Bounds need it (an infinite log-SNR has no finite bound). At `t = 0` a little noise remains: `sigma(0) > 0`.
    """

    base: AbstractNoiseSchedule
    max_log_snr: float = 10.0
    min_log_snr: float = -10.0

    def __check_init__(self):
        _check_log_snr_range(self.max_log_snr, self.min_log_snr)

    def base_time(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The time on the base schedule that `t` stands for."""
        cleanest = self.base.time(jnp.asarray(self.max_log_snr, t.dtype))
        noisiest = self.base.time(jnp.asarray(self.min_log_snr, t.dtype))
        return cleanest * (1 - t) + noisiest * t

    def alpha(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return self.base.alpha(self.base_time(t))

    def sigma(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return self.base.sigma(self.base_time(t))

    def log_snr(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return self.base.log_snr(self.base_time(t))

    def time(self, log_snr: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        cleanest = self.base.time(jnp.asarray(self.max_log_snr, log_snr.dtype))
        noisiest = self.base.time(jnp.asarray(self.min_log_snr, log_snr.dtype))
        return (self.base.time(log_snr) - cleanest) / (noisiest - cleanest)

    def velocity_mix(self, t: Float[Array, "*shape"]) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
        return self.base.velocity_mix(self.base_time(t))


def _check_log_snr_range(max_log_snr: float, min_log_snr: float) -> None:
    if not (math.isfinite(max_log_snr) and math.isfinite(min_log_snr) and min_log_snr < max_log_snr):
        raise ValueError(
            f"log-SNR must fall between two finite ends, got max_log_snr={max_log_snr}, min_log_snr={min_log_snr}; "
            "give a finite max_log_snr above a finite min_log_snr"
        )
    for name, value in {"max_log_snr": max_log_snr, "min_log_snr": min_log_snr}.items():
        check_number(name, value, lambda end: abs(end) <= MAX_LOG_SNR, f"between -{MAX_LOG_SNR} and {MAX_LOG_SNR}")
