"""Configs survive JSON, differences are named, and a hostile file can do nothing."""

import dataclasses
import inspect
import json
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncpatch.config import ConfigError, differences, from_json, register, to_json, with_present_names
from asyncpatch.config.names import FORMER, PACKAGE, class_of, name_of, path_of
from asyncpatch.data import AbstractSource, AbstractTransform
from asyncpatch.losses import AbstractWeighting, SiD2
from asyncpatch.masks import AbstractMaskLaw
from asyncpatch.nn import PRESETS, AbstractNetworkConfig
from asyncpatch.noise_schedule import AbstractNoiseSchedule, Cosine, LogLinear, RectifiedFlow, Truncated
from asyncpatch.paths import AbstractPathLaw
from asyncpatch.timesteps import AbstractTimestepSampler, Perlin, Synchronous
from asyncpatch.train import OptimizerConfig, RunConfig, TrainConfig

CONFIGS = [
    TrainConfig(num_classes=10, optimizer=OptimizerConfig(learning_rate=1e-3), seed=3),
    RunConfig(),
    RectifiedFlow(),
    Truncated(LogLinear(max_log_snr=8.0), min_log_snr=-9.0),
    (Cosine(), None, True, "word", 1, 0.1, (), ((1, 2), "nested")),
    PRESETS["600m"],
    PRESETS["600m-transformer"],
]


def survives(config) -> bool:
    """The law of the round trip, through the text of a file."""
    back = from_json(json.loads(json.dumps(to_json(config))))
    return type(back) is type(config) and back == config


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: type(config).__name__)
def test_round_trip(config):
    assert survives(config)


def test_round_trip_rejects_a_wrong_twin():
    assert not survives([1, 2])  # comes back as a tuple


@given(st.floats(1e-9, 1e3), st.integers(0, 2**32 - 1), st.integers(1, 64))
def test_numbers_survive_to_the_bit(rate, seed, accumulation):
    assert survives(TrainConfig(1, OptimizerConfig(learning_rate=rate), accumulation=accumulation, seed=seed))


@pytest.mark.parametrize("number", [np.float32(0.1), jnp.float32(0.1), np.int64(3)], ids=["numpy", "jax", "integer"])
def test_scalar_arrays_are_written_as_numbers(number):
    written = to_json((number,))
    assert type(written[0]) in (int, float)
    assert np.asarray(written[0], number.dtype) == np.asarray(number)


def test_class_has_a_name_that_no_file_layout_enters():
    assert to_json(RectifiedFlow()) == {"type": "RectifiedFlow"}


@dataclasses.dataclass(frozen=True)
class Stranger:
    """No program registers it."""

    number: int = 1


@register
@dataclasses.dataclass(frozen=True)
class Acquaintance:
    """Registered by this program."""

    number: int = 1
    law: AbstractTimestepSampler = dataclasses.field(default_factory=Synchronous)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"rate": 1}, "config is a dict"),
        ((1, (len,)), r"config\[1\]\[0\] is a builtin_function_or_method"),
        (np.zeros(3), "config is a ndarray"),
        (TrainConfig, "config is a type"),
        (Stranger(), r"test_config.Stranger, which has no name in files; .*register\(Stranger\)"),
    ],
    ids=["dict", "function", "array", "class", "stranger"],
)
def test_what_cannot_be_read_back_is_not_written(value, message):
    with pytest.raises(ConfigError, match=message):
        to_json(value)


def test_registered_class_survives_and_a_later_definition_of_it_takes_its_place():
    assert survives(Acquaintance(3, Perlin()))
    again = dataclasses.make_dataclass("Acquaintance", [("number", int, 2)], frozen=True)
    again.__module__ = __name__
    try:
        register(again)
        assert from_json({"type": "Acquaintance"}) == again()
    finally:
        register(Acquaintance)


@pytest.mark.parametrize("name", ["SiD2", "Acquaintance"])
def test_a_name_belongs_to_one_class(name):
    with pytest.raises(ValueError, match=f"the name '{name}' belongs to"):
        register(Stranger, name)


def test_only_dataclasses_are_registered():
    with pytest.raises(ValueError, match="only dataclasses"):
        register(int)


def test_former_names_are_read_and_written_anew():
    cls = dataclasses.make_dataclass("Renamed", [("rate", float)], frozen=True)
    register(cls, former=("elsewhere.Original",))
    old = {"type": "elsewhere.Original", "rate": 0.5}
    assert from_json(old) == cls(0.5)
    assert with_present_names([old]) == [{"type": "Renamed", "rate": 0.5}]
    assert differences(old, to_json(cls(0.5))) == {}


def test_every_name_of_the_table_leads_to_its_class():
    for name, path in PACKAGE.items():
        cls = class_of(name)
        assert dataclasses.is_dataclass(cls)
        assert (path_of(cls), name_of(cls)) == (path, name)


def test_former_names_lead_to_the_table():
    assert set(FORMER.values()) <= set(PACKAGE)
    assert not set(FORMER) & set(PACKAGE)


def concrete(cls: type) -> set[type]:
    """All classes below `cls` that can be built."""
    found = {sub for child in cls.__subclasses__() for sub in concrete(child)}
    return found if inspect.isabstract(cls) or cls.__name__.startswith("Abstract") else found | {cls}


