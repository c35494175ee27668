"""Every number that a user can set: the dataclass itself refuses it, before any data is opened or anything compiled."""

import dataclasses
import math

import jax.numpy as jnp
import pytest

from asyncpatch.data import AbstractSource, Digits, Folds, ImageFolder, PadTo, Shrink
from asyncpatch.guidance import ClassifierFree
from asyncpatch.losses import SiD2
from asyncpatch.masks import Border
from asyncpatch.nn import preset
from asyncpatch.noise_schedule import Cosine, LogLinear, RectifiedFlow
from asyncpatch.paths import AnyOrder, Environment
from asyncpatch.process import GaussianDenoiser
from asyncpatch.runs import SamplingConfig, configure, train_run
from asyncpatch.sampling import DDIM, StochasticCoefficient
from asyncpatch.timesteps import AsyncPatch, Margins, Synchronous
from asyncpatch.train import OptimizerConfig, RunConfig, TrainConfig
from experiments.parts.bounds import Effort, Ends
from experiments.parts.learn_path import FitConfig
from experiments.parts.rows import Generation, Inpainting, Patches, RePaint, Steps, Trailing

SETTINGS = [
    OptimizerConfig(),
    TrainConfig(num_classes=10),
    RunConfig(),
    SamplingConfig(),
    configure(Digits(), "digits", AsyncPatch((1, 2))).data,
    preset("digits", 1, 10),
    Cosine(),
    LogLinear(),
    SiD2(),
    AsyncPatch((1, 2)),
    Margins(Synchronous()),
    Environment((1, 2)),
    AnyOrder(2),
    Border(),
    PadTo(8, 8),
    Shrink(2),
    ImageFolder("images", 8),
    Folds(Digits(), 3, (0,)),
    Steps(),
    Generation(4),
    Inpainting(count=4),
    Patches(),
    RePaint(),
    Trailing(),
    Ends(),
    Effort(),
    FitConfig(),
]
NUMBERS = [
    pytest.param(setting, field.name, id=f"{type(setting).__name__}.{field.name}")
    for setting in SETTINGS
    for field in dataclasses.fields(setting)
    if type(getattr(setting, field.name)) is float
]
COUNTS = [
    pytest.param(setting, field.name, id=f"{type(setting).__name__}.{field.name}")
    for setting in SETTINGS
    for field in dataclasses.fields(setting)
    if type(getattr(setting, field.name)) is int
]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e300, -1e300])
@pytest.mark.parametrize(("setting", "name"), NUMBERS)
def test_no_setting_is_infinite_or_nan(setting, name, bad):
    """1e300 is finite to Python, and infinite in float32."""
    with pytest.raises(ValueError, match=name):
        dataclasses.replace(setting, **{name: bad})


@pytest.mark.parametrize("bad", [-1, -(10**30)])
@pytest.mark.parametrize(("setting", "name"), COUNTS)
def test_no_count_is_negative(setting, name, bad):
    with pytest.raises(ValueError, match=name):
        dataclasses.replace(setting, **{name: bad})


def test_there_are_settings_to_check():
    assert len(NUMBERS) > 20
    assert len(COUNTS) > 20


@pytest.mark.parametrize("name", ["learning_rate", "eps", "max_gradient_norm"])
def test_what_float32_takes_for_nothing_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be above 0, got 1e-60"):
        OptimizerConfig(**{name: 1e-60})


@pytest.mark.parametrize("name", ["b1", "b2"])
def test_what_float32_takes_for_one_is_refused(name):
    with pytest.raises(ValueError, match=r"in \[0, 1\)"):
        OptimizerConfig(**{name: 1 - 1e-12})


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_coefficients_and_guidance_are_finite(bad):
    denoiser = GaussianDenoiser(jnp.zeros((2, 2, 1)), jnp.eye(4), RectifiedFlow())
    for build in (DDIM, StochasticCoefficient, lambda weight: ClassifierFree(denoiser, weight)):
        with pytest.raises(ValueError, match=r"finite|from 0"):
            build(bad)


@dataclasses.dataclass(frozen=True)
class Untouched(AbstractSource):
    """Data that must not be opened."""

    def open(self):
        raise AssertionError("the data was opened")


@pytest.mark.parametrize(
    "arguments",
    [
        {"batch_size": 0},
        {"batch_size": -8},
        {"pad_to": 0},
        {"shrink": 0},
        {"accumulation": 0},
        {"ema_decay": math.nan},
        {"label_dropout": 2.0},
        {"seed": -1},
    ],
)
def test_a_bad_number_is_not_blamed_on_the_data(arguments):
    (name,) = arguments
    with pytest.raises(ValueError, match=f"{name} must be"):
        configure(Untouched(), "digits", AsyncPatch((1, 2)), **arguments)


@pytest.mark.parametrize("arguments", [{"fsdp": 0}, {"fsdp": -1}, {"fsdp": 3}, {"workers": -1}])
def test_devices_and_workers_are_checked_before_the_data_is_opened(arguments, tmp_path):
    (name,) = arguments
    experiment = configure(Digits(), "digits", AsyncPatch((1, 2)))
    data = dataclasses.replace(experiment.data, source=Untouched(), held_out=Untouched())
    experiment = dataclasses.replace(experiment, data=data)
    with pytest.raises(ValueError, match=f"{name} must be"):
        train_run(tmp_path, experiment, RunConfig(), **arguments)
