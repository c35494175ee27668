"""The rows of the table of laws: how large it is, which laws it compares, and on which seeds."""

import dataclasses
from typing import Literal

from asyncpatch.masks import Extrema, OneOf, Square, Thin, Wide
from asyncpatch.paths import Environment as EnvironmentLaw
from asyncpatch.runs import recipe
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
    Regions,
    Synchronous,
)
from asyncpatch.train import AbstractOptimizerConfig, Cooldown, OptimizerConfig
from experiments.parts.rows import Generation, Inpainting, RePaint, Replacement, Steps, Together, Trailing

Preset = Literal["miniature", "million", "paper"]
Table = Literal["laws", "tuning", "settings", "claims"]

Method = Together | Trailing | Replacement | RePaint

Completions = tuple[tuple[Method, Steps], ...]

SEEDS = (0, 1, 2)
"""Of the laws that the claims are about; the others have the first alone."""

CLAIMED = ("synchronous", "independent", "patchwise", "perlin", "async-patch", "environment")
"""The paper's laws, and the candidate that is ours."""

TUNING_SEED = 100
"""Of the candidates for our own law, of the synchronous one beside them, and of the networks on which it is settled how
each method samples best: none of the reported seeds."""

TUNING_LOOK = 1 / 4
"""The share of the training after which that is settled."""

REPAINT = "repaint"
"""The row of the baseline, which trains nothing."""

AT_LENGTH = (
    *("synchronous", REPAINT, "async-patch", "regions"),
    *("patchwise", "perlin", "environment", "patch-forcing", "supervised"),
)
"""The rows of the table of claims, and those of them that have further seeds."""

FURTHER = AT_LENGTH[:4]

SETTLED = AT_LENGTH[:3]
"""The rows on which it is settled how each method samples best; our own laws' networks sample as AsyncPatch's does."""

FURTHER_WAYS = ("async-patch", "environment", "regions")
"""Laws whose networks complete images with trailing known pixels too, and guided by the known ones."""

FRESH = (0.0, 0.5, 1.0)
"""Shares of fresh noise that are tried."""

SHARES = (0.25, 0.5, 0.75)
"""Of the others' times, at which trailing known pixels are tried."""

WEIGHTS = (0.25, 0.5, 1.0)
"""Of guidance by the known pixels, that are tried."""

REPAINTS = (
    (RePaint(10, 10), Steps(steps=30)),
    (RePaint(10, 5), Steps(steps=50)),
    (RePaint(5, 8), Steps(steps=30)),
    (RePaint(4, 3), Steps(steps=16)),
    (RePaint(4, 2), Steps(steps=20)),
    (RePaint(2, 3), Steps(steps=14)),
)
"""RePaint with long jumps, more levels and short jumps, in about 210 network calls, and then in about 40."""

MASKS = {"square": Square(), "extrema": Extrema(), "thin": Thin(), "wide": Wide()}
"""The four mask families."""


