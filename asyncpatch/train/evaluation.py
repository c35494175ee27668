"""A figure of the averaged denoiser that is worth more than its loss, measured now and then during training.

Whoever trains passes it in, as they do pictures: the trainer knows neither samplers nor feature networks. Checkpoints
carry the figure under its name, which says by what it was measured, and the best are kept by it.
"""

import dataclasses
from collections.abc import Callable

from jaxtyping import PyTree

from asyncpatch.ranges import check_counts


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What to measure every so many steps, and at the end. Less is better."""

    name: str
    """Figures of one name compare: it says what is measured, by which network, on how many images."""
    every: int
    measure: Callable[[int, PyTree], float]
    """`(step, denoiser)`; it must not keep the denoiser's arrays. Several processes all call it."""

    def __post_init__(self):
        check_counts(evaluate_every=self.every)
