"""What a bound refuses: laws that are no laws of paths, and bad schedules, images, labels and grids."""

import jax
import jax.numpy as jnp
import jax.random as jr
import jaxtyping
import numpy as np
import pytest
from test_paths import LAWS, FallingWindow, Late, Unfinished

from asyncpatch.elbo import (
    AllTokens,
    Continuous,
    EightBit,
    WholePath,
    check_grid,
    check_law,
    check_schedule,
    evaluate,
)
from asyncpatch.noise_schedule import AbstractNoiseSchedule, Cosine, LogLinear, RectifiedFlow, Truncated
from asyncpatch.paths import AbstractPath, AbstractPathLaw
from asyncpatch.process import AbstractDenoiser, Prediction
from asyncpatch.shapes import NULL_LABEL


@pytest.fixture
def as_users_run_it():
    """Without the run-time type checks, so that the package's own messages are seen."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


# --- laws of paths ---


class BentPath(AbstractPath):
    """Wrong twin: leaves [0, 1] half way, or is no number there."""

    by: jax.Array

    def __call__(self, r):
        return jnp.full((8, 8), r + self.by * r * (1 - r))


class Bent(AbstractPathLaw):
    by: float

    def sample(self, key, height, width):
        return BentPath(jnp.float32(self.by))


@pytest.mark.parametrize("law", [LAWS[1], LAWS[-1]], ids=repr)
def test_laws_of_paths_are_accepted(law):
    check_law(law, 8, 8)


@pytest.mark.parametrize(
    ("law", "message"),
    [
        (FallingWindow(), r"no time may fall along a path, got a fall by 0\.\d+ from FallingWindow; mend|must stay in"),
        (Unfinished(), r"got times up to 0\.0 at 0 and down to 0\.999\d* at 1 from Unfinished"),
        (
            Late(),
            r"got times up to 9\.99\d*e-07 at 0 and down to 1\.0 at 1 from Late: its bound would leave out a part",
        ),
        (Bent(4.0), r"must stay in \[0, 1\], got times from 0\.0 to 1\.5\d* from Bent; mend"),
        (Bent(-4.0), r"must stay in \[0, 1\], got times from -0\.5"),
        (Bent(float("nan")), r"must stay in \[0, 1\], got times from nan"),
    ],
    ids=["falling", "unfinished", "late", "above", "below", "nan"],
)
def test_a_law_whose_paths_fall_or_miss_their_ends_is_refused(law, message):
    with pytest.raises(ValueError, match=message):
        check_law(law, 8, 8)


# --- what goes into a bound ---


class Toy(AbstractDenoiser):
    """Takes labels 0, 1 and 2."""

    schedule: AbstractNoiseSchedule = LogLinear()

    @property
    def num_classes(self):
        return 3

    def __call__(self, z, t, label):
        return Prediction(z, z)


IMAGES = jnp.asarray(np.random.default_rng(0).integers(0, 256, (2, 8, 8, 1)) / 127.5 - 1, jnp.float32)
LABELS = jnp.array([0, NULL_LABEL])
GOOD = {
    "law": LAWS[0],
    "design": AllTokens(),
    "decoder": EightBit(),
    "images": IMAGES,
    "labels": LABELS,
    "draws": 2,
}


class Untouched(AbstractDenoiser):
    """Fails when it is called, or compiled."""

    schedule: AbstractNoiseSchedule = LogLinear()

    @property
    def num_classes(self):
        return 3

    def __call__(self, z, t, label):
        raise AssertionError("the bound was computed before its input was checked")


def bound(denoiser, **changed):
    return evaluate(jr.key(0), denoiser, **(GOOD | changed))


def test_good_input_is_accepted():
    evaluation = bound(Toy())
    assert evaluation.nats.shape == (2,)
    assert np.all(np.isfinite(evaluation.nats))
    assert evaluation.dimensions == 64


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"draws": 1}, "at least two draws, got draws=1"),
        (
            {"images": IMAGES.at[1, 2, 3, 0].set(0.123)},
            r"1 of 128 pixel values are no 8-bit values, the first is 0.123",
        ),
        ({"images": IMAGES.at[0, 0, 0, 0].set(jnp.nan)}, "1 of 128 pixel values are no 8-bit values, the first is nan"),
        ({"images": 127.5 * (IMAGES + 1)}, "pixel values are no 8-bit values"),
        (
            {"images": (127.5 * (IMAGES + 1)).astype(jnp.uint8)},
            r"floating point values, .* got an array of shape \(2, 8, 8, 1\) and dtype uint8",
        ),
        ({"images": jnp.full((2, 8, 8, 1), jnp.inf), "decoder": Continuous()}, "128 values are NaN or infinite; mend"),
        ({"images": IMAGES[0]}, r"images height width channel, got an array of shape \(8, 8, 1\)"),
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, r"got an array of shape \(0, 8, 8, 1\)"),
        ({"labels": LABELS[:1]}, r"2 images need 2 labels, got shape \(1,\)"),
        ({"labels": jnp.array([0, 3])}, "got a label of 3; give one of 3 classes, counted from 0, or -1 for no class"),
        ({"labels": jnp.array([-2, 0])}, "got a label of -2; give one of 3 classes"),
        ({"law": Unfinished()}, "a path must rise from all 0 at r = 0 to all 1 at r = 1"),
    ],
)
def test_bad_input_is_refused_before_any_compute(changed, message):
    with pytest.raises(ValueError, match=message):
        bound(Untouched(), **changed)


@pytest.mark.parametrize("schedule", [RectifiedFlow(), Cosine()])
def test_a_denoiser_whose_log_snr_is_infinite_is_refused_before_any_compute(schedule):
    message = rf"finite log-SNR at both ends, got inf at t = 0 .* as in Truncated\({type(schedule).__name__}"
    with pytest.raises(ValueError, match=message):
        bound(Untouched(schedule))


def test_the_null_label_is_known_to_every_denoiser():
    assert np.all(np.isfinite(bound(Toy(), labels=jnp.full(2, NULL_LABEL)).nats))


@pytest.mark.parametrize("schedule", [RectifiedFlow(), Cosine()])
def test_an_infinite_log_snr_is_refused_and_its_truncation_taken(schedule):
    with pytest.raises(ValueError, match="finite log-SNR at both ends"):
        check_schedule(schedule)
    check_schedule(Truncated(schedule, 13.0, -10.0))


def test_values_a_rounding_away_from_8_bit_are_accepted():
    values = np.arange(256).reshape(1, 16, 16, 1)
    for images in (values / 127.5 - 1, values / np.float32(127.5) - np.float32(1), 2 * (values / 255) - 1):
        EightBit().check(images.astype(np.float32))
    for wrong in (values / 128 - 1, values / 127.5 - 0.999, values / 127.0 - 1):
        with pytest.raises(ValueError, match="no 8-bit values"):
            EightBit().check(wrong.astype(np.float32))


def test_a_path_needs_a_point():
    for strata in (0, -2):
        with pytest.raises(ValueError, match=f"strata must be at least 1, got {strata}"):
            WholePath(strata)


# --- grids ---

GRID = np.linspace(0, 1, 5)[:, None, None] * np.ones((5, 2, 3))


def changed(at, value):
    grid = GRID.copy()
    grid[at] = value
    return grid


def test_a_rising_grid_is_accepted():
    fields = check_grid(GRID)
    assert fields.shape == (5, 2, 3)
    assert fields.dtype == jnp.float32


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (GRID[:, 0], r"fields x height x width, got shape \(5, 3\)"),
        (GRID[:1], r"at least two time fields, .* got shape \(1, 2, 3\)"),
        (changed((2, 1, 1), 1.5), r"times must lie in \[0, 1\], got values from 0.0 to 1.5; rescale"),
        (changed((2, 1, 1), -0.5), r"times must lie in \[0, 1\], got values from -0.5 to 1.0"),
        (changed((2, 1, 1), np.nan), r"times must lie in \[0, 1\], got values from nan to nan"),
        (GRID[1:], "a first field up to 0.25 and a last field down to 1.0; add the missing end"),
        (GRID[:-1], "a first field up to 0.0 and a last field down to 0.75"),
        (GRID[::-1], "add the missing end .a plan must be reversed first"),
        (changed((3, 1, 2), 0.25), r"token \(1, 2\) falls from 0.5 to 0.25 at step 3; sort the fields"),
    ],
)
def test_a_bad_grid_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        check_grid(fields)
