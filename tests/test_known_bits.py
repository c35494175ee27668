"""Known pixels come out equal to the bit, whatever the rule, the plan, the guidance and the task."""

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from gaussian_truth import FLOW, SIDE, gaussian, run
from jaxtyping import Array, Float

from asyncpatch.guidance import GuidingRegion, InputGuidance
from asyncpatch.paths import outwards
from asyncpatch.plans import (
    Adaptive,
    ByDifficulty,
    DualSpeed,
    autoregressive,
    on_canvas,
    staged,
    synchronous,
    with_strength,
)
from asyncpatch.process import AbstractDenoiser, Prediction, Windowed
from asyncpatch.sampling import DDIM, Heun, LookAhead, Multistep, StochasticCoefficient
from asyncpatch.shapes import Image, Label, TimeField

IMAGE, KNOWN = on_canvas(jr.normal(jr.key(5), (3, 5, 1)), SIDE, SIDE, (2, 1))
IMAGES = jnp.broadcast_to(IMAGE, (2, *IMAGE.shape))


class SelfAssessing(AbstractDenoiser):
    """Another denoiser that expects larger errors where the estimate is larger."""

    denoiser: AbstractDenoiser

    schedule = FLOW
    num_classes = None

    def __call__(self, z: Image, t: TimeField, label: Label) -> Prediction:
        told = self.denoiser(z, t, label)
        return Prediction(told.data, told.noise, jnp.abs(told.data[..., 0]))


DENOISER = SelfAssessing(gaussian())
RULES = {
    "DDIM": DDIM(0.5),
    "coefficient": StochasticCoefficient(0.25),
    "multistep": Multistep(),
    "Heun": Heun(),
    "look-ahead": LookAhead(),
}
PLANS = {
    "synchronous": synchronous(6, SIDE, SIDE),
    "rings": staged(outwards(KNOWN, 1), 6, 0.5),
    "autoregressive": autoregressive(SIDE, SIDE, 4, 2),
    "strengths": with_strength(synchronous(6, SIDE, SIDE), jnp.linspace(0, 1, SIDE**2).reshape(SIDE, SIDE)),
    "adaptive": Adaptive(6),
    "by difficulty": ByDifficulty(6, 4),
    "dual speed": DualSpeed(6, 3),
}
GUIDED = {
    "guided by the input": InputGuidance(DENOISER, [GuidingRegion(1.5)], jr.key(1)),
    "through windows": Windowed(DENOISER.denoiser, SIDE, SIDE),
}


def check_known_bits(images: Float[Array, "batch height width channel"]) -> None:
    assert np.isfinite(images).all()
    np.testing.assert_array_equal(images[:, KNOWN], IMAGES[:, KNOWN])
    assert (images[:, ~KNOWN] != IMAGES[:, ~KNOWN]).mean() > 0.9


@pytest.mark.parametrize("rule", RULES)
def test_under_every_rule(rule):
    for trail in (0.0, 0.5):
        check_known_bits(run(DENOISER, PLANS["synchronous"], RULES[rule], image=IMAGES, known=KNOWN, trail=trail))


@pytest.mark.parametrize("plan", PLANS)
def test_under_every_plan(plan):
    for rule in ("DDIM", "multistep"):
        check_known_bits(run(DENOISER, PLANS[plan], RULES[rule], image=IMAGES, known=KNOWN))


@pytest.mark.parametrize("guided", GUIDED)
def test_under_guidance_and_windows(guided):
    check_known_bits(run(GUIDED[guided], PLANS["synchronous"], RULES["DDIM"], image=IMAGES, known=KNOWN))


def test_pixels_of_strength_0_keep_their_bits():
    soft = with_strength(PLANS["synchronous"], jnp.where(KNOWN, 0.0, 0.7))
    for rule in ("DDIM", "Heun"):
        check_known_bits(run(DENOISER, soft, RULES[rule], image=IMAGES))


def test_the_law_rejects_a_pixel_that_moved():
    made = run(DENOISER, PLANS["synchronous"], RULES["DDIM"], image=IMAGES, known=KNOWN)
    at = np.argwhere(np.asarray(KNOWN))[0]
    moved = made.at[0, at[0], at[1], 0].add(1e-6)
    with pytest.raises(AssertionError):
        check_known_bits(moved)
