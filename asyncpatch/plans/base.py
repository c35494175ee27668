"""What a plan is: at every step of a generation, the time that each token moves to next.

Invariants: times lie in [0, 1], never rise in any token, and end at 0 everywhere; so a token that is clean stays as
it is. Autoregression and strength maps are plans, and a known region turns any plan into inpainting (`Task`).
"""

import abc

import equinox as eqx
from jaxtyping import PyTree

from asyncpatch.process import Prediction
from asyncpatch.shapes import TimeField


class AbstractPlan(eqx.Module):
    """The time fields of one generation, one step at a time, for one image.

    To write one more: keep whatever the plan remembers in `state`, give it the same shapes and types at every step,
    keep the invariants of the module docstring, and enrol the class in `tests/test_plans.py`. `steps` is the
    length of the compiled loop: derive it from shapes, or from an `eqx.field(static=True)`.
    """

    @property
    @abc.abstractmethod
    def steps(self) -> int:
        """How many times the denoiser is called."""

    @abc.abstractmethod
    def init(self, height: int, width: int) -> tuple[PyTree, TimeField]:
        """The state before the first step, and the time field that generation starts from."""

    @abc.abstractmethod
    def next(self, state: PyTree, t: TimeField, prediction: Prediction) -> tuple[PyTree, TimeField]:
        """The next state, and the time field to move to from `t`, where the denoiser said `prediction`."""
