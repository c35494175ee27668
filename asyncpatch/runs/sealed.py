"""Weights and a record in one safetensors file, which cannot hold code, sealed by a digest.

The header has, as text, what the file calls itself, the number of its form, a JSON record, and a digest over the record
and all arrays. Arrays are called by their place in a tree.

Invariant: names, shapes and types are compared with those that the record asks for before any array is allocated, and
the digest before anything is returned.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PyTree
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from asyncpatch.train import release

STORED_TYPES = {"F32": np.dtype(np.float32), "F16": np.dtype(np.float16)}
"""Types that weights may be stored in, as safetensors calls them; they are float32 once they are read."""

Found = TypeVar("Found")


class FileFormatError(ValueError):
    """A file that is not what it is taken for, is damaged, or was written by a newer release."""


@dataclasses.dataclass(frozen=True)
class Form:
    """A kind of file."""

    format: str
    """What it calls itself."""
    number: int
    """The newest form of it that this release writes and reads."""
    fields: frozenset[str]
    """What its record must say."""
    holds: str
    """In words."""
    advice: str
    """How to make one."""

    def write(self, path: Path, record: dict[str, Any], arrays: dict[str, np.ndarray]) -> Path:
        """Write the file, whole or not at all."""
        text = json.dumps(record)
        header = {"format": self.format, "format_number": str(self.number), "written_by": release(), "record": text}
        unfinished = path.with_name(path.name + ".unfinished")
        try:
            unfinished.touch()
            mode = unfinished.stat().st_mode
            save_file(arrays, unfinished, header | {"digest": _digest(text, arrays)})
            unfinished.chmod(mode)  # safetensors lets the owner alone read it, and a file to give away is for others
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)
        return path

    def read(self, path: Path, name: str, read: Callable[[Any, dict[str, Any]], Found]) -> Found:
        """What `read(file, record)` makes of an open file. Raises `FileFormatError`, with `name` for the file."""
        try:
            with safe_open(path, framework="numpy") as file:
                return read(file, self._record(file.metadata() or {}, name))
        except (SafetensorError, json.JSONDecodeError) as error:
            raise FileFormatError(f"{path} is no safetensors file, or is damaged ({error}); get it again") from error

    def _record(self, header: dict[str, str], name: str) -> dict[str, Any]:
        if header.get("format") != self.format:
            raise FileFormatError(
                f"{name} holds arrays, but no {self.holds} of asyncpatch: its header has the format "
                f"{header.get('format')!r} and not {self.format!r}; {self.advice}"
            )
        number = header.get("format_number", "")
        if not number.isdecimal() or int(number) > self.number:
            raise FileFormatError(
                f"{name} is in format {number!r}, written by release {header.get('written_by', 'unknown')}; this "
                f"release, {release()}, reads formats up to {self.number}: install the other"
            )
        record = json.loads(header.get("record", "null"))
        if not isinstance(record, dict) or (missing := sorted(self.fields - record.keys())):
            lacks = "a record" if not isinstance(record, dict) else ", ".join(missing)
            raise FileFormatError(f"the header of {name} lacks {lacks}; it is damaged: get it again")
        return record


def stored_as(tree: PyTree, kind: str) -> dict[str, np.ndarray]:
    """The arrays of a tree in the type `kind`, by name. Raises `ValueError` for weights that are not finite in it."""
    arrays = {name: np.asarray(leaf).astype(kind) for name, leaf in named(tree).items()}
    wrong = [name for name, array in arrays.items() if not np.isfinite(array).all()]
    if wrong:
        raise ValueError(f"the weights {', '.join(wrong[:3])} are not finite as {kind}; there is nothing to give away")
    return arrays


def arrays_in(file: Any, name: str) -> dict[str, np.ndarray]:
    """All arrays of an open file. Raises `FileFormatError` unless they have the digest that it states."""
    arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (it is no dictionary)
    header = file.metadata()
    if _digest(header["record"], arrays) != header.get("digest"):
        raise FileFormatError(f"{name} is damaged: its contents do not match its digest; get it again")
    return arrays


def check_measured(measured: object, name: str) -> dict[str, float]:
    """What a record says was measured. Raises `FileFormatError` for anything but numbers by name."""
    if not isinstance(measured, dict) or not all(isinstance(value, int | float) for value in measured.values()):
        raise FileFormatError(f"{name} has measurements {measured!r:.80}, which are no numbers by name; get it again")
    return {key: float(value) for key, value in measured.items()}


def check_weights(found: dict[str, Any], wanted: dict[str, tuple[int, ...]], name: str) -> None:
    """Compare what a file holds, as slices by name, with what its config asks for, from the header alone."""
    odd = sorted(wanted.keys() ^ found.keys())
    if odd:
        where = "lacks" if odd[0] in wanted else "holds more than its config asks for:"
        raise FileFormatError(f"{name} {where} {odd[0]} ({len(odd)} arrays in all); it is damaged: get it again")
    for key, array in found.items():
        if tuple(array.get_shape()) != wanted[key] or array.get_dtype() not in STORED_TYPES:
            raise FileFormatError(
                f"{name} has {key} as {array.get_dtype()}{array.get_shape()}, its config asks for "
                f"{list(wanted[key])} of {' or '.join(STORED_TYPES)}; it is damaged: get it again"
            )


def named(tree: PyTree) -> dict[str, Any]:
    """The arrays of a tree, or their shapes, by their place in it."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path).lstrip("."): leaf for path, leaf in leaves if _is_array(leaf)}


def filled(shapes: PyTree, arrays: dict[str, Any]) -> PyTree:
    """The tree of `shapes` with arrays in their places."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: arrays[jax.tree_util.keystr(path).lstrip(".")] if _is_array(leaf) else leaf, shapes
    )


def _is_array(leaf: object) -> bool:
    return eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)


def _digest(record: str, arrays: dict[str, np.ndarray]) -> str:
    """SHA-256 over the record, and the name, type, shape and bytes of every array."""
    digest = hashlib.sha256(record.encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
