"""Another law, squeezed between two times, so that the very ends are never trained on.

`t -> min_time + (max_time - min_time) t`. Applied to AsyncPatch this is the paper's law between two end times.
"""

from jaxtyping import Array, Float, PRNGKeyArray

from asyncpatch.timesteps.base import AbstractTimestepSampler


class Margins(AbstractTimestepSampler):
    """The times of `law`, mapped from [0, 1] onto `[min_time, max_time]`. Clean tokens end at `min_time`, not at 0."""

    law: AbstractTimestepSampler
    min_time: float = 1e-4
    max_time: float = 1 - 1e-4

    def __check_init__(self):
        if not 0 <= self.min_time < self.max_time <= 1:
            raise ValueError(
                f"times must satisfy 0 <= min_time < max_time <= 1, got {self.min_time} and {self.max_time}"
            )

    def __call__(self, key: PRNGKeyArray, height: int, width: int) -> Float[Array, "{height} {width}"]:
        return self.min_time + (self.max_time - self.min_time) * self.law(key, height, width)
