"""Opening a run: the folder that training wrote to, a file that was given away, or a model that comes with the package.

Opening runs no code that the run brings along: a folder holds arrays and JSON, a file is safetensors, and a config can
name nothing but classes of this package and those that the opening program has registered.
"""

from pathlib import Path

import jax
from jaxtyping import PRNGKeyArray

from asyncpatch.config import ConfigError
from asyncpatch.nn import NetworkDenoiser
from asyncpatch.places import Place, place
from asyncpatch.runs.cache import keep_compiled
from asyncpatch.runs.experiment import Experiment
from asyncpatch.runs.file import read_file
from asyncpatch.runs.opened import Run, no_examples, numbered
from asyncpatch.train import load_for_sampling, make_mesh

MODELS = Path(__file__).parent / "models"
"""Where the models lie that come with the package."""


def shipped() -> tuple[str, ...]:
    """The names of the models that come with the package."""
    return tuple(sorted(path.stem for path in MODELS.glob("*.safetensors")))


def open_run(source: str | Place, step: int | None = None) -> Run:
    """Open a run: a folder, an exported file, or a shipped model by its name.

    `step` chooses a checkpoint of a folder; its newest readable one is opened if it is not given. Compiled programs
    are kept on disk from then on (`asyncpatch.runs.cache`). Raises `FileNotFoundError` if there is nothing to open,
    `asyncpatch.config.ConfigError` for a config that this release or this program cannot read, `FileFormatError`
    for a file that is damaged, foreign or newer, and `asyncpatch.train.CheckpointError` if none of a folder's
    checkpoints can be read.
    """
    keep_compiled()
    path = place(source)
    if path.is_dir():
        return _open_folder(path, str(source), step)
    if step is not None:
        raise ValueError(f"{source} holds one step alone; leave step out, or give the folder of a run")
    if isinstance(path, Path) and path.is_file():
        return read_file(path, str(source))
    if str(source) in shipped():
        return read_file(MODELS / f"{source}.safetensors", f"{source}, which comes with asyncpatch")
    raise FileNotFoundError(
        f"there is no run at {source}; give the folder of a run, an exported file, or one of the models that come with "
        f"the package: {', '.join(shipped())}"
    )


def _open_folder(folder: Place, name: str, step: int | None) -> Run:
    # Of several processes each has a copy; a process that is alone takes its first device.
    devices = jax.device_count() if jax.process_count() > 1 else 1
    saved, denoiser = load_for_sampling(folder, _build_denoiser, make_mesh(devices, 1), step)
    experiment: Experiment = saved.experiment
    return Run(
        name=name,
        experiment=experiment,
        denoiser=denoiser,
        step=saved.step,
        validation_loss=saved.validation_loss,
        release=saved.release,
        commit=saved.commit,
        class_names=numbered(experiment.network.num_classes),
        examples=no_examples(experiment.data.shape),
    )


def _build_denoiser(experiment: object, key: PRNGKeyArray) -> NetworkDenoiser:
    if not isinstance(experiment, Experiment):
        raise ConfigError(
            f"the folder holds the config of a {type(experiment).__name__}, not of a run; give the folder of a run (a "
            "difficulty head is opened beside its run, by asyncpatch.runs.open_head)"
        )
    return experiment.make_denoiser(key)
