"""Configs survive JSON, differences are named, and a hostile file can do nothing."""

import dataclasses
import importlib.machinery
import json
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncpatch.noise_schedule import Cosine, LogLinear, RectifiedFlow, Truncated
from asyncpatch.train import ConfigError, OptimizerConfig, RunConfig, TrainConfig, differences, from_json, to_json

CONFIGS = [
    TrainConfig(num_classes=10, optimizer=OptimizerConfig(learning_rate=1e-3), seed=3),
    RunConfig(),
    RectifiedFlow(),
    Truncated(LogLinear(max_log_snr=8.0), min_log_snr=-9.0),
    (Cosine(), None, True, "word", 1, 0.1, (), ((1, 2), "nested")),
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


def test_class_is_named_by_its_module():
    assert to_json(RectifiedFlow()) == {"type": "asyncpatch.noise_schedule.RectifiedFlow"}


@dataclasses.dataclass(frozen=True)
class Stranger:
    """Lives outside the trusted packages."""

    number: int = 1


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"rate": 1}, "config is a dict"),
        ((1, (len,)), r"config\[1\]\[0\] is a builtin_function_or_method"),
        (np.zeros(3), "config is a ndarray"),
        (TrainConfig, "config is a type"),
        (Stranger(), "could not be read back; define the class at the top level"),
    ],
    ids=["dict", "function", "array", "class", "stranger"],
)
def test_what_cannot_be_read_back_is_not_written(value, message):
    with pytest.raises(ConfigError, match=message):
        to_json(value)


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
        "asyncpatch.train.config.importlib",
        "asyncpatch.train.config.importlib.import_module",
        "asyncpatch.train.config.from_json",
        "asyncpatch.train.loop.train",
        "asyncpatch.train.loop.Path",
        "asyncpatch.train.step.Batch",
        "asyncpatch.train.nowhere.Thing",
        "asyncpatch.noise_schedule.Removed",
        None,
        3,
    ],
)
def test_a_strangers_config_builds_only_our_dataclasses(name):
    before = set(sys.modules)
    with pytest.raises(ConfigError):
        from_json({"type": name, "command": "true"})
    assert not [module for module in set(sys.modules) - before if not module.startswith(("asyncpatch", "experiments"))]


def test_object_without_class_is_refused():
    with pytest.raises(ConfigError, match="only name dataclasses in the packages asyncpatch, experiments, got None"):
        from_json({"num_classes": 3})


def test_unknown_and_missing_fields_are_named():
    written = to_json(TrainConfig(num_classes=3))
    with pytest.raises(ConfigError, match=r"TrainConfig has no field optimiser; its fields are num_classes, optimizer"):
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


def test_config_of_a_script_started_with_dash_m(monkeypatch):
    script = sys.modules["__main__"]
    twin = dataclasses.make_dataclass("Settings", [("rate", float)], frozen=True)
    twin.__module__ = "__main__"
    monkeypatch.setattr(script, "__spec__", importlib.machinery.ModuleSpec("experiments.table", None))
    monkeypatch.setattr(script, "Settings", twin, raising=False)
    assert to_json(twin(0.5)) == {"type": "experiments.table.Settings", "rate": 0.5}
    assert survives(twin(0.5))


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
