"""How each preset is trained, unless told otherwise: one table for the package and the commands.

A learning rate that trains a small network in minutes ruins a large one, and a cadence of hundreds of steps would spend
a long run on checkpoints. The paper's recipe is that of docs/theory.md; that of `fashion-small` won the race to the
lowest loss in minutes on two CPU cores (`experiments.race`), which that of `fashion`, the network that comes with the
package, had won before. That of `digits` came to a validation loss of .484 in 110 s of training, 1,000 steps; Adam at
2e-3 to .526 in 64 s, 700 steps. The others are those of the committed tables.
"""

from dataclasses import dataclass

from asyncpatch.nn import PRESETS
from asyncpatch.train import MuonConfig, OptimizerConfig, RunConfig


@dataclass(frozen=True)
class Recipe:
    """What `configure` and the commands take for granted for a preset."""

    optimizer: OptimizerConfig | MuonConfig
    batch_size: int
    ema_decay: float
    run: RunConfig
    """How long to train, and how often to report, sample and save."""


COOLDOWN = 0.5
"""The share of a run of minutes, at its end, over which the rate falls to 0."""

PAPER = Recipe(OptimizerConfig(learning_rate=3e-5, warmup_steps=10_000), 512, 0.999, RunConfig())

TEN_MINUTES = RunConfig(steps=9000, checkpoint_every=1000, sample_every=3000, validation_batches=16)

RECIPES = {
    "digits": Recipe(
        MuonConfig(learning_rate=5e-3, warmup_steps=50),
        64,
        0.99,
        RunConfig(steps=900, checkpoint_every=300, sample_every=300),
    ),
    "fashion": Recipe(
        MuonConfig(learning_rate=5e-3, warmup_steps=100),
        16,
        0.999,
        TEN_MINUTES,
    ),
    "fashion-small": Recipe(
        MuonConfig(learning_rate=5e-3, warmup_steps=20, momentum=0.9),
        16,
        0.998,
        TEN_MINUTES,
    ),
    "miniature": Recipe(
        OptimizerConfig(learning_rate=1.5e-3, warmup_steps=100),
        16,
        0.998,
        RunConfig(steps=2400, log_every=20, checkpoint_every=800, sample_every=800),
    ),
    "miniature-transformer": Recipe(
        OptimizerConfig(learning_rate=1e-3, warmup_steps=100),
        32,
        0.998,
        RunConfig(steps=2400, log_every=20, checkpoint_every=800, sample_every=800),
    ),
    "60m": PAPER,
    "600m": PAPER,
    "60m-transformer": PAPER,
    "600m-transformer": PAPER,
}
"""A recipe for every preset."""


def recipe(preset_name: str) -> Recipe:
    """The recipe of a preset. Raises `ValueError` for an unknown name."""
    if preset_name not in RECIPES:
        raise ValueError(f"no preset is called {preset_name!r}; choose one of {', '.join(PRESETS)}")
    return RECIPES[preset_name]
