"""The four ways of sampling that one network serves, and how samples are drawn."""

import dataclasses

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int

from asyncpatch.guidance import ClassifierFree, GuidingRegion, InputGuidance
from asyncpatch.masks import Border, Extrema
from asyncpatch.paths import raster
from asyncpatch.plans import FixedPlan, Task, shifted, staged, synchronous
from asyncpatch.process import AbstractDenoiser
from asyncpatch.ranges import check_counts, check_guidance, check_number, check_seed, check_share
from asyncpatch.runs.rules import RuleName, rule_class, step_rule
from asyncpatch.sampling import History, sample_with_history
from asyncpatch.shapes import NULL_LABEL, Known


@dataclasses.dataclass(frozen=True)
class SamplingConfig:
    """How to draw samples."""

    steps: int = 50
    """Of one image. A step is a network call, but two of the rule heun; guidance is one call of twice the batch."""
    rule: RuleName = "ddim"
    """How a step is made: the others are of second order, and `heun` draws no noise: it needs `eta` 0."""
    shift: float = 1.0
    """Of the times of all steps: above 1 more steps go to high noise, 1 is an even grid."""
    guidance: float = 1.5
    """Weight of classifier-free guidance: 1 is off."""
    input_guidance: float = 0.0
    """Weight of guidance by the clean pixels, known or already made, and by known ones that trail: 0 is off."""
    noisier: float | None = 1.0
    """Time that these pixels are noised to in the look that input guidance gets away from: 1 hides them; None is as
    noisy as the noisiest pixel, for networks that know one time per image."""
    eta: float = 0.5
    """Share of fresh noise in each step: 0 is deterministic, 1 the posterior; 0.5 is the paper's c = 0.25."""
    trail: float = 0.0
    """Times of known pixels as a share of those of the others; 0 holds them clean."""
    patch: int = 4
    """Side in pixels of the patches that autoregressive sampling writes one after another."""
    overlap: float = 0.5
    """Share of its steps that a patch of autoregressive sampling has in common with the next one."""
    seed: int = 0

    def __post_init__(self):
        check_counts(steps=self.steps, patch=self.patch)
        check_guidance(self.guidance)
        check_guidance(self.input_guidance, "input_guidance", off=0.0)
        if self.noisier is not None:
            check_share("noisier", self.noisier)
        for name in ("eta", "trail", "overlap"):
            check_share(name, getattr(self, name))
        check_number("shift", self.shift, lambda shift: shift > 0, "above 0")
        check_seed(self.seed)
        rule_class(self.rule, self.eta)

    @property
    def calls(self) -> int:
        """Network calls of one image."""
        return self.steps * rule_class(self.rule, self.eta).calls


def four_tasks(config: SamplingConfig, height: int, width: int) -> dict[str, Task]:
    """Generation, autoregression, inpainting of the centre, and outpainting around a box."""
    key = jr.key(config.seed)
    order = raster(height, width, config.patch)
    return {
        "generation": Task(shifted(synchronous(config.steps, height, width), config.shift)),
        "autoregression": Task(shifted(staged(order, config.steps, config.overlap), config.shift)),
        "inpainting": inpainting(config, Border()(key, height, width)),
        "outpainting": inpainting(config, Extrema()(key, height, width)),
    }


def inpainting(config: SamplingConfig, known: Known) -> Task:
    """All unknown pixels together, given the known ones."""
    return Task(shifted(synchronous(config.steps, *known.shape), config.shift), known, config.trail)


def run_task(
    denoiser: AbstractDenoiser,
    task: Task,
    config: SamplingConfig,
    image: Float[Array, "batch height width channel"],
    label: Int[Array, " batch"],
    frames: int = 8,
) -> tuple[Float[Array, "batch height width channel"], History]:
    """Samples, and `frames` steps of how they came about. Pixels of `image` that are neither known nor start below time
    1 are not read.

    All tasks of one batch shape and step count run the same compiled program.
    """
    read = jnp.zeros(image.shape[1:3], bool) if task.known is None else task.known
    if isinstance(task.plan, FixedPlan):
        read |= task.plan.times[0] < 1
    seen = jnp.where(read[..., None], image, 0.0)
    # Known pixels that trail are not clean: guidance has to be told which ones they are.
    region = task.known if float(task.trail) > 0 and task.knows_something() else None
    guided = guide(denoiser, config.guidance, config.input_guidance, config.noisier, config.seed, region)
    rule = step_rule(config.rule, config.eta)
    frames = min(frames, task.plan.steps)
    return sample_with_history(jr.key(config.seed), guided, task, seen, label, rule, frames=frames)


GUIDANCE_STREAM = 2**31
"""Guidance draws its noise apart from sampling, whose numbers are the same without it."""


def guide(
    denoiser: AbstractDenoiser,
    guidance: float,
    input_guidance: float,
    noisier: float | None,
    seed: int,
    region: Known | None = None,
) -> AbstractDenoiser:
    """A denoiser under both guidances; one that is off is left out, and with it its network calls.

    `region` is what guides; if not given, whatever is clean.
    """
    if guidance != 1:
        denoiser = ClassifierFree(denoiser, guidance)
    if input_guidance != 0:
        key = jr.fold_in(jr.key(seed), GUIDANCE_STREAM)
        denoiser = InputGuidance(denoiser, [GuidingRegion(input_guidance, region, noisier)], key)
    return denoiser


def labels_in_turn(count: int, num_classes: int) -> Int[Array, " count"]:
    """Classes 0, 1, 2, ... over and over; `NULL_LABEL` for a network without classes."""
    turns = jnp.arange(count, dtype=jnp.int32)
    return turns % num_classes if num_classes else jnp.full_like(turns, NULL_LABEL)


def as_numpy(images: Float[Array, "*batch height width channel"]) -> Float[np.ndarray, "*batch height width channel"]:
    """To the host, clipped to what can be shown."""
    return jax.device_get(jnp.clip(images, -1.0, 1.0))
