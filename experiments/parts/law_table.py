"""The rows of the table of laws: how large it is, which laws it compares, and on which seeds."""

import dataclasses
from typing import Literal

from asyncpatch.masks import Extrema, OneOf, Square, Thin, Wide
from asyncpatch.paths import Environment as EnvironmentLaw
from asyncpatch.timesteps import (
    AbstractTimestepSampler,
    AsyncPatch,
    Environment,
    Independent,
    Masked,
    MeanBeta,
    PatchForcing,
    Patchwise,
    Perlin,
    Synchronous,
)
from asyncpatch.train import AbstractOptimizerConfig, OptimizerConfig
from experiments.parts.rows import Steps

Preset = Literal["miniature", "miniature-long", "paper"]
Table = Literal["laws", "tuning"]

SEEDS = (0, 1, 2)
"""Of the laws that the claims are about; the others have the first alone."""

CLAIMED = ("synchronous", "independent", "patchwise", "perlin", "async-patch", "environment")
"""The paper's laws, and the candidate that is ours."""

TUNING_SEED = 100
"""Of the candidates for our own law, and of the synchronous one beside them: none of the reported seeds."""

REPAINT = "repaint"
"""The row of the baseline, which trains nothing."""

TRAILING = ("async-patch", "environment")
"""Laws whose networks complete images with trailing known pixels too."""

MASKS = {"square": Square(), "extrema": Extrema(), "thin": Thin(), "wide": Wide()}
"""The four mask families."""


@dataclasses.dataclass(frozen=True)
class Scale:
    """How large a table is."""

    preset: str
    side: int
    steps: int
    batch_size: int
    ema_decay: float
    optimizer: AbstractOptimizerConfig
    generated: int
    completed: int
    generating: Steps
    completing: Steps
    repaint: Steps


MINIATURE = Scale(
    preset="miniature",
    side=32,
    steps=2400,
    batch_size=16,
    ema_decay=0.998,
    optimizer=OptimizerConfig(learning_rate=1.5e-3, warmup_steps=100),
    generated=1000,
    completed=256,
    generating=Steps(steps=40),
    completing=Steps(steps=40, eta=1.0),
    repaint=Steps(steps=30),
)

SCALES = {
    "miniature": MINIATURE,
    "miniature-long": dataclasses.replace(MINIATURE, steps=3 * MINIATURE.steps),
    "paper": Scale(
        preset="60m",
        side=64,
        steps=1_000_000,
        batch_size=512,
        ema_decay=0.999,
        optimizer=OptimizerConfig(),
        generated=50_000,
        completed=10_000,
        generating=Steps(steps=250),
        completing=Steps(steps=250),
        repaint=Steps(steps=250),
    ),
}
"""The table on a laptop, the same after more training, and the paper's.

The miniature completes images with fresh noise in every step, as RePaint does: on the tuning seed that was better than
the paper's half.
"""


def laws(side: int) -> dict[str, AbstractTimestepSampler]:
    """The laws of the table, for square images of a power of two."""
    patches = tuple(2**power for power in range(side.bit_length()))
    return {
        "synchronous": Synchronous(),
        "independent": Independent(),
        "patchwise": Patchwise(patches),
        "perlin": Perlin(),
        "async-patch": AsyncPatch(patches),
        "environment": candidates(side)["half"],
        "mean-beta": MeanBeta(),
        "patch-forcing": PatchForcing(patches),
        "supervised": Masked(OneOf(tuple(MASKS.values()))),
    }


def candidates(side: int) -> dict[str, AbstractTimestepSampler]:
    """Environment laws to choose from: how far the times of one image may spread, over how large patches they agree,
    and which share of images has one time.
    """
    patches = tuple(2**power for power in range(side.bit_length()))
    spreads = {f"spread-{widest:g}": (patches, widest) for widest in (1.0, 3.0, 6.0)}
    scales = {"coarse": (patches[2:], 3.0), "coarser": (patches[3:], 3.0)}
    # One patch as large as the image is one time for all pixels.
    synchronous = {"half": (patches + 4 * (side,), 6.0), "three-quarters": (patches + 14 * (side,), 6.0)}
    return {
        name: Environment(EnvironmentLaw(some, spread=(0.0, widest)))
        for name, (some, widest) in (spreads | scales | synchronous).items()
    }


def jobs(table: Table, side: int) -> list[tuple[str, int]]:
    """Law and seed of every row, the first seed of all claimed laws first."""
    if table == "tuning":
        return [(name, TUNING_SEED) for name in ("synchronous", *candidates(side))]
    claimed = [(name, seed) for seed in SEEDS for name in (*CLAIMED, REPAINT)]
    return claimed + [(name, SEEDS[0]) for name in laws(side) if name not in CLAIMED]
