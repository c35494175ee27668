"""Predictions and denoisers.

A prediction of the clean image, of the noise, of the velocity or of the score are linear functions of one
another given `(z, t)`. `Prediction` is the hub that they all pass through: it holds the pair (data, noise),
with `z = alpha data + sigma noise`, so that n kinds need 2n conversions and not n^2.

Invariant: `from_k(k())` returns the same pair, for every kind k, wherever the scales it divides by are not 0.
"""

import abc
from typing import TYPE_CHECKING

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from asyncpatch.noise_schedule import AbstractNoiseSchedule, safe_divide
from asyncpatch.shapes import Image, Label, TimeField


def per_channel(field: TimeField, like: Image) -> Image:
    """Give every channel of a token the token's value."""
    return jnp.broadcast_to(field[..., None], like.shape)


class Prediction(eqx.Module):
    """What a denoiser believes: the clean image and the noise that together make `z`."""

    data: Float[Array, "height width channel"]
    noise: Float[Array, "height width channel"]
    log_error: Float[Array, "height width"] | None = None
    """Logarithm of the squared velocity error, the mean over channels, that the denoiser expects of itself at every
    token; None of a denoiser that does not say, and -inf where the truth is known. Adaptive plans read it."""

    @classmethod
    def from_data(cls, schedule: AbstractNoiseSchedule, z: Image, t: TimeField, data: Image) -> "Prediction":
        """From an estimate of the clean image; the noise of tokens with `sigma = 0` is undetermined and set to 0."""
        alpha, sigma = per_channel(schedule.alpha(t), z), per_channel(schedule.sigma(t), z)
        return cls(data, safe_divide(z - alpha * data, sigma))

    @classmethod
    def from_noise(cls, schedule: AbstractNoiseSchedule, z: Image, t: TimeField, noise: Image) -> "Prediction":
        """From an estimate of the noise; the data of tokens with `alpha = 0` is undetermined and set to 0."""
        alpha, sigma = per_channel(schedule.alpha(t), z), per_channel(schedule.sigma(t), z)
        return cls(safe_divide(z - sigma * noise, alpha), noise)

    @classmethod
    def from_velocity(cls, schedule: AbstractNoiseSchedule, z: Image, t: TimeField, velocity: Image) -> "Prediction":
        """From an estimate of the velocity: never divides, finite at every time."""
        alpha, sigma = schedule.alpha(t)[..., None], schedule.sigma(t)[..., None]
        on_data, on_noise = (mix[..., None] for mix in schedule.velocity_mix(t))
        return cls(on_noise * z - sigma * velocity, alpha * velocity - on_data * z)

    @classmethod
    def from_score(cls, schedule: AbstractNoiseSchedule, z: Image, t: TimeField, score: Image) -> "Prediction":
        """From an estimate of `grad log q_t(z)`."""
        return cls.from_noise(schedule, z, t, -schedule.sigma(t)[..., None] * score)

    def velocity(self, schedule: AbstractNoiseSchedule, t: TimeField) -> Image:
        """The velocity `p(t) data + q(t) noise` of the schedule."""
        on_data, on_noise = (mix[..., None] for mix in schedule.velocity_mix(t))
        return on_data * self.data + on_noise * self.noise

    def score(self, schedule: AbstractNoiseSchedule, t: TimeField) -> Image:
        """`grad log q_t(z) = -noise / sigma`; 0 for tokens with `sigma = 0`, which have no density."""
        return -safe_divide(self.noise, per_channel(schedule.sigma(t), self.noise))


class AbstractDenoiser(eqx.Module):
    """Estimates the clean image and the noise from a noisy image whose every token has its own time.

    To write one more: implement `__call__` for one image (`jax.vmap` is the caller's), let the output at a token
    depend on every token and every time, return `Prediction.from_...` of whatever you estimate, and enrol the
    class in `tests/test_process.py`. Wrap a denoiser to change it; guidance does. `schedule` says whose noisy images it
    takes: samplers, losses and bounds ask the denoiser, so that no other can be given beside it.
    """

    if TYPE_CHECKING:  # type checkers take an AbstractVar for a field of the constructor

        @property
        def schedule(self) -> AbstractNoiseSchedule: ...
    else:
        schedule: eqx.AbstractVar[AbstractNoiseSchedule]

    @property
    @abc.abstractmethod
    def num_classes(self) -> int | None:
        """Labels are `0 .. num_classes - 1` or `NULL_LABEL`; None if the label does not matter or any will do."""

    @abc.abstractmethod
    def __call__(self, z: Image, t: TimeField, label: Label) -> Prediction:
        """The prediction at `z`, whose tokens are at times `t`; `label` may be `NULL_LABEL`."""
