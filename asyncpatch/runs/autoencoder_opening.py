"""Opening an autoencoder: the folder that training wrote to, a file, or one that comes with the package."""

from pathlib import Path

from jaxtyping import PRNGKeyArray

from asyncpatch.nn import Autoencoder
from asyncpatch.places import Place, place
from asyncpatch.runs.autoencoder import AutoencoderExperiment
from asyncpatch.runs.autoencoder_file import read_autoencoder
from asyncpatch.runs.autoencoder_opened import OpenedAutoencoder
from asyncpatch.train import load_for_sampling, make_mesh

AUTOENCODERS = Path(__file__).parent / "models" / "autoencoders"
"""Where the autoencoders lie that come with the package."""


def shipped_autoencoders() -> tuple[str, ...]:
    """The names of the autoencoders that come with the package."""
    return tuple(sorted(path.stem for path in AUTOENCODERS.glob("*.safetensors")))


def open_autoencoder(source: str | Place, step: int | None = None) -> OpenedAutoencoder:
    """Open an autoencoder: a folder, an exported file, or a shipped one by its name.

    `step` chooses a checkpoint of a folder; its newest readable one is opened if it is not given. Raises `ValueError`
    for a folder of anything else, and as `asyncpatch.runs.open_run` does.
    """
    path = place(source)
    if path.is_dir():
        saved, autoencoder = load_for_sampling(path, _build, make_mesh(), step)
        return OpenedAutoencoder(saved.experiment, autoencoder, saved)
    if step is not None:
        raise ValueError(f"{source} holds one step alone; leave step out, or give the folder of an autoencoder")
    if isinstance(path, Path) and path.is_file():
        return read_autoencoder(path)
    if str(source) in shipped_autoencoders():
        return read_autoencoder(AUTOENCODERS / f"{source}.safetensors")
    raise FileNotFoundError(
        f"there is no autoencoder at {source}; give the folder that experiments.autoencoder trained it in, an exported "
        f"file, or one that comes with the package: {', '.join(shipped_autoencoders())}"
    )


def _build(experiment: object, key: PRNGKeyArray) -> Autoencoder:
    if not isinstance(experiment, AutoencoderExperiment):
        raise ValueError(
            f"the folder holds a {type(experiment).__name__} and no autoencoder; give the folder that "
            "train_autoencoder wrote to"
        )
    return experiment.autoencoder.build(key)
