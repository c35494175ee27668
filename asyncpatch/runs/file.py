"""A run as one file to give away: averaged weights and config as safetensors, which cannot hold code.

Weights are stored under their place in the denoiser, as float32 or float16; examples, if there are any, beside them.
What holds for any such file is in `sealed`.
"""

from pathlib import Path
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from asyncpatch.config import ConfigError, from_json, to_json
from asyncpatch.data import latents_of, to_float, to_uint8
from asyncpatch.runs.experiment import Experiment
from asyncpatch.runs.opened import Examples, Run, no_examples
from asyncpatch.runs.sealed import (
    FileFormatError,
    Form,
    arrays_in,
    check_measured,
    check_weights,
    filled,
    named,
    stored_as,
)

FORM = Form(
    format="asyncpatch-run",
    number=1,
    fields=frozenset({"experiment", "step", "validation_loss", "release", "commit", "class_names"}),
    holds="run",
    advice="write it with python -m experiments.export",
)

EXAMPLE_IMAGES, EXAMPLE_LABELS = "examples.image", "examples.label"
"""The names of the examples among the arrays."""


def write_file(run: Run, path: Path, stored: Literal["float32", "float16"] = "float32") -> Path:
    """Write a run as one file, whole or not at all. float16 halves it, for a relative rounding of 5e-4.

    Raises `ValueError` for weights that are not finite in the type they are stored in, and for examples of a run on
    latents, which a file holds in 8 bits.
    """
    arrays = stored_as(run.denoiser, stored)
    if len(run.examples.label):
        if latents_of(run.experiment.data.source) is not None:
            raise ValueError("examples are kept as 8-bit images, and the run is on latents; leave the examples out")
        image, label = np.asarray(run.examples.image), np.asarray(run.examples.label)
        arrays |= {EXAMPLE_IMAGES: to_uint8(image), EXAMPLE_LABELS: label}
    record = {
        "experiment": to_json(run.experiment),
        "step": run.step,
        "validation_loss": run.validation_loss,
        "release": run.release,
        "commit": run.commit,
        "class_names": list(run.class_names),
        "measured": run.measured,
    }
    return FORM.write(path, record, arrays)


def read_file(path: Path, name: str) -> Run:
    """Read what `write_file` wrote. Raises `FileFormatError`, and `ConfigError` for a config of another release."""
    return FORM.read(path, name, lambda file, record: _read(file, record, name))


def _read(file: Any, record: dict[str, Any], name: str) -> Run:
    experiment = from_json(record["experiment"], record["release"])
    if not isinstance(experiment, Experiment):
        raise ConfigError(f"{name} holds the config of a {type(experiment).__name__}, not of a run; get it again")
    shapes = eqx.filter_eval_shape(experiment.make_denoiser, jax.eval_shape(lambda: jr.key(0)))
    wanted = named(shapes)
    _check_arrays(file, {key: tuple(leaf.shape) for key, leaf in wanted.items()}, tuple(experiment.data.shape), name)
    arrays = arrays_in(file, name)
    weights = {key: jnp.asarray(arrays[key], wanted[key].dtype) for key in wanted}
    examples = no_examples(experiment.data.shape)
    if EXAMPLE_LABELS in arrays:
        examples = Examples(jnp.asarray(to_float(arrays[EXAMPLE_IMAGES])), jnp.asarray(arrays[EXAMPLE_LABELS]))
    return Run(
        name=name,
        experiment=experiment,
        denoiser=filled(shapes, weights),
        step=record["step"],
        validation_loss=record["validation_loss"],
        release=record["release"],
        commit=record["commit"],
        class_names=tuple(record["class_names"]),
        examples=examples,
        measured=check_measured(record.get("measured", {}), name),  # which earlier releases did not write
    )


def _check_arrays(file: Any, wanted: dict[str, tuple[int, ...]], shape: tuple[int, ...], name: str) -> None:
    """Compare what the file holds with what its config asks for, from the header alone."""
    found = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118  (it is no dictionary)
    examples = {key: found.pop(key) for key in (EXAMPLE_IMAGES, EXAMPLE_LABELS) if key in found}
    check_weights(found, wanted, name)
    kinds = {key: (array.get_dtype(), tuple(array.get_shape())) for key, array in examples.items()}
    if kinds:
        count = kinds.get(EXAMPLE_LABELS, ("", (0,)))[1][:1]
        if kinds != {EXAMPLE_IMAGES: ("U8", (*count, *shape)), EXAMPLE_LABELS: ("I32", count)}:
            raise FileFormatError(f"{name} has examples {kinds}, which are none of its images; get it again")
