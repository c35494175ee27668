"""A run as one file to give away: averaged weights and config as safetensors, which cannot hold code.

The header has, as text, the format's number, a JSON record of the run, and a digest over the record and all arrays.
Weights are stored under their place in the denoiser, as float32 or float16; examples, if there are any, beside them.

Invariant: names, shapes and types are compared with those that the config asks for before any array is allocated, and
the digest before a run is returned.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import PyTree
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from asyncpatch.config import ConfigError, from_json, to_json
from asyncpatch.data import to_float, to_uint8
from asyncpatch.runs.experiment import Experiment
from asyncpatch.runs.opened import Examples, Run, no_examples
from asyncpatch.train import release

FORMAT, FORMAT_NUMBER = "asyncpatch-run", 1
"""What a file calls itself, and the newest form of it that this release writes and reads."""

EXAMPLE_IMAGES, EXAMPLE_LABELS = "examples.image", "examples.label"
"""The names of the examples among the arrays."""

STORED_TYPES = {"F32": np.dtype(np.float32), "F16": np.dtype(np.float16)}
"""Types that weights may be stored in, as safetensors calls them; they are float32 once they are read."""

RECORD_FIELDS = {"experiment", "step", "validation_loss", "release", "commit", "class_names"}
"""What the record of a run must say."""


class FileFormatError(ValueError):
    """A file that is no exported run, is damaged, or was written by a newer release."""


def write_file(run: Run, path: Path, stored: Literal["float32", "float16"] = "float32") -> Path:
    """Write a run as one file, whole or not at all. float16 halves it, for a relative rounding of 5e-4.

    Raises `ValueError` for weights that are not finite in the type they are stored in.
    """
    arrays = {name: np.asarray(leaf).astype(stored) for name, leaf in _named(run.denoiser).items()}
    wrong = [name for name, array in arrays.items() if not np.isfinite(array).all()]
    if wrong:
        raise ValueError(
            f"the weights {', '.join(wrong[:3])} are not finite as {stored}; there is nothing to give away"
        )
    if len(run.examples.label):
        image, label = np.asarray(run.examples.image), np.asarray(run.examples.label)
        arrays |= {EXAMPLE_IMAGES: to_uint8(image), EXAMPLE_LABELS: label}
    record = json.dumps(
        {
            "experiment": to_json(run.experiment),
            "step": run.step,
            "validation_loss": run.validation_loss,
            "release": run.release,
            "commit": run.commit,
            "class_names": list(run.class_names),
        }
    )
    header = {"format": FORMAT, "format_number": str(FORMAT_NUMBER), "written_by": release(), "record": record}
    unfinished = path.with_name(path.name + ".unfinished")
    try:
        save_file(arrays, unfinished, header | {"digest": _digest(record, arrays)})
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def read_file(path: Path, name: str) -> Run:
    """Read what `write_file` wrote. Raises `FileFormatError`, and `ConfigError` for a config of another release."""
    try:
        with safe_open(path, framework="numpy") as file:
            return _read(file, name)
    except (SafetensorError, json.JSONDecodeError) as error:
        raise FileFormatError(f"{path} is no safetensors file, or is damaged ({error}); get it again") from error


def _read(file: Any, name: str) -> Run:
    header = file.metadata() or {}
    record = _check_header(header, name)
    experiment = from_json(record["experiment"], record["release"])
    if not isinstance(experiment, Experiment):
        raise ConfigError(f"{name} holds the config of a {type(experiment).__name__}, not of a run; get it again")
    shapes = eqx.filter_eval_shape(experiment.make_denoiser, jax.eval_shape(lambda: jr.key(0)))
    wanted = _named(shapes)
    _check_arrays(file, {key: tuple(leaf.shape) for key, leaf in wanted.items()}, tuple(experiment.data.shape), name)
    arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (it is no dictionary)
    if _digest(header["record"], arrays) != header.get("digest"):
        raise FileFormatError(f"{name} is damaged: its contents do not match its digest; get it again")
    weights = {key: jnp.asarray(arrays[key], wanted[key].dtype) for key in wanted}
    examples = no_examples(experiment.data.shape)
    if EXAMPLE_LABELS in arrays:
        examples = Examples(jnp.asarray(to_float(arrays[EXAMPLE_IMAGES])), jnp.asarray(arrays[EXAMPLE_LABELS]))
    return Run(
        name=name,
        experiment=experiment,
        denoiser=_filled(shapes, weights),
        step=record["step"],
        validation_loss=record["validation_loss"],
        release=record["release"],
        commit=record["commit"],
        class_names=tuple(record["class_names"]),
        examples=examples,
    )


def _check_header(header: dict[str, str], name: str) -> dict:
    if header.get("format") != FORMAT:
        raise FileFormatError(
            f"{name} holds arrays, but no run of asyncpatch: its header has the format {header.get('format')!r} and "
            f"not {FORMAT!r}; write it with python -m experiments.export"
        )
    number = header.get("format_number", "")
    if not number.isdecimal() or int(number) > FORMAT_NUMBER:
        raise FileFormatError(
            f"{name} is in format {number!r}, written by release {header.get('written_by', 'unknown')}; this release, "
            f"{release()}, reads formats up to {FORMAT_NUMBER}: install the other"
        )
    record = json.loads(header.get("record", "null"))
    if not isinstance(record, dict) or (missing := sorted(RECORD_FIELDS - record.keys())):
        lacks = "a record" if not isinstance(record, dict) else ", ".join(missing)
        raise FileFormatError(f"the header of {name} lacks {lacks}; it is damaged: get it again")
    return record


def _check_arrays(file: Any, wanted: dict[str, tuple[int, ...]], shape: tuple[int, ...], name: str) -> None:
    """Compare what the file holds with what its config asks for, from the header alone."""
    found = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118  (it is no dictionary)
    examples = {key: found.pop(key) for key in (EXAMPLE_IMAGES, EXAMPLE_LABELS) if key in found}
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
    kinds = {key: (array.get_dtype(), tuple(array.get_shape())) for key, array in examples.items()}
    if kinds:
        count = kinds.get(EXAMPLE_LABELS, ("", (0,)))[1][:1]
        if kinds != {EXAMPLE_IMAGES: ("U8", (*count, *shape)), EXAMPLE_LABELS: ("I32", count)}:
            raise FileFormatError(f"{name} has examples {kinds}, which are none of its images; get it again")


def _named(tree: PyTree) -> dict[str, Any]:
    """The arrays of a tree, or their shapes, by their place in it."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path).lstrip("."): leaf for path, leaf in leaves if _is_array(leaf)}


def _filled(shapes: PyTree, arrays: dict[str, Any]) -> PyTree:
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
