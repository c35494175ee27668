"""The InceptionV3 of the FID: the network of 2015 whose 2048 mean activations the Frechet Inception distance compares.

It differs from later InceptionV3 networks in its weights and in two pools: means count only the sites inside the map,
and the last block pools by the maximum. Weights carry the names of pytorch-fid's weight file
(`Mixed_5b.branch1x1.conv.weight`, ...). Images are resized to 299x299 as pytorch-fid does, bilinear between the centres
of pixels and without antialias; the TensorFlow original aligns corners differently.

The file is `pt_inception-2015-12-05-6726825d.pth` of the pytorch-fid project's release `fid_weights`. Only its weights
give a distance that is called FID: other weights, and copies of these in other formats, are named after their hash.
"""

import os
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from asyncpatch.metrics.base import INCEPTION_FID, AbstractFeatureNetwork
from asyncpatch.metrics.networks.inception_kernels import INCEPTION_SHAPES, inception_kernels
from asyncpatch.metrics.networks.layers import (
    Convolution,
    Maps,
    Padding,
    max_pool,
    mean_pool,
    normalized_convolution,
    resize,
    to_rgb,
)
from asyncpatch.metrics.networks.weights import SHORT_HASH, Arrays, PublishedWeights, hash_of, select

INCEPTION_FILE = PublishedWeights(
    network=INCEPTION_FID,
    sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    advice="get pt_inception-2015-12-05-6726825d.pth from pytorch-fid's release `fid_weights` and give its path",
)

_EPSILON = 1e-3
"""Added to the variances of batch normalisation."""

_SIDE = 299
"""Of the images that the network was trained on."""

_FEATURES = 2048


class InceptionV3(AbstractFeatureNetwork):
    """The 2048 mean activations of the FID's InceptionV3."""

    layers: dict[str, Convolution]
    name: str = eqx.field(static=True)
    hash: str = eqx.field(static=True)
    preprocessing: str = eqx.field(static=True)
    size: int = eqx.field(static=True)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "InceptionV3":
        """With the published weights, from pytorch-fid's weight file."""
        return cls._build(INCEPTION_FILE.read(path), lambda _: INCEPTION_FID)

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> "InceptionV3":
        """With any weights, named after their hash: nothing here can tell whether they are the published ones."""
        return cls._build(arrays, lambda weights_hash: f"InceptionV3-{weights_hash[:SHORT_HASH]}")

    @classmethod
    def _build(cls, arrays: Arrays, name: Callable[[str], str]) -> "InceptionV3":
        weights = select(arrays, INCEPTION_SHAPES, "InceptionV3")
        weights_hash = hash_of(weights)
        return cls(
            layers={
                layer: normalized_convolution(weights, f"{layer}.conv", f"{layer}.bn", _EPSILON)
                for layer, _ in inception_kernels()
            },
            name=name(weights_hash),
            hash=weights_hash,
            preprocessing=f"bilinear without antialias to {_SIDE}x{_SIDE}, values in [-1, 1]",
            size=_FEATURES,
        )

    def __call__(self, images: Float[Array, "batch height width channel"]) -> Float[Array, "batch features"]:
        maps = resize(to_rgb(images), _SIDE, antialias=False)
        maps = self._run("Conv2d_1a_3x3", maps, 2, "VALID")
        maps = self._run("Conv2d_2b_3x3", self._run("Conv2d_2a_3x3", maps, 1, "VALID"))
        maps = self._run("Conv2d_3b_1x1", max_pool(maps, 3, 2))
        maps = max_pool(self._run("Conv2d_4a_3x3", maps, 1, "VALID"), 3, 2)
        for block in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
            maps = self._block_35(block, maps)
        maps = self._to_17("Mixed_6a", maps)
        for block in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
            maps = self._block_17(block, maps)
        maps = self._to_8("Mixed_7a", maps)
        maps = self._block_8("Mixed_7b", maps, mean_pool(maps, 3))
        maps = self._block_8("Mixed_7c", maps, max_pool(maps, 3, 1, "SAME"))
        return maps.mean((1, 2))

    def _run(self, name: str, maps: Maps, stride: int = 1, padding: Padding = "SAME") -> Maps:
        return jax.nn.relu(self.layers[name](maps, stride, padding))

    def _chain(self, prefix: str, labels: str, maps: Maps) -> Maps:
        for label in labels:
            maps = self._run(f"{prefix}{label}", maps)
        return maps

    def _fork(self, name: str, maps: Maps) -> Maps:
        """A wide and a tall convolution side by side."""
        return jnp.concatenate([self._run(f"{name}a", maps), self._run(f"{name}b", maps)], axis=-1)

    def _block_35(self, block: str, maps: Maps) -> Maps:
        """The blocks on maps of 35 by 35."""
        return jnp.concatenate(
            [
                self._run(f"{block}.branch1x1", maps),
                self._chain(f"{block}.branch5x5_", "12", maps),
                self._chain(f"{block}.branch3x3dbl_", "123", maps),
                self._run(f"{block}.branch_pool", mean_pool(maps, 3)),
            ],
            axis=-1,
        )

    def _to_17(self, block: str, maps: Maps) -> Maps:
        direct = self._run(f"{block}.branch3x3", maps, 2, "VALID")
        double = self._run(f"{block}.branch3x3dbl_3", self._chain(f"{block}.branch3x3dbl_", "12", maps), 2, "VALID")
        return jnp.concatenate([direct, double, max_pool(maps, 3, 2)], axis=-1)

    def _block_17(self, block: str, maps: Maps) -> Maps:
        """The blocks on maps of 17 by 17."""
        return jnp.concatenate(
            [
                self._run(f"{block}.branch1x1", maps),
                self._chain(f"{block}.branch7x7_", "123", maps),
                self._chain(f"{block}.branch7x7dbl_", "12345", maps),
                self._run(f"{block}.branch_pool", mean_pool(maps, 3)),
            ],
            axis=-1,
        )

    def _to_8(self, block: str, maps: Maps) -> Maps:
        short = self._run(f"{block}.branch3x3_2", self._run(f"{block}.branch3x3_1", maps), 2, "VALID")
        long = self._run(f"{block}.branch7x7x3_4", self._chain(f"{block}.branch7x7x3_", "123", maps), 2, "VALID")
        return jnp.concatenate([short, long, max_pool(maps, 3, 2)], axis=-1)

    def _block_8(self, block: str, maps: Maps, pooled: Maps) -> Maps:
        """The blocks on maps of 8 by 8."""
        return jnp.concatenate(
            [
                self._run(f"{block}.branch1x1", maps),
                self._fork(f"{block}.branch3x3_2", self._run(f"{block}.branch3x3_1", maps)),
                self._fork(f"{block}.branch3x3dbl_3", self._chain(f"{block}.branch3x3dbl_", "12", maps)),
                self._run(f"{block}.branch_pool", pooled),
            ],
            axis=-1,
        )
