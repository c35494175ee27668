"""Latents on the command line: the autoencoder whose images they are of, and where they lie."""

import dataclasses
from pathlib import Path

from asyncpatch.data import Latents
from asyncpatch.runs import OpenedAutoencoder, encode_data, open_autoencoder


@dataclasses.dataclass(frozen=True)
class LatentsOf:
    """Latents of an autoencoder's images, which are encoded first if they are not there."""

    autoencoder: str
    """Its folder, a file, or the name of one that comes with the package. Its config says which images."""
    folder: Path
    """Where the latents lie, or are to lie."""

    def open(self) -> tuple[OpenedAutoencoder, Latents, Latents]:
        """The autoencoder, the latents to train on, and those held out. Raises as `encode_data` does."""
        opened = open_autoencoder(self.autoencoder)
        return opened, *encode_data(self.folder, opened)
