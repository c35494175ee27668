"""What a step rule is: one update from `z` at times `t` to `z` at times `s <= t`.

Invariant: a token with `s_i = t_i` keeps its bits, whatever the prediction, the state and the key.
"""

import abc
from collections.abc import Callable

import equinox as eqx
from jaxtyping import PRNGKeyArray, PyTree

from asyncpatch.noise_schedule import AbstractNoiseSchedule
from asyncpatch.process import Prediction
from asyncpatch.shapes import Image, TimeField

Denoise = Callable[[Image, TimeField], Prediction]
"""One more look of a step rule: the prediction at another image and its times, label and known tokens included."""


class AbstractStepRule(eqx.Module):
    """One step of generation, for one image.

    To write one more: keep earlier predictions or whatever else the rule remembers in `state`, with the same shapes
    and types at every step; say in `calls` how often the denoiser is called in a step, the call that gave `prediction`
    included; keep the invariant of the module docstring; and enrol the class in `tests/test_sampling.py`, which fits
    its order of convergence.
    """

    calls: eqx.AbstractClassVar[int]

    @abc.abstractmethod
    def init(self, z: Image) -> PyTree:
        """The state before the first step; `None` for a rule that remembers nothing."""

    @abc.abstractmethod
    def __call__(
        self,
        schedule: AbstractNoiseSchedule,
        z: Image,
        prediction: Prediction,
        t: TimeField,
        s: TimeField,
        state: PyTree,
        key: PRNGKeyArray,
        denoise: Denoise,
    ) -> tuple[Image, PyTree]:
        """The image at times `s`, and the next state. `prediction` is `denoise(z, t)`.

        Not checked: `s <= t`, which holds for any valid plan.
        """
