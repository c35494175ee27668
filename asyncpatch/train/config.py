"""Configs as JSON, so that a checkpoint from a stranger is safe to open.

A config is a tree of frozen dataclasses (an `eqx.Module` is one) whose fields hold numbers, strings, booleans,
None, sequences of these, and further dataclasses. An object is written as

    {"type": "asyncpatch.noise_schedule.LogLinear", "max_log_snr": 10.0, "min_log_snr": -10.0}

Invariants: `from_json(to_json(config)) == config` for every config whose sequences are tuples (JSON has one kind
of sequence, and it is read back as a tuple); reading imports nothing outside `TRUSTED_PACKAGES` and calls
nothing but the constructors of dataclasses defined there.
"""

import dataclasses
import importlib
import sys
from typing import Any

import jax
import numpy as np

TRUSTED_PACKAGES = ("asyncpatch", "experiments")
"""The packages whose dataclasses a config may name. Their own code is trusted; a file on disk is not."""

TYPE_FIELD = "type"
"""The entry of a written object that names its class."""

ABSENT = "(absent)"
"""Stands for a field that one of two compared configs does not have."""

Json = Any
"""What the `json` module reads and writes; recursive, which annotations cannot say."""


class ConfigError(ValueError):
    """A config that cannot be written as JSON, or JSON that is no config."""


def to_json(config: object) -> Json:
    """Write a config as a JSON tree. Raises `ConfigError`, naming the field, for a value that cannot be read back."""
    return _write(config, "config")


def from_json(tree: Json) -> Any:
    """Read back what `to_json` wrote. Raises `ConfigError` for an unknown or untrusted class or a wrong field.

    A field that the tree lacks takes its default, so that older checkpoints survive a new option.
    """
    if isinstance(tree, list):
        return tuple(from_json(item) for item in tree)
    if not isinstance(tree, dict):
        return tree
    cls = _trusted_class(tree.get(TYPE_FIELD))
    given = {name: from_json(item) for name, item in tree.items() if name != TYPE_FIELD}
    known = {field.name: field for field in dataclasses.fields(cls) if field.init}
    if unknown := sorted(given.keys() - known.keys()):
        raise ConfigError(f"{tree[TYPE_FIELD]} has no field {', '.join(unknown)}; its fields are {', '.join(known)}")
    if missing := sorted(name for name, field in known.items() if name not in given and _is_required(field)):
        raise ConfigError(f"{tree[TYPE_FIELD]} needs the field {', '.join(missing)}; add it to the JSON object")
    return cls(**given)


def differences(first: Json, second: Json, ignored_types: tuple[type, ...] = ()) -> dict[str, tuple[Json, Json]]:
    """The dotted fields in which two written configs differ, each with its value in the first and in the second.

    Objects of the `ignored_types` are not compared where both sides have one.
    """
    return _compare(first, second, tuple(_type_name(cls) for cls in ignored_types))


def _write(value: object, where: str) -> Json:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, jax.Array | np.ndarray | np.generic) and value.ndim == 0:
        return value.item()
    if isinstance(value, tuple | list):
        return [_write(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        raise ConfigError(
            f"{where} is a {type(value).__name__}, which a config cannot hold; give a number, a string, a boolean, "
            "None, a tuple of these, or an object of a frozen dataclass"
        )
    name = _type_name(type(value))
    if not _is_trusted(name):
        raise ConfigError(
            f"{where} is a {name}, which could not be read back; define the class at the top level of a module in "
            f"one of the packages {', '.join(TRUSTED_PACKAGES)}, and run scripts as python -m experiments.NAME"
        )
    fields = [field.name for field in dataclasses.fields(value) if field.init]
    if TYPE_FIELD in fields:
        raise ConfigError(f"{name} has a field called {TYPE_FIELD!r}, which JSON needs for the class; rename it")
    return {TYPE_FIELD: name} | {field: _write(getattr(value, field), f"{where}.{field}") for field in fields}


def _trusted_class(name: object) -> Any:
    if not isinstance(name, str) or not _is_trusted(name):
        raise ConfigError(
            f"a config may only name dataclasses in the packages {', '.join(TRUSTED_PACKAGES)}, got {name!r}; "
            "do not open this checkpoint unless you know where it comes from"
        )
    module_name, _, class_name = name.rpartition(".")
    try:
        module = _import(module_name)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"the config names {name}, but there is no module {error.name}; is the code older?"
        ) from error
    cls = vars(module).get(class_name)
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls) and _type_name(cls) == name):
        raise ConfigError(
            f"{module_name} defines no dataclass {class_name}; was it renamed since the config was saved?"
        )
    return cls


def _is_trusted(name: str) -> bool:
    package, *path = name.split(".")
    return package in TRUSTED_PACKAGES and len(path) >= 1 and all(part.isidentifier() for part in path)


def _type_name(cls: type) -> str:
    """The importable name of a class, also of one in a script that was started with `python -m`."""
    module = _script_name() if cls.__module__ == "__main__" else cls.__module__
    return f"{module}.{cls.__qualname__}"


def _import(name: str) -> Any:
    return sys.modules["__main__"] if name == _script_name() else importlib.import_module(name)


def _script_name() -> str:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return "__main__" if spec is None else spec.name


def _is_required(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _compare(first: Json, second: Json, ignored: tuple[str, ...], where: str = "") -> dict[str, tuple[Json, Json]]:
    if isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        pairs = {f"[{index}]": pair for index, pair in enumerate(zip(first, second, strict=True))}
    elif isinstance(first, dict) and isinstance(second, dict) and first[TYPE_FIELD] == second[TYPE_FIELD]:
        if first[TYPE_FIELD] in ignored:
            return {}
        names = list(first) + [name for name in second if name not in first]
        pairs = {f".{name}": (first.get(name, ABSENT), second.get(name, ABSENT)) for name in names}
    else:
        # repr: 1 and 1.0 and True are equal to Python but not the same config, and NaN is the same as itself.
        return {} if repr(first) == repr(second) else {where.lstrip("."): (first, second)}
    found: dict[str, tuple[Json, Json]] = {}
    for step, pair in pairs.items():
        found |= _compare(*pair, ignored, where + step)
    return found
