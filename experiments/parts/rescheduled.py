"""A noise schedule as a warp of paths.

The bound depends on the log-SNRs that the tokens pass through together, and on nothing else of the schedule. A law of
paths under one schedule is therefore a law under any other with the same ends, and the diagonal is the diagonal under
all of them. With this, schedules are compared on one log-linear clock, where the noise of the estimate is least.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from asyncpatch.noise_schedule import AbstractNoiseSchedule
from asyncpatch.paths import AbstractPath, AbstractPathLaw
from asyncpatch.shapes import TimeField


class RescheduledPath(AbstractPath):
    """The log-SNRs of `path` under its `own` schedule, as times of the schedule `used`."""

    path: AbstractPath
    own: AbstractNoiseSchedule
    used: AbstractNoiseSchedule

    def __call__(self, r: Float[Array, ""]) -> TimeField:
        return same_log_snr(self.own, self.used, self.path(same_log_snr(self.used, self.own, r)))


class Rescheduled(AbstractPathLaw):
    """Paths of `law`, which is meant for the schedule `own`, for a denoiser on the schedule `used` with equal ends."""

    law: AbstractPathLaw
    own: AbstractNoiseSchedule
    used: AbstractNoiseSchedule

    def sample(self, key: PRNGKeyArray, height: int, width: int) -> RescheduledPath:
        return RescheduledPath(self.law.sample(key, height, width), self.own, self.used)


def same_log_snr(
    given: AbstractNoiseSchedule, other: AbstractNoiseSchedule, t: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """The time at which `other` has the log-SNR that `given` has at `t`; exactly 0 and 1 at 0 and 1."""
    moved = other.time(given.log_snr(t))
    exact = jnp.where(t <= 0, 0.0, jnp.where(t >= 1, 1.0, jnp.clip(moved, 0.0, 1.0)))
    return moved + jax.lax.stop_gradient(exact - moved)
