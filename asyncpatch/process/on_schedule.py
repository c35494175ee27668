"""A denoiser trained under one noise schedule, used under another.

A noisy image is known up to its scale by its log-SNR alone. At time `t` of the new schedule, let `t'` be the time at
which the old one has the same log-SNR; then `z alpha'(t') / alpha(t)` is distributed as the denoiser expects, and its
estimates of data and noise hold as they are.

Invariant: `alpha data + sigma noise = z` under the new schedule wherever it held under the old one.
"""

import jax.numpy as jnp

from asyncpatch.noise_schedule import AbstractNoiseSchedule, safe_divide
from asyncpatch.process.base import AbstractDenoiser, Prediction
from asyncpatch.shapes import Image, Label, TimeField


class OnSchedule(AbstractDenoiser):
    """`denoiser`, which knows images of its own schedule, for images of another one.

    Log-SNRs of `schedule` must be ones that the denoiser's own reaches. Where both have no signal left the scale is 1.
    """

    denoiser: AbstractDenoiser
    schedule: AbstractNoiseSchedule

    @property
    def num_classes(self) -> int | None:
        return self.denoiser.num_classes

    def __call__(self, z: Image, t: TimeField, label: Label) -> Prediction:
        own = self.denoiser.schedule
        known_time = jnp.clip(own.time(self.schedule.log_snr(t)), 0.0, 1.0)
        alpha = self.schedule.alpha(t)
        scale = jnp.where(alpha == 0, 1.0, safe_divide(own.alpha(known_time), alpha))
        return self.denoiser(scale[..., None] * z, known_time, label)
