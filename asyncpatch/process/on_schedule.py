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
    """`denoiser`, which knows images of the schedule `trained`, for images of the schedule `used`.

    Log-SNRs of `used` must be ones that `trained` reaches. Where both have no signal left the scale is 1.
    """

    denoiser: AbstractDenoiser
    trained: AbstractNoiseSchedule
    used: AbstractNoiseSchedule

    @property
    def num_classes(self) -> int | None:
        return self.denoiser.num_classes

    def __call__(self, z: Image, t: TimeField, label: Label) -> Prediction:
        known_time = jnp.clip(self.trained.time(self.used.log_snr(t)), 0.0, 1.0)
        alpha = self.used.alpha(t)
        scale = jnp.where(alpha == 0, 1.0, safe_divide(self.trained.alpha(known_time), alpha))
        return self.denoiser(scale[..., None] * z, known_time, label)
