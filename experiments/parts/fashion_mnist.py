"""Where Fashion-MNIST is found."""

from pathlib import Path

from asyncpatch.data import IdxFiles

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package `dataset-fashion-mnist` puts the files."""

CLASSES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
"""What the labels 0 to 9 mean."""


def fashion_mnist(folder: Path = DEBIAN_FOLDER) -> IdxFiles:
    """The 60,000 training images, from a folder with the published IDX files."""
    return IdxFiles(str(folder / "train-images-idx3-ubyte.gz"), str(folder / "train-labels-idx1-ubyte.gz"))
