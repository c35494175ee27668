"""RePaint: its schedule, its invariants, and what resampling buys on Gaussian data."""

from typing import ClassVar

import jax.numpy as jnp
import jax.random as jr
import jaxtyping
import numpy as np
import pytest

from asyncpatch.noise_schedule import RectifiedFlow
from asyncpatch.process import GaussianDenoiser
from asyncpatch.sampling import DDIM, AbstractStepRule, repaint, repaint_times
from asyncpatch.shapes import NULL_LABEL

SCHEDULE = RectifiedFlow()
SIDE = 2
CORRELATION = 0.9
IMAGES = 2000


def pair_denoiser():
    """Four pixels of unit variance, each pair correlated by `CORRELATION`."""
    covariance = CORRELATION + (1 - CORRELATION) * jnp.eye(SIDE**2)
    return GaussianDenoiser(jnp.zeros((SIDE, SIDE, 1)), covariance, SCHEDULE)


def filled(steps, jump_length, resamplings, known_value=1.5):
    """Images whose left column is known to be `known_value`; and the known region."""
    image = jnp.full((IMAGES, SIDE, SIDE, 1), known_value)
    known = jnp.broadcast_to(jnp.array([True, False])[None, None, :], (IMAGES, SIDE, SIDE))
    times = repaint_times(steps, jump_length, resamplings)
    label = jnp.full(IMAGES, NULL_LABEL)
    return repaint(jr.key(0), pair_denoiser(), times, image, known, label, DDIM(1.0)), known


@pytest.fixture
def as_users_run_it():
    """Without the run-time type checks, so that the package's own messages are seen."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def test_schedule_golden():
    """Six levels, jumps of two, two resamplings: down to level 3, up to 5, down to 1, up to 3, down to 0."""
    times = repaint_times(6, 2, 2)
    before = np.rint(np.asarray(times.before) * 6).astype(int).tolist()
    risen = np.rint(np.asarray(times.risen) * 6).astype(int).tolist()
    assert before == [6, 5, 4, 5, 4, 3, 2, 3, 2, 1]
    assert risen == [5, 4, 5, 4, 3, 2, 3, 2, 1, 0]
    np.testing.assert_allclose(times.after, times.before - 1 / 6, atol=1e-7)


def test_the_papers_schedule_has_its_length():
    """250 levels, jumps of 10, 10 resamplings: 24 places are passed 9 more times, 10 calls each."""
    times = repaint_times(250, 10, 10)
    assert len(times.before) == 250 + 24 * 9 * 10
    rises = np.flatnonzero(np.asarray(times.risen) > np.asarray(times.after))
    assert len(rises) == 24 * 9
    assert sorted({round(float(times.after[i]) * 250) for i in rises}) == list(range(1, 232, 10))


def test_one_resampling_never_jumps():
    times = repaint_times(20, 5, 1)
    np.testing.assert_array_equal(times.after, times.risen)
    assert len(times.before) == 20


def test_known_pixels_keep_their_bits():
    images, known = filled(10, 3, 2)
    np.testing.assert_array_equal(np.asarray(images)[..., 0][np.asarray(known)], np.float32(1.5))


def test_resampling_brings_unknown_pixels_towards_the_conditional_mean():
    """Without resampling the unknown column hardly learns of the known one. False-alarm rate below 1e-6."""
    exact = 1.5 * 2 * CORRELATION / (1 + CORRELATION)
    errors = []
    for resamplings in (1, 4):
        images, known = filled(20, 5, resamplings)
        unknown = np.asarray(images)[..., 0][~np.asarray(known)]
        errors.append(abs(unknown.mean() - exact))
    deviation = 1 / np.sqrt(IMAGES)  # at most, whatever the law, as all pixels of one image may agree
    assert errors[1] < errors[0] - 5 * deviation


@pytest.mark.parametrize(("steps", "jump_length", "resamplings"), [(5, 6, 1), (5, 0, 1), (5, 2, 0)])
def test_refuses_a_schedule_that_is_none(steps, jump_length, resamplings):
    with pytest.raises(ValueError, match="RePaint needs"):
        repaint_times(steps, jump_length, resamplings)


@pytest.mark.parametrize("count", [SIDE, 3], ids=["as many images as rows", "more images than rows"])
def test_one_region_for_all_images_is_that_region_for_each(count):
    """To the bit. As many images as rows is the case in which a region could pass for a batch of rows."""
    image, label = jr.normal(jr.key(1), (count, SIDE, SIDE, 1)), jnp.full(count, NULL_LABEL)
    known, times = jnp.array([[True, False], [False, False]]), repaint_times(6, 2, 2)
    each = jnp.broadcast_to(known, (count, SIDE, SIDE))
    one, same = (repaint(jr.key(0), pair_denoiser(), times, image, k, label, DDIM(1.0)) for k in (known, each))
    assert (one == same).all()
    assert (one[:, 0, 0] == image[:, 0, 0]).all()
    assert (one[:, 0, 1] != image[:, 0, 1]).all()
    assert (one[:, 1] != image[:, 1]).all()


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, SIDE, SIDE + 1), r"known is \(3, 2, 3\), the plan's time fields are \(2, 2\)"),
        ((SIDE + 1, SIDE), r"known is \(3, 2\), the plan's time fields are \(2, 2\)"),
        ((2, SIDE, SIDE), r"a known region of \(2, 2\), or one each \(3, 2, 2\); got \(2, 2, 2\)"),
        ((1, SIDE, SIDE), r"a known region of \(2, 2\), or one each \(3, 2, 2\); got \(1, 2, 2\)"),
    ],
)
def test_refuses_known_regions_of_another_shape_or_number(shape, message):
    image, label, times = jnp.zeros((3, SIDE, SIDE, 1)), jnp.full(3, NULL_LABEL), repaint_times(4, 2, 1)
    with pytest.raises(ValueError, match=message):
        repaint(jr.key(0), pair_denoiser(), times, image, jnp.ones(shape, bool), label, DDIM())


def test_refuses_known_regions_of_numbers(as_users_run_it):
    image, label, times = jnp.zeros((3, SIDE, SIDE, 1)), jnp.full(3, NULL_LABEL), repaint_times(4, 2, 1)
    with pytest.raises(TypeError, match=r"known must be boolean, .* got dtype float32"):
        repaint(jr.key(0), pair_denoiser(), times, image, jnp.ones((3, SIDE, SIDE)), label, DDIM())


class _Counting(AbstractStepRule):
    """Makes images of the number of steps that it remembers."""

    calls: ClassVar[int] = 1

    def init(self, z):
        return jnp.zeros((), jnp.int32)

    def __call__(self, schedule, z, prediction, t, s, state, key, denoise):
        return jnp.full_like(z, state), state + 1


def test_a_rule_starts_anew_after_a_jump():
    """Of ten steps, three follow the last jump: the last of them remembers two."""
    image, known = jnp.zeros((2, SIDE, SIDE, 1)), jnp.zeros((SIDE, SIDE), bool)
    label = jnp.full(2, NULL_LABEL)
    for resamplings, remembered in ((2, 2), (1, 5)):
        times = repaint_times(6, 2, resamplings)
        made = repaint(jr.key(0), pair_denoiser(), times, image, known, label, _Counting())
        assert (made == remembered).all()
