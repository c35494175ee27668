"""Weights of the squared velocity error of one token, as a function of its time.

Errors of the velocity, the data, the noise and the score are multiples of one another, so each published weighting
is one function here. With `(p, q)` the schedule's velocity mix, `alpha q - sigma p = 1` gives

    x - xhat = sigma (vhat - v),    eps - epshat = alpha (v - vhat),    score error = (alpha / sigma) (vhat - v)

Invariant: weights are finite and not negative on all of [0, 1], so no token needs to be masked out.
"""

import abc
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from asyncpatch.noise_schedule import AbstractNoiseSchedule, safe_divide
from asyncpatch.ranges import check_number

MAX_BIAS = 30
"""Of a log-SNR: the weights of two times then differ by 13 orders of magnitude, which float32 cannot tell apart."""


MAX_RATIO = 2.0**24
"""Of the largest weight to the mean over even times: beyond, one token hides all others in a float32 sum."""

TIMES_OF_CHECK = np.concatenate([[0.0], 2.0 ** -np.arange(24, 10, -1), np.arange(1, 1024) / 1024, [1.0]])
"""Times at which a weighting is tried: all of [0, 1], and ever closer to clean, where weights of the score grow."""


class AbstractWeighting(eqx.Module):
    """The weight on the squared velocity error.

    To write one more: implement `__call__` elementwise, keep it finite at `t = 0` and `t = 1`, and enrol the class
    in `tests/test_losses.py`.
    """

    def check(self, schedule: AbstractNoiseSchedule) -> None:
        """Raise `ValueError` unless a network can be trained under this weighting of times on `schedule`.

        Weights and their squares, which gradients' norms are made of, must be finite in float32, none may be negative,
        and none so large that it hides all others.
        """
        weights = np.asarray(self(schedule, jnp.asarray(TIMES_OF_CHECK, jnp.float32)), np.float64)
        usual = float(np.mean(np.abs(weights)[TIMES_OF_CHECK * 1024 >= 1]))
        with np.errstate(over="ignore", invalid="ignore"):
            wrong = ~np.isfinite(np.float32(weights) ** 2) | (weights < -1e-6 * usual) | (weights > MAX_RATIO * usual)
        if wrong.any():
            at = int(np.argmax(wrong))
            raise ValueError(
                f"{_one_line(self)} on {_one_line(schedule)} weighs the noise time {TIMES_OF_CHECK[at]:.2g} by "
                f"{weights[at]:.2g}, where {usual:.2g} is usual; weights must be finite, not negative and of "
                "comparable size: take a schedule that ends at a smaller log-SNR, as LogLinear and Truncated do by "
                "default, or another weighting"
            )

    @abc.abstractmethod
    def __call__(self, schedule: AbstractNoiseSchedule, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The weight at time `t`."""


class Plain(AbstractWeighting):
    """Every time counts alike: the mean squared velocity error of flow matching (arXiv 2210.02747)."""

    def __call__(self, schedule: AbstractNoiseSchedule, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return jnp.ones_like(t)


class SiD2(AbstractWeighting):
    """Sigmoid weighting of the data error, `(-log_snr') e^b sigmoid(log_snr - b)` (SiD2, arXiv 2410.19324).

    Taken over to the velocity, the infinities cancel: with `k = sigma' alpha - alpha' sigma`,

        weight = 2 e^b k alpha sigma / (alpha^2 + e^b sigma^2),

    which for rectified flow (`k = 1`) is `2 e^b t (1-t) / ((1-t)^2 + e^b t^2)`: 0 at both ends, so that clean
    tokens drop out by themselves. `b = 2` is the public ImageNet-64 setting.
    """

    bias: float = 2.0

    def __check_init__(self):
        check_number("bias", self.bias, lambda bias: abs(bias) <= MAX_BIAS, f"between -{MAX_BIAS} and {MAX_BIAS}")

    def __call__(self, schedule: AbstractNoiseSchedule, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        alpha, alpha_slope = jax.jvp(schedule.alpha, (t,), (jnp.ones_like(t),))
        sigma, sigma_slope = jax.jvp(schedule.sigma, (t,), (jnp.ones_like(t),))
        odds = math.exp(self.bias)
        turning = sigma_slope * alpha - alpha_slope * sigma
        return 2 * odds * turning * alpha * sigma / (alpha**2 + odds * sigma**2)


class FisherDivergence(AbstractWeighting):
    """Every time's score counts alike: the squared error of the score, `alpha^2 / sigma^2`.

    Its minimum is the multi-time Fisher divergence of the paper (Lemma A.1). The weight grows without bound towards
    clean times, so train with it on a `Truncated` schedule; a token with `sigma = 0` has no score and weighs 0.
    """

    def __call__(self, schedule: AbstractNoiseSchedule, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return safe_divide(schedule.alpha(t), schedule.sigma(t)) ** 2


def _one_line(thing: object) -> str:
    return " ".join(repr(thing).split())