@dataclasses.dataclass(frozen=True)
class Scale:
    """How large a table is."""

    preset: str
    side: int
    """Of the images that networks are trained on; smaller ones are padded to `shrink` times as much first."""
    steps: int
    batch_size: int
    ema_decay: float
    optimizer: AbstractOptimizerConfig
    generated: int
    completed: int
    generating: Steps
    completing: Completions
    """How a network with a time for every pixel completes images; all but the plain way is for some laws alone."""
    baselines: Completions
    """How the synchronous network does."""
    shrink: int = 1
    looks: tuple[float, ...] = (1.0,)
    """The shares of the training at which all is evaluated."""
    cooldown: float = 0.0
    """At a look, a copy of the network is trained so much longer, as a share, while its learning rate falls to 0."""

    def steps_at(self, look: float) -> int:
        """Of training at a constant rate, at a look."""
        return round(look * self.steps)

    def cooldown_at(self, look: float) -> Cooldown | None:
        """What follows them in the copy that is looked at; none if the network itself is."""
        falling = round(self.cooldown * self.steps_at(look))
        return Cooldown(self.steps_at(look), falling) if falling else None

    @property
    def checkpoint_every(self) -> int:
        """Steps: every look has its checkpoint, and none is far."""
        return max(1, min(self.steps // 3, self.steps_at(self.looks[0])))


FRESHLY = Steps(steps=40, eta=1.0)
"""With fresh noise in every step, as in RePaint: on the tuning seed that was better than the paper's half."""

GUIDED = dataclasses.replace(FRESHLY, steps=20, input_guidance=0.5)
"""By the known pixels, in as many calls, of which a step makes two."""

SCALES = {
    "miniature": Scale(
        preset="miniature",
        side=32,
        steps=2400,
        batch_size=16,
        ema_decay=0.998,
        optimizer=OptimizerConfig(learning_rate=1.5e-3, warmup_steps=100),
        generated=1000,
        completed=256,
        generating=Steps(steps=40),
        completing=((Together(), FRESHLY), (Trailing(), FRESHLY)),
        baselines=((RePaint(), Steps(steps=30)), (Replacement(), FRESHLY)),
    ),
    "million": Scale(
        preset="fashion",
        side=16,
        shrink=2,
        steps=16_384,
        batch_size=64,
        ema_decay=0.999,
        optimizer=recipe("fashion").optimizer,
        generated=5000,
        completed=1000,
        generating=Steps(steps=40, eta=0.0),
        completing=((Together(), FRESHLY), (Trailing(0.25), FRESHLY), (Together(), GUIDED)),
        baselines=((RePaint(5, 8), Steps(steps=30)), (Replacement(), FRESHLY), (RePaint(4, 3), Steps(steps=16))),
        looks=(1 / 8, 1 / 4, 1 / 2, 1.0),
        cooldown=1 / 8,
    ),
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
        completing=((Together(), Steps(steps=250)), (Trailing(), Steps(steps=250))),
        baselines=((RePaint(), Steps(steps=250)), (Replacement(), Steps(steps=250))),
    ),
}
"""On a laptop, a million images a law at half the resolution, and the paper's table."""


@dataclasses.dataclass(frozen=True)
class Job:
    """A row of a table: a law of times, or the baseline, a seed, and the share of the training that is over."""

    name: str
    seed: int
    look: float = 1.0

    @property
    def run(self) -> str:
        """The folder of the network."""
        return f"{'synchronous' if self.name == REPAINT else self.name}-{self.seed}"

    @property
    def copy(self) -> str:
        """The folder of its copy that cools down at this look."""
        return f"{self.run}-cooled-{self.look:g}"

    def __str__(self) -> str:
        return f"{self.name}-{self.seed}" + ("" if self.look == 1 else f"-{self.look:g}")


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
    """Laws to choose ours from: environments, by how far the times of one image may spread, over how large patches they
    agree, and which share of images has one time; and a known region beside another.
    """
    patches = tuple(2**power for power in range(side.bit_length()))
    spreads = {f"spread-{widest:g}": (patches, widest) for widest in (1.0, 3.0, 6.0)}
    scales = {"coarse": (patches[2:], 3.0), "coarser": (patches[3:], 3.0)}
    # One patch as large as the image is one time for all pixels.
    synchronous = {"half": (patches + 4 * (side,), 6.0), "three-quarters": (patches + 14 * (side,), 6.0)}
    environments = {
        name: Environment(EnvironmentLaw(some, spread=(0.0, widest)))
        for name, (some, widest) in (spreads | scales | synchronous).items()
    }
    return environments | {"regions": Regions(patches[:-1])}


def jobs(table: Table, scale: Scale) -> list[Job]:
    """Every row, in the order in which they are filled: the first seed and the last look of what is claimed first."""
    names: list[tuple[str, int]]
    if table == "tuning":
        names = [(name, TUNING_SEED) for name in ("synchronous", *candidates(scale.side))]
    elif table == "settings":
        return [Job(name, TUNING_SEED, TUNING_LOOK) for name in SETTLED]
    elif table == "laws":
        names = [(name, seed) for seed in SEEDS for name in (*CLAIMED, REPAINT)]
        names += [(name, SEEDS[0]) for name in laws(scale.side) if name not in CLAIMED]
    else:
        looks = scale.looks[::-1]
        first = [Job(name, SEEDS[0], look) for look in looks for name in AT_LENGTH]
        return first + [Job(name, seed, look) for look in looks for seed in SEEDS[1:] for name in FURTHER]
    return [Job(name, seed, look) for name, seed in names for look in scale.looks]


def asked(job: Job, scale: Scale, table: Table) -> list[tuple[Generation | Inpainting, Steps]]:
    """What the network of a row is asked for: as many settings, of half the images, where they are to be settled."""
    tried = table == "settings"
    part = 2 if tried else 1
    generating = [dataclasses.replace(scale.generating, eta=eta) for eta in FRESH] if tried else [scale.generating]
    completing = trials(job.name) if tried else completions(job.name, scale)
    wanted: list[tuple[Generation | Inpainting, Steps]] = []
    if job.name != REPAINT:
        wanted += [(Generation(scale.generated // part), how) for how in generating]
    for method, how in completing:
        wanted += [(Inpainting(masks, scale.completed // part, method=method), how) for masks in MASKS.values()]
    return [(task, dataclasses.replace(how, seed=job.seed)) for task, how in wanted]


def completions(name: str, scale: Scale) -> list[tuple[Method, Steps]]:
    """How the networks of a row complete images."""
    if name == REPAINT:
        return list(scale.baselines)
    plain = [(method, how) for method, how in scale.completing if method == Together() and how.input_guidance == 0]
    return list(scale.completing) if name in FURTHER_WAYS else plain


def trials(name: str) -> list[tuple[Method, Steps]]:
    """How else they might, in about 40 calls, and RePaint in about 210 too."""
    noisy = [dataclasses.replace(FRESHLY, eta=eta) for eta in FRESH]
    if name == REPAINT:
        return [*REPAINTS, *((Replacement(), how) for how in noisy)]
    plain: Completions = tuple((Together(), how) for how in noisy)
    if name not in FURTHER_WAYS:
        return list(plain)
    trailing = [(Trailing(share), how) for share in SHARES for how in noisy[1:]]
    guided = [(Together(), dataclasses.replace(GUIDED, input_guidance=weight)) for weight in WEIGHTS]
    return [*plain, *trailing, *guided]
