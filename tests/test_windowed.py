"""Windows over a canvas: the laws of their average, on denoisers in closed form; and an image on a larger canvas."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from asyncpatch.noise_schedule import AbstractNoiseSchedule, RectifiedFlow
from asyncpatch.paths import outwards
from asyncpatch.plans import Task, on_canvas, staged, synchronous
from asyncpatch.process import AbstractDenoiser, FiniteDenoiser, GaussianDenoiser, Prediction, Windowed
from asyncpatch.sampling import DDIM, sample
from asyncpatch.shapes import NULL_LABEL, Image, Label, TimeField

WINDOW = 6
CANVAS = (6, 14, 1)
NO_LABEL = jnp.asarray(NULL_LABEL, jnp.int32)


def gaussian(height: int, width: int) -> GaussianDenoiser:
    """Of images whose correlations reach a pixel or two, whatever their size."""
    rows, cols = (axis.ravel() for axis in np.mgrid[:height, :width])
    squares = (rows[:, None] - rows[None]) ** 2 + (cols[:, None] - cols[None]) ** 2
    covariance = np.exp(-squares / 2) + 0.1 * np.eye(len(rows))
    return GaussianDenoiser(jnp.zeros((height, width, 1)), jnp.asarray(covariance, jnp.float32), RectifiedFlow())


class Counting(AbstractDenoiser):
    """Says 1 and the label of every pixel, and its height of the error that it expects."""

    schedule: AbstractNoiseSchedule = RectifiedFlow()

    num_classes = 7

    def __call__(self, z: Image, t: TimeField, label: Label) -> Prediction:
        ones = jnp.ones_like(z)
        return Prediction(ones, ones * label.astype(z.dtype), jnp.full_like(t, z.shape[0]))


class Unweighted(AbstractDenoiser):
    """The wrong twin: the sum of the windows, over their number."""

    windowed: Windowed

    schedule = RectifiedFlow()
    num_classes = None

    def __call__(self, z: Image, t: TimeField, label: Label) -> Prediction:
        rows, cols = (range(0, side - WINDOW + 1, self.windowed.stride) for side in z.shape[:2])
        data = jnp.zeros_like(z)
        for row in rows:
            for col in cols:
                place = np.s_[row : row + WINDOW, col : col + WINDOW]
                data = data.at[place].add(self.windowed.denoiser(z[place], t[place], label).data)
        return Prediction(data / (len(rows) * len(cols)), data)


def state(height: int, width: int) -> tuple[Image, TimeField]:
    return jr.normal(jr.key(0), (height, width, 1)), jr.uniform(jr.key(1), (height, width), minval=0.2, maxval=0.9)


def check_constant_fields_stay_constant(denoiser: AbstractDenoiser, shape: tuple[int, int]) -> None:
    """Of a denoiser that says 1 everywhere: no seam shows, and no pixel is left out."""
    prediction = denoiser(*state(*shape), jnp.asarray(3, jnp.int32))
    np.testing.assert_allclose(prediction.data, 1, rtol=2e-7)


COUNTING = Windowed(Counting(), WINDOW, 4)


@pytest.mark.parametrize(("shape", "stride"), [((6, 14), 4), ((6, 6), 4), ((11, 13), 6), ((7, 9), 1)])
def test_constant_fields_stay_constant(shape, stride):
    denoiser = Windowed(Counting(), WINDOW, stride)
    check_constant_fields_stay_constant(denoiser, shape)
    prediction = denoiser(*state(*shape), jnp.asarray(3, jnp.int32))
    np.testing.assert_allclose(prediction.noise, 3, rtol=2e-7)
    np.testing.assert_allclose(prediction.log_error, WINDOW, rtol=2e-7)


def test_a_sum_of_windows_shows_their_seams():
    with pytest.raises(AssertionError):
        check_constant_fields_stay_constant(Unweighted(COUNTING), (6, 14))


def test_one_window_is_the_denoiser_itself_to_the_bit():
    z, t = state(WINDOW, WINDOW)
    exact = gaussian(WINDOW, WINDOW)
    # Both compiled alike, in a batch of one: other programs may round differently.
    alone = jax.vmap(exact, in_axes=(0, 0, None))(z[None], t[None], NO_LABEL)
    windowed = Windowed(exact, WINDOW, 2)(z, t, NO_LABEL)
    assert (windowed.data == alone.data[0]).all()
    assert (windowed.noise == alone.noise[0]).all()
    assert windowed.log_error is None


def test_windows_agree_with_the_whole_where_correlations_are_short():
    z, t = state(*CANVAS[:2])
    whole, spread = gaussian(*CANVAS[:2])(z, t, NO_LABEL), []
    for stride in (6, 2):
        windowed = Windowed(gaussian(WINDOW, WINDOW), WINDOW, stride)(z, t, NO_LABEL)
        np.testing.assert_allclose((1 - t)[..., None] * windowed.data + t[..., None] * windowed.noise, z, atol=1e-5)
        spread.append(float(jnp.sqrt(jnp.mean((windowed.data - whole.data) ** 2) / jnp.mean(whole.data**2))))
    assert spread[1] < 0.05
    assert spread[1] < 0.4 * spread[0], "without an overlap there are seams"


def test_every_pixel_sees_the_pixels_that_share_a_window_with_it_and_no_other():
    class Mean(AbstractDenoiser):
        schedule = RectifiedFlow()
        num_classes = None

        def __call__(self, z: Image, t: TimeField, label: Label) -> Prediction:
            data = jnp.full_like(z, jnp.mean(z) + jnp.mean(t))
            return Prediction(data, data)

    (z, t), windowed = state(*CANVAS[:2]), Windowed(Mean(), WINDOW, 4)
    of_image, of_times = jax.grad(lambda z, t: windowed(z, t, NO_LABEL).data[2, 5, 0], (0, 1))(z, t)
    for felt in (of_image[..., 0], of_times):
        assert (felt[:, :10] > 0).all(), "windows that begin at columns 0 and 4"
        assert (felt[:, 10:] == 0).all()


def test_labels_and_schedule_are_those_of_the_denoiser():
    assert COUNTING.num_classes == 7
    assert COUNTING.schedule == RectifiedFlow()


@pytest.mark.parametrize(("window", "stride"), [(4, 5), (0, 1), (4, 0)])
def test_windows_that_leave_pixels_uncovered_are_refused(window, stride):
    with pytest.raises(ValueError, match=r"leave pixels uncovered; give a stride of at most 4|must be at least 1"):
        Windowed(Counting(), window, stride)


def test_a_window_larger_than_the_canvas_is_refused():
    with pytest.raises(ValueError, match="windows of 6 pixels do not fit on a canvas with a side of 5; give a larger"):
        COUNTING(*state(8, 5), NO_LABEL)


# --- an image on a larger canvas ---


@pytest.mark.parametrize("corner", [None, (0, 0), (0, 5)])
def test_an_image_is_put_on_a_canvas_to_the_bit(corner):
    image = jr.normal(jr.key(0), (4, 7, 2))
    canvas, known = on_canvas(image, 6, 12, corner)
    top, left = (1, 2) if corner is None else corner
    assert canvas.shape == (6, 12, 2)
    assert (canvas[top : top + 4, left : left + 7] == image).all()
    assert known[top : top + 4, left : left + 7].all()
    assert known.sum() == 28
    assert (canvas[~known] == 0).all()


def test_an_exemplar_larger_than_the_canvas_is_refused():
    with pytest.raises(ValueError, match=r"exemplar, of 4x7 is larger than its canvas of 8x6 .*; give a larger canvas"):
        on_canvas(jnp.zeros((4, 7, 1)), 8, 6)
    with pytest.raises(ValueError, match=r"corner at \(3, 0\) sticks out .*; keep the corner within"):
        on_canvas(jnp.zeros((4, 7, 1)), 6, 8, (3, 0))


STRIPES = jnp.asarray(np.tile([-1.0, 0.2, 0.9], 6)[None, :, None] * np.ones((6, 1, 1)), jnp.float32)
"""A texture of period 3."""


RINGS = outwards(np.broadcast_to((np.arange(14) >= 4) & (np.arange(14) < 10), (6, 14)), 2)


@pytest.mark.parametrize("plan", [synchronous(6, 6, 14), staged(RINGS, 6)])
def test_beyond_its_border_a_texture_goes_on(plan):
    """All images of a window are stripes, in one of three phases: the exemplar says which, on either side of it."""
    phases = jnp.stack([STRIPES[:, phase : phase + WINDOW] for phase in range(3)])
    canvas, known = on_canvas(STRIPES[:, 5:11], 6, 14)
    windowed = Windowed(FiniteDenoiser(phases, RectifiedFlow()), WINDOW, 4)
    (made,) = sample(jr.key(2), windowed, Task(plan, known), canvas[None], NO_LABEL[None], DDIM(1.0))
    assert (made[known] == canvas[known]).all()
    np.testing.assert_allclose(made, STRIPES[:, 1:15], atol=1e-5)
