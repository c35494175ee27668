"""Configs as JSON, so that a file from a stranger is safe to open.

A config is a tree of frozen dataclasses (an `eqx.Module` is one) whose fields hold numbers, strings, booleans,
None, sequences of these, and further dataclasses. An object is written with its class's name in files:

    {"type": "LogLinear", "max_log_snr": 10.0, "min_log_snr": -10.0}

Invariants: `from_json(to_json(config)) == config` for every config whose sequences are tuples (JSON has one kind
of sequence, and it is read back as a tuple); reading calls nothing but the constructors of classes that
`asyncpatch.config.names` holds, and only with values of the types that their fields state.
"""

import dataclasses
from typing import Any

import jax
import numpy as np
from beartype import BeartypeConf
from beartype.door import is_bearable

from asyncpatch.config.names import class_of, name_of, path_of, present_name

TYPE_FIELD = "type"
"""The entry of a written object that names its class."""

ABSENT = "(absent)"
"""Stands for a field that one of two compared configs does not have."""

WHOLE_FOR_REAL = BeartypeConf(is_pep484_tower=True)
"""A JSON file may say 1 where 1.0 is meant."""

Json = Any
"""What the `json` module reads and writes; recursive, which annotations cannot say."""


class ConfigError(ValueError):
    """A config that cannot be written as JSON, or JSON that is no config."""


def to_json(config: object) -> Json:
    """Write a config as a JSON tree. Raises `ConfigError`, naming the field, for a value that cannot be read back."""
    return _write(config, "config")


def from_json(tree: Json, release: str | None = None) -> Any:
    """Read back what `to_json` wrote; `release` of this package wrote it, if that is known.

    A field that the tree lacks takes its default, so that older files survive a new option. Raises `ConfigError` for
    an unknown class or field, a missing field and a value of the wrong type; it says which release can read the file.
    """
    return _read(tree, "config", "another release" if release is None else f"release {release}")


def with_present_names(tree: Json) -> Json:
    """The same tree, with the present names of classes where it has former ones. Unknown names stay."""
    if isinstance(tree, list):
        return [with_present_names(item) for item in tree]
    if not isinstance(tree, dict):
        return tree
    written = {name: with_present_names(item) for name, item in tree.items()}
    name = written.get(TYPE_FIELD)
    return written | {TYPE_FIELD: present_name(name)} if isinstance(name, str) else written


def differences(first: Json, second: Json, ignored_types: tuple[type, ...] = ()) -> dict[str, tuple[Json, Json]]:
    """The dotted fields in which two written configs differ, each with its value in the first and in the second.

    Objects of the `ignored_types` are not compared where both sides have one.
    """
    ignored = tuple(name for cls in ignored_types if (name := name_of(cls)) is not None)
    return _compare(with_present_names(first), with_present_names(second), ignored)


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
    name = name_of(type(value))
    if name is None:
        raise ConfigError(
            f"{where} is a {path_of(type(value))}, which has no name in files; give it one, in this program and in any "
            f"that reads the file: asyncpatch.runs.register({type(value).__name__})"
        )
    fields = [field.name for field in dataclasses.fields(value) if field.init]
    if TYPE_FIELD in fields:
        raise ConfigError(f"{name} has a field called {TYPE_FIELD!r}, which JSON needs for the class; rename it")
    return {TYPE_FIELD: name} | {field: _write(getattr(value, field), f"{where}.{field}") for field in fields}


def _read(tree: Json, where: str, writer: str) -> Any:
    if isinstance(tree, list):
        return tuple(_read(item, f"{where}[{index}]", writer) for index, item in enumerate(tree))
    if not isinstance(tree, dict):
        return tree
    name = tree.get(TYPE_FIELD)
    cls = class_of(name) if isinstance(name, str) else None
    if cls is None:
        raise ConfigError(
            f"{where} is of a class called {name!r}, which is neither one of this package nor registered by this "
            f"program; read the file with {writer} of asyncpatch, which wrote it, or register the class if it is yours "
            "(asyncpatch.runs.register)"
        )
    known = {field.name: field for field in dataclasses.fields(cls) if field.init}
    if unknown := sorted(tree.keys() - known.keys() - {TYPE_FIELD}):
        raise ConfigError(
            f"{where}: {name} has no field {', '.join(unknown)}, its fields are {', '.join(known)}; read the file with "
            f"{writer} of asyncpatch, which wrote it"
        )
    if missing := sorted(name for name, field in known.items() if name not in tree and _is_required(field)):
        raise ConfigError(f"{where}: {name} needs the field {', '.join(missing)}; add it to the JSON object")
    given = {name: _read(item, f"{where}.{name}", writer) for name, item in tree.items() if name != TYPE_FIELD}
    for field, value in given.items():
        if known[field].type is float and type(value) is int:
            given[field] = float(value)
        if not _fits(value, known[field]):
            raise ConfigError(f"{where}.{field} of {name} is {value!r}, which is no {known[field].type}; mend the file")
    try:
        return cls(**given)
    except ConfigError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where} is no {name}: {error}") from error


def _fits(value: object, field: dataclasses.Field) -> bool:
    """Whether a value has the type that a field states; a field that converts its values takes what it can convert."""
    hint: Any = field.type
    return "converter" in field.metadata or isinstance(hint, str) or is_bearable(value, hint, conf=WHOLE_FOR_REAL)


def _is_required(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _compare(first: Json, second: Json, ignored: tuple[str, ...], where: str = "") -> dict[str, tuple[Json, Json]]:
    if isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        pairs = {f"[{index}]": pair for index, pair in enumerate(zip(first, second, strict=True))}
    elif isinstance(first, dict) and isinstance(second, dict) and first.get(TYPE_FIELD) == second.get(TYPE_FIELD):
        if first.get(TYPE_FIELD) in ignored:
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
