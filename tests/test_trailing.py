"""Inpainting with known tokens that trail: they follow their own noisy versions and end as they were given."""

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from asyncpatch.noise_schedule import RectifiedFlow
from asyncpatch.plans import FixedPlan, inpaint, synchronous
from asyncpatch.process import AbstractDenoiser, GaussianDenoiser, Prediction
from asyncpatch.sampling import DDIM, sample
from asyncpatch.shapes import Image, Label, TimeField

SIDE = 8
FLOW = RectifiedFlow()


class Neighbour(AbstractDenoiser):
    """Guesses that the right half of the image looks as noisy as the left half is now, and that the left half is 0."""

    num_classes = None

    def __call__(self, z: Image, t: TimeField, label: Label) -> Prediction:
        half = z.shape[1] // 2
        return Prediction.from_data(FLOW, z, t, jnp.zeros_like(z).at[:, half:].set(z[:, :half]))


LEFT_HALF = jnp.broadcast_to(jnp.arange(SIDE) < SIDE // 2, (SIDE, SIDE))


def complete(trail, times, eta, told=True, images=2000):
    """Complete the right half; the last call sees times `times[-2]`, and its guess is what the right half becomes."""
    image = jnp.full((images, SIDE, SIDE, 1), 2.0)
    plan = FixedPlan(jnp.broadcast_to(jnp.asarray(times)[:, None, None], (len(times), SIDE, SIDE)))
    known = jnp.broadcast_to(LEFT_HALF, image.shape[:3]) if told else None
    made = sample(
        jr.key(3),
        Neighbour(),
        inpaint(plan, LEFT_HALF, trail),
        image,
        jnp.zeros(images, jnp.int32),
        FLOW,
        DDIM(eta),
        known=known,
    )
    return np.asarray(made[:, :, : SIDE // 2]), np.asarray(made[:, :, SIDE // 2 :])


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("trail", [0.5, 1.0])
def test_known_tokens_trail_along_their_own_noisy_versions(trail, eta):
    given, seen = complete(trail, [1.0, 0.7, 0.4, 0.0], eta)
    assert (given == 2).all(), "known tokens come out equal to the bit"
    time = 0.4 * trail
    assert abs(seen.mean() - 2 * (1 - time)) < 5 * time / np.sqrt(seen.size)
    assert abs(seen.std() / time - 1) < 5 / np.sqrt(2 * seen.size)


def test_law_rejects_trailing_tokens_that_the_sampler_was_not_told_of():
    given, seen = complete(0.5, [1.0, 0.7, 0.4, 0.0], 1.0, told=False)
    assert (given != 2).all()
    assert seen.mean() < 1.5


def test_known_tokens_without_a_trail_are_the_ordinary_inpainting():
    told, untold = (complete(0.0, [1.0, 0.7, 0.4, 0.0], 0.5, told, images=8) for told in (True, False))
    assert all((one == other).all() for one, other in zip(told, untold, strict=True))


@pytest.mark.parametrize(("trail", "slope"), [(0.0, 0.9), (0.5, 0.852), (1.0, 0.629)])
def test_the_more_known_tokens_trail_the_less_the_others_depend_on_them(trail, slope):
    """Slopes of docs/theory.md section 5, on two tokens of correlation 0.9; deviation of a slope 0.005."""
    images, known = 10_000, jnp.array([[True, False]])
    denoiser = GaussianDenoiser(jnp.zeros((1, 2, 1)), jnp.array([[1.0, 0.9], [0.9, 1.0]]), FLOW)
    given = jr.normal(jr.key(1), (images, 1, 2, 1))
    plan, label = inpaint(synchronous(200, 1, 2), known, trail), jnp.zeros(images, jnp.int32)
    everywhere = jnp.broadcast_to(known, (images, 1, 2))
    made = sample(jr.key(0), denoiser, plan, given, label, FLOW, DDIM(1.0), known=everywhere)
    one, other = np.asarray(made[:, 0, :, 0], np.float64).T
    assert abs((one @ other) / (one @ one) - slope) < 0.03
