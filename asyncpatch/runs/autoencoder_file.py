"""An autoencoder as one file to give away: averaged weights and config as safetensors, which cannot hold code.

Rounded to float16 it is another autoencoder, whose latents are its own: the file's fingerprint is that of the weights
as they are read back, so that whoever has the file encodes and decodes with the same. That of the weights as they were
trained stands beside it.
"""

from pathlib import Path
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from asyncpatch.config import ConfigError, from_json, to_json
from asyncpatch.nn import Autoencoder
from asyncpatch.runs.autoencoder import AutoencoderExperiment
from asyncpatch.runs.autoencoder_opened import OpenedAutoencoder
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
from asyncpatch.train import Saved

FORM = Form(
    format="asyncpatch-autoencoder",
    number=1,
    fields=frozenset(
        {"experiment", "step", "validation_loss", "release", "commit", "fingerprint", "rounded_from", "measured"}
    ),
    holds="autoencoder",
    advice="write it with python -m experiments.export_autoencoder",
)

Stored = Literal["float32", "float16"]


def as_stored(autoencoder: Autoencoder, stored: Stored) -> Autoencoder:
    """The autoencoder that a file in this type gives back. Raises `ValueError` for weights not finite in it."""
    return _restored(autoencoder, stored_as(autoencoder, stored))


def write_autoencoder(opened: OpenedAutoencoder, path: Path, stored: Stored = "float32") -> Path:
    """Write the file, whole or not at all. Raises `ValueError` for weights that are not finite in the type `stored`."""
    saved, arrays = opened.saved, stored_as(opened.autoencoder, stored)
    again = OpenedAutoencoder(opened.experiment, _restored(opened.autoencoder, arrays), saved)
    rounded = again.fingerprint != opened.fingerprint
    record = {
        "experiment": to_json(opened.experiment),
        "step": saved.step,
        "validation_loss": saved.validation_loss,
        "release": saved.release,
        "commit": saved.commit,
        "fingerprint": again.fingerprint,
        "rounded_from": opened.rounded_from or (opened.fingerprint if rounded else None),
        "measured": opened.measured,
    }
    return FORM.write(path, record, arrays)


def read_autoencoder(path: str | Path) -> OpenedAutoencoder:
    """Read what `write_autoencoder` wrote: the same autoencoder, in float32 to the bit, with the same fingerprint.

    Raises `FileNotFoundError` if there is none, `FileFormatError` for a file that is cut, damaged, foreign or newer,
    and `ConfigError` for a config of another release.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no autoencoder at {path}; give a file that write_autoencoder wrote")
    return FORM.read(Path(path), str(path), lambda file, record: _read(file, record, str(path)))


def _read(file: Any, record: dict[str, Any], name: str) -> OpenedAutoencoder:
    experiment = from_json(record["experiment"], record["release"])
    if not isinstance(experiment, AutoencoderExperiment):
        raise ConfigError(f"{name} holds the config of a {type(experiment).__name__}, not of an autoencoder")
    shapes = eqx.filter_eval_shape(experiment.autoencoder.build, jax.eval_shape(lambda: jr.key(0)))
    slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118  (it is no dictionary)
    check_weights(slices, {key: tuple(leaf.shape) for key, leaf in named(shapes).items()}, name)
    autoencoder = _restored(shapes, arrays_in(file, name))
    figures = check_measured(record["measured"], name)
    saved = Saved(experiment, record["step"], record["validation_loss"], record["release"], record["commit"])
    opened = OpenedAutoencoder(experiment, autoencoder, saved, figures, record["rounded_from"])
    if opened.fingerprint != record["fingerprint"]:
        raise FileFormatError(
            f"{name} says that its autoencoder is {record['fingerprint']!r:.20}..., and its weights are those of "
            f"{opened.fingerprint[:12]}...: latents of one cannot be read with the other; get it again"
        )
    return opened


def _restored(shapes: Any, arrays: dict[str, np.ndarray]) -> Autoencoder:
    """The tree of `shapes`, or of other weights, with stored arrays in their places, in its own types."""
    wanted = named(shapes)
    return filled(shapes, {key: jnp.asarray(array, wanted[key].dtype) for key, array in arrays.items()})
