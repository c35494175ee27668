"""An autoencoder as one file to give away, in float32: rounded, it would be another, with latents of its own."""

from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr

from asyncpatch.config import ConfigError, from_json, to_json
from asyncpatch.runs.autoencoder import AutoencoderExperiment, OpenedAutoencoder
from asyncpatch.runs.sealed import Form, arrays_in, check_weights, filled, named, stored_as
from asyncpatch.train import Saved

FORM = Form(
    format="asyncpatch-autoencoder",
    number=1,
    fields=frozenset({"experiment", "step", "validation_loss", "release", "commit"}),
    holds="autoencoder",
    advice="write it with asyncpatch.runs.write_autoencoder",
)


def write_autoencoder(opened: OpenedAutoencoder, path: Path) -> Path:
    """Write the file, whole or not at all. Raises `ValueError` for weights that are not finite."""
    saved = opened.saved
    record = {
        "experiment": to_json(opened.experiment),
        "step": saved.step,
        "validation_loss": saved.validation_loss,
        "release": saved.release,
        "commit": saved.commit,
    }
    return FORM.write(path, record, stored_as(opened.autoencoder, "float32"))


def read_autoencoder(path: str | Path) -> OpenedAutoencoder:
    """Read what `write_autoencoder` wrote: the same autoencoder, to the bit, with the same fingerprint.

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
    wanted = named(shapes)
    slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118  (it is no dictionary)
    check_weights(slices, {key: tuple(leaf.shape) for key, leaf in wanted.items()}, name)
    weights = {key: jnp.asarray(array, wanted[key].dtype) for key, array in arrays_in(file, name).items()}
    saved = Saved(experiment, record["step"], record["validation_loss"], record["release"], record["commit"])
    return OpenedAutoencoder(experiment, filled(shapes, weights), saved)