KINDS = [
    AbstractNetworkConfig,
    AbstractTimestepSampler,
    AbstractPathLaw,
    AbstractNoiseSchedule,
    AbstractWeighting,
    AbstractMaskLaw,
    AbstractSource,
    AbstractTransform,
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_class_that_a_config_can_hold_has_a_name(kind):
    ours = {cls for cls in concrete(kind) if cls.__module__.startswith("asyncpatch.")}
    assert ours
    assert {cls.__name__ for cls in ours if name_of(cls) is None} == set()


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "antigravity.Joke",
        "builtins.eval",
        "subprocess.Popen",
        "asyncpatch_evil.module.Thing",
        "asyncpatch",
        "asyncpatch..os.system",
        "asyncpatch.config.codec.importlib",
        "asyncpatch.config.codec.from_json",
        "asyncpatch.train.loop.train",
        "asyncpatch.train.loop.Path",
        "asyncpatch.train.step.Batch",
        "asyncpatch.train.nowhere.Thing",
        "asyncpatch.noise_schedule.Removed",
        "Stranger",
        "Batch",
        None,
        3,
        ["SiD2"],
    ],
)
def test_a_strangers_config_builds_only_what_has_a_name(name):
    before = set(sys.modules)
    with pytest.raises(ConfigError, match="neither one of this package nor registered"):
        from_json({"type": name, "command": "true"})
    assert set(sys.modules) == before


def test_errors_say_which_release_can_read_the_file():
    with pytest.raises(ConfigError, match=r"called 'Later'.* read the file with release 9.1.0 of asyncpatch"):
        from_json({"type": "Later"}, release="9.1.0")
    with pytest.raises(ConfigError, match=r"config.base: RectifiedFlow has no field bend.* release 9.1.0"):
        from_json({"type": "Truncated", "base": {"type": "RectifiedFlow", "bend": 1}}, release="9.1.0")


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ({"type": "TrainConfig", "num_classes": 3.5}, "config.num_classes of TrainConfig is 3.5"),
        ({"type": "TrainConfig", "num_classes": 3, "optimizer": None}, "config.optimizer of TrainConfig is None"),
        ({"type": "Truncated", "base": {"type": "SiD2"}}, "config.base of Truncated is SiD2"),
        ({"type": "TrainConfig", "num_classes": -3}, "config is no TrainConfig: num_classes must be at least 0"),
        ({"type": "AsyncPatch", "patch_sizes": "12"}, "config.patch_sizes of AsyncPatch is '12'"),
    ],
)
def test_values_of_the_wrong_kind_are_refused(written, message):
    with pytest.raises(ConfigError, match=message):
        from_json(written)


def test_a_whole_number_may_stand_for_a_real_one():
    assert from_json({"type": "SiD2", "bias": 1}) == SiD2(1.0)


def test_object_without_class_is_refused():
    with pytest.raises(ConfigError, match="of a class called None"):
        from_json({"num_classes": 3})


def test_unknown_and_missing_fields_are_named():
    written = to_json(TrainConfig(num_classes=3))
    with pytest.raises(ConfigError, match=r"TrainConfig has no field optimiser, its fields are num_classes, optimizer"):
        from_json(written | {"optimiser": 1})
    with pytest.raises(ConfigError, match="TrainConfig needs the field num_classes"):
        from_json({name: value for name, value in written.items() if name != "num_classes"})


def test_absent_field_takes_its_default():
    written = to_json(TrainConfig(num_classes=3))
    del written["ema_decay"]
    assert from_json(written) == TrainConfig(num_classes=3)


def test_differences_are_dotted():
    first = to_json((TrainConfig(3), RunConfig(steps=5), Truncated(Cosine())))
    second = to_json((TrainConfig(3, OptimizerConfig(b1=0.5), seed=1), RunConfig(steps=6), Truncated(RectifiedFlow())))
    assert differences(first, first) == {}
    found = differences(first, second, ignored_types=(RunConfig,))
    assert list(found) == ["[0].optimizer.b1", "[0].seed", "[2].base"]
    assert found["[0].optimizer.b1"] == (0.9, 0.5)
    assert "[1].steps" in differences(first, second)


@pytest.mark.parametrize(("first", "second"), [(1, 1.0), (1, True), ([1], [1, 2]), (None, "None"), ([], None)])
def test_near_equals_differ(first, second):
    assert differences(first, second) == {"": (first, second)}


def test_differences_name_fields_that_one_side_lacks():
    written = to_json(RunConfig())
    assert differences(written, written | {"more": 1}) == {"more": ("(absent)", 1)}


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: OptimizerConfig(learning_rate=0.0), "learning_rate must be above 0, got 0.0"),
        (lambda: OptimizerConfig(b2=1.0), r"b2 must be in \[0, 1\), got 1.0"),
        (lambda: TrainConfig(3, label_dropout=1.5), r"label_dropout must be in \[0, 1\], got 1.5"),
        (lambda: TrainConfig(3, accumulation=0), "accumulation must be at least 1, got 0"),
        (lambda: RunConfig(log_every=0), "log_every must be at least 1, got 0"),
    ],
)
def test_settings_out_of_range(build, message):
    with pytest.raises(ValueError, match=message):
        build()
