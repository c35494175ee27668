"""The small arrays of a tree end to end in one vector, for what moves each number by itself.

For every array that an optimiser moves, XLA compiles several kernels for a CPU: together more than the gradient of a
network has. Within a step, moments and moving average are nowhere needed by layer, so a run on a CPU carries them
packed (`carried` in `asyncpatch.train.state`); all else, checkpoints and samplers included, sees them as trees.
`optax.flatten` would put its vectors into checkpoints, and cuts them apart by a kernel for each array.

Invariant: packing and unpacking change no bit.
"""

import itertools
import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding
from jaxtyping import Array, Float, PyTree

LARGE = 2**18
"""Arrays with so many entries stay apart: they are few, and to join them would take a large network's time."""

MULTIPLE = 2**12
"""The vector is filled up to a multiple of this with zeros: of other lengths XLA's loops take one number at a time."""


class Packing(NamedTuple):
    """Which arrays of a tree lie in the vector."""

    structure: Any
    """The tree's definition."""
    shapes: tuple[tuple[int, ...] | None, ...]
    """By leaf, its shape if it lies in the vector, else None."""

    def pack(self, tree: PyTree) -> "Packed":
        """A tree of this structure packed, inside a program."""
        small, apart = self._parted(tree)
        filling = jnp.zeros(self._filling(small))
        return Packed(jnp.concatenate([*(leaf.ravel() for leaf in small), filling]), apart, self)

    def put(self, tree: PyTree, sharding: Sharding) -> "Packed":
        """The same outside of programs; the vector is put where `sharding` says."""
        small, apart = self._parted(tree)
        vector = np.concatenate([*map(np.ravel, small), np.zeros(self._filling(small), np.float32)])
        return Packed(jax.device_put(vector, sharding), apart, self)

    def _parted(self, tree: PyTree) -> tuple[list[Array], list[Any]]:
        places = list(zip(self.structure.flatten_up_to(tree), self.shapes, strict=True))
        return [leaf for leaf, shape in places if shape is not None], [leaf for leaf, shape in places if shape is None]

    def _filling(self, small: list[Array]) -> int:
        return -sum(leaf.size for leaf in small) % MULTIPLE


class Packed(eqx.Module):
    """A packed tree. What maps over leaves treats it as it would the tree."""

    vector: Float[Array, " small"]
    apart: list[Any]
    packing: Packing = eqx.field(static=True)

    def unpack(self) -> PyTree:
        """The tree, inside a program."""
        # Behind a barrier and in an array of two, which XLA never writes into the kernel that reads there, a start is
        # an argument: arrays of one shape share a kernel.
        starts = jax.lax.optimization_barrier([np.array([start, -1], np.int32) for start, _ in self._places()])
        parts = [
            jax.lax.dynamic_slice(self.vector, (start[0],), (size,)).reshape(shape)
            for start, (_, size), shape in zip(starts, self._places(), self._shapes(), strict=True)
        ]
        return self._tree(parts)

    def fetch(self) -> PyTree:
        """The same outside of programs, in buffers of its own."""
        vector = np.asarray(self.vector)
        parts = [
            vector[start : start + size].reshape(shape).copy()
            for (start, size), shape in zip(self._places(), self._shapes(), strict=True)
        ]
        return self._tree(jax.device_put(parts, self.vector.sharding))

    def _shapes(self) -> list[tuple[int, ...]]:
        return [shape for shape in self.packing.shapes if shape is not None]

    def _places(self) -> list[tuple[int, int]]:
        """Where each array starts in the vector, and its size."""
        sizes = [math.prod(shape) for shape in self._shapes()]
        return list(zip(itertools.accumulate(sizes, initial=0), sizes, strict=False))

    def _tree(self, parts: list[Array]) -> PyTree:
        small, apart = iter(parts), iter(self.apart)
        leaves = [next(apart if shape is None else small) for shape in self.packing.shapes]
        return jax.tree.unflatten(self.packing.structure, leaves)


def packing_of(tree: PyTree) -> Packing | None:
    """That of a tree's arrays of `float32` that are not large; None if there are none."""
    leaves, structure = jax.tree.flatten(tree)

    def small(leaf: Any) -> bool:
        return eqx.is_array(leaf) and leaf.dtype == jnp.float32 and leaf.size < LARGE

    shapes = tuple(leaf.shape if small(leaf) else None for leaf in leaves)
    return Packing(structure, shapes) if any(shape is not None for shape in shapes) else None


def packed_like(memory: PyTree, tree: PyTree) -> PyTree:
    """The tree, packed if parts of an optimiser's memory are."""
    parts = [part for part in jax.tree.leaves(memory, is_leaf=is_packed) if is_packed(part)]
    return parts[0].packing.pack(tree) if parts else tree


def is_packed(tree: PyTree) -> bool:
    """Whether this is a packed tree."""
    return isinstance(tree, Packed)
