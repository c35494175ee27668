"""What happens to a stored image on its way to the network, and back.

Transforms change uint8 images, one at a time; then `to_float` maps 0..255 linearly to [-1, 1].

Invariants: `to_uint8(to_float(x)) == x` to the bit; a transform's output depends on the image and the random
numbers it is handed alone, so that a batch can be made again from its step.
"""

import abc
import dataclasses

import jax
import numpy as np
from jaxtyping import Float32, UInt8

from asyncpatch.ranges import check_counts

HALF_RANGE = 127.5  # half of the largest uint8: the value that maps to 0


def to_float(image: UInt8[np.ndarray, "*shape"]) -> Float32[np.ndarray, "*shape"]:
    """0..255 to [-1, 1]. Raises `ValueError` for what is no uint8, as latents are not."""
    if image.dtype != np.uint8:
        raise ValueError(f"pixels are uint8, got {image.dtype}; latents go to a network as they are (to_network)")
    values = image.astype(np.float32)
    values /= np.float32(HALF_RANGE)  # in place: a batch of photographs is larger than a processor's cache
    values -= np.float32(1)
    return values


def to_uint8(image: Float32[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape"]:
    """[-1, 1] to the nearest of 0..255; values outside are clipped, as samples may lie there. Raises on NaN."""
    if np.isnan(image).any():
        raise ValueError(f"image holds {np.isnan(image).sum()} NaN values; check what produced it before saving it")
    return np.rint((image.clip(-1, 1) + 1) * HALF_RANGE).astype(np.uint8)


def to_network(image: UInt8[np.ndarray, "*shape"] | Float32[np.ndarray, "*shape"]) -> Float32[np.ndarray, "*shape"]:
    """What is stored as a network takes it: pixels by `to_float`; latents, which are of unit variance, as they are."""
    return to_float(image) if image.dtype == np.uint8 else image


def check_image(image: np.ndarray | jax.Array, shape: tuple[int, int, int]) -> None:
    """Raise `ValueError` unless `image` is floating, of this `(height, width, channel)`, and within [-1, 1].

    For images that a user hands in, before anything is compiled for them.
    """
    values = np.asarray(image)
    if not np.issubdtype(values.dtype, np.floating):
        raise ValueError(f"image must be floating, got {values.dtype}; uint8 images go through to_float first")
    if values.shape != shape:
        raise ValueError(
            f"image has shape {values.shape}, expected (height, width, channel) = {shape}; "
            "crop, resize or pad it to the size that the network was trained on"
        )
    bad = ~np.isfinite(values)
    if bad.any():
        first = tuple(int(axis[0]) for axis in np.nonzero(bad))
        raise ValueError(f"image holds {bad.sum()} values that are NaN or infinite, the first at {first}; mend it")
    if values.min() < -1 or values.max() > 1:
        raise ValueError(
            f"image must lie in [-1, 1], got values from {values.min():.4g} to {values.max():.4g}; rescale it"
        )


class AbstractTransform(abc.ABC):
    """Maps one stored image to another, possibly with random numbers.

    To write one more: a frozen dataclass of plain values with this `__call__`. All images that come out must have
    one shape. Draw from `rng` only: Grain seeds it from the seed and the position of the image in the stream.
    """

    @abc.abstractmethod
    def __call__(
        self, image: UInt8[np.ndarray, "height width channel"], rng: np.random.Generator
    ) -> UInt8[np.ndarray, "height_out width_out channel"]:
        """The changed image; `image` itself must stay as it is."""


@dataclasses.dataclass(frozen=True)
class PadTo(AbstractTransform):
    """Centres the image on a black canvas, so that patches of several sizes tile it (28x28 becomes 32x32)."""

    height: int
    width: int

    def __post_init__(self):
        check_counts(height=self.height, width=self.width)

    def __call__(
        self, image: UInt8[np.ndarray, "height width channel"], rng: np.random.Generator
    ) -> UInt8[np.ndarray, "{self.height} {self.width} channel"]:
        rows, cols = self.height - image.shape[0], self.width - image.shape[1]
        if rows < 0 or cols < 0:
            raise ValueError(
                f"an image of {image.shape[0]}x{image.shape[1]} does not fit on a canvas of "
                f"{self.height}x{self.width}; pad to a larger size"
            )
        canvas = np.zeros((self.height, self.width, image.shape[2]), np.uint8)
        canvas[rows // 2 :, cols // 2 :][: image.shape[0], : image.shape[1]] = image
        return canvas


@dataclasses.dataclass(frozen=True)
class Shrink(AbstractTransform):
    """Averages squares of `factor` by `factor` pixels, for a smaller task on the same images (32x32 becomes 16x16)."""

    factor: int

    def __post_init__(self):
        check_counts(factor=self.factor)

    def __call__(
        self, image: UInt8[np.ndarray, "height width channel"], rng: np.random.Generator
    ) -> UInt8[np.ndarray, "height//{self.factor} width//{self.factor} channel"]:
        height, width, channels = image.shape
        if height % self.factor or width % self.factor:
            raise ValueError(
                f"an image of {height}x{width} cannot be shrunk {self.factor} times; pad it to a multiple first"
            )
        squares = image.reshape(height // self.factor, self.factor, width // self.factor, self.factor, channels)
        return np.rint(squares.mean((1, 3), np.float32)).astype(np.uint8)


@dataclasses.dataclass(frozen=True)
class RandomFlip(AbstractTransform):
    """Mirrors left and right with probability 1/2."""

    def __call__(
        self, image: UInt8[np.ndarray, "height width channel"], rng: np.random.Generator
    ) -> UInt8[np.ndarray, "height width channel"]:
        return image[:, ::-1] if rng.random() < 0.5 else image
