"""Texture synthesis: the ways to fill a canvas, the places that exemplars are cut from, and what a way makes."""

import dataclasses

import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Bool, Float

from asyncpatch.config import register
from asyncpatch.data import to_float
from asyncpatch.data.textures import HELD_OUT, NAMES, SIDE, photograph
from asyncpatch.paths import outwards
from asyncpatch.plans import AbstractPlan, Task, on_canvas, staged, synchronous
from asyncpatch.process import AbstractDenoiser, Windowed
from asyncpatch.ranges import check_counts, check_guidance
from asyncpatch.runs import as_numpy, guide
from asyncpatch.sampling import DDIM, sample
from experiments.parts.quilting import Quilting

Canvases = Float[np.ndarray, "places height width channel"]

OVERLAP = 0.5
"""Of its steps that a ring has in common with the next one."""


@dataclasses.dataclass(frozen=True)
class Synthesis:
    """By a network, of which the exemplar in the middle of the canvas is a known region."""

    guidance: float = 1.0
    """Weight of guidance by the texture's name: 1 is off."""
    input_guidance: float = 0.0
    """Weight of guidance by the exemplar, and by whatever else is clean: 0 is off."""
    stride: int | None = 22
    """Of windows of the size of training; None calls the network on the whole canvas."""
    ring: int | None = None
    """Width of the rings that grow outwards one after another; None makes all of the canvas together."""

    def __post_init__(self):
        check_guidance(self.guidance)
        check_guidance(self.input_guidance, "input_guidance", off=0.0)
        for name in ("stride", "ring"):
            if getattr(self, name) is not None:
                check_counts(**{name: getattr(self, name)})


@dataclasses.dataclass(frozen=True)
class Real:
    """The photograph itself, at another place: how far apart two places of one texture are."""


Way = Synthesis | Quilting | Real

for way in (Synthesis, Quilting, Real):
    register(way)


@dataclasses.dataclass(frozen=True)
class Places:
    """Where exemplars and their surroundings are cut from the held-out band, and how large both are."""

    count: int = 6
    canvas: int = 96
    exemplar: int = 32

    def __post_init__(self):
        check_counts(count=self.count, canvas=self.canvas, exemplar=self.exemplar)
        ((first, last),) = HELD_OUT
        if self.canvas > last - first or self.canvas % 16:
            raise ValueError(
                f"a canvas of {self.canvas} pixels is compared with the real surroundings of its exemplar, in a band "
                f"of {last - first} rows, by a network that halves it four times; give a multiple of 16 up to "
                f"{last - first}"
            )
        self.known()

    @property
    def lefts(self) -> list[int]:
        """The first column of each canvas."""
        return np.linspace(0, SIDE - self.canvas, self.count).round().astype(int).tolist()

    def real(self, texture: str, left: int) -> Float[np.ndarray, "canvas canvas 1"]:
        """The surroundings of an exemplar, which lies in their middle."""
        top = HELD_OUT[0][0]
        return to_float(photograph(texture)[top : top + self.canvas, left : left + self.canvas])

    def known(self) -> Bool[np.ndarray, "canvas canvas"]:
        """The region of the exemplar. Raises `ValueError` if it is larger than the canvas."""
        exemplar = jnp.zeros((self.exemplar, self.exemplar, 1))
        return np.asarray(on_canvas(exemplar, self.canvas, self.canvas)[1])

    def given(self, texture: str) -> Canvases:
        """The canvases at the start: the exemplars, and nothing around them."""
        return np.stack([np.where(self.known()[..., None], self.real(texture, left), 0) for left in self.lefts])


@dataclasses.dataclass(frozen=True)
class Effort:
    """How canvases are sampled."""

    steps: int = 40
    eta: float = 0.5
    """Share of fresh noise in each step."""
    seed: int = 0

    def __post_init__(self):
        check_counts(steps=self.steps)


def make(way: Way, denoiser: AbstractDenoiser, window: int, texture: str, places: Places, effort: Effort) -> Canvases:
    """What a way makes at every place."""
    match way:
        case Real():
            made = [places.real(texture, _far_from(left, places)) for left in places.lefts]
        case Quilting():
            made = [
                way(np.random.default_rng((effort.seed, left)), _cut(given, places), places.canvas, places.canvas)
                for left, given in zip(places.lefts, places.given(texture), strict=True)
            ]
        case Synthesis():
            made = synthesise(way, denoiser, window, texture, places, effort)
    return np.asarray(made)


def calls(way: Way, effort: Effort) -> int | None:
    """Of the network, for one canvas; all windows of a canvas are one call."""
    if not isinstance(way, Synthesis):
        return None
    return effort.steps * (1 + (way.guidance != 1)) * (1 + (way.input_guidance != 0))


def synthesise(
    way: Synthesis, denoiser: AbstractDenoiser, window: int, texture: str, places: Places, effort: Effort
) -> Canvases:
    """Canvases grown from their exemplars; noise is the same for every way."""
    whole = denoiser if way.stride is None else Windowed(denoiser, window, way.stride)
    guided = guide(whole, way.guidance, way.input_guidance, 1.0, effort.seed)
    task = Task(order(way, places, effort), places.known())
    label = jnp.full(places.count, NAMES.index(texture), jnp.int32)
    key = jr.fold_in(jr.key(effort.seed), NAMES.index(texture))
    return as_numpy(sample(key, guided, task, jnp.asarray(places.given(texture)), label, DDIM(effort.eta)))


def order(way: Synthesis, places: Places, effort: Effort) -> AbstractPlan:
    """All together, or ring after ring."""
    if way.ring is None:
        return synchronous(effort.steps, places.canvas, places.canvas)
    return staged(outwards(places.known(), way.ring), effort.steps, OVERLAP)


def _cut(canvas: Float[np.ndarray, "canvas canvas 1"], places: Places) -> Float[np.ndarray, "exemplar exemplar 1"]:
    first = (places.canvas - places.exemplar) // 2
    return canvas[first : first + places.exemplar, first : first + places.exemplar]


def _far_from(left: int, places: Places) -> int:
    """The end of the band that is farther away."""
    last = SIDE - places.canvas
    return 0 if left > last // 2 else last
