"""Digests of arrays, so that a checkpoint that was damaged since it was saved is known.

The digest of an array is the SHA-256 of its entries in row-major order: of what was trained, not of the files that hold
it, so it covers the whole way to the disk and back. Invariant: it does not depend on how the array is split over
devices and processes.
"""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Array, PyTree

Kinds = dict[str, str]
"""The type and shape of every array of a tree, by its place in it."""


def kinds(tree: PyTree) -> Kinds:
    """The types and shapes of arrays, or of what is to become them."""
    return {name: f"{leaf.dtype}{list(leaf.shape)}" for name, leaf in _named(tree).items()}


def digests(tree: PyTree) -> dict[str, str]:
    """The digest of every array. Of several processes all must call this, and all get the same.

    Training waits for them, so all cores work on them; arrays are brought together in one order, in this thread.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = {name: pool.submit(_digest, _on_host(leaf)) for name, leaf in _named(tree).items()}
        return {name: future.result() for name, future in found.items()}


def _named(tree: PyTree) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in leaves
        if eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)
    }


def _digest(array: np.ndarray) -> str:
    contiguous = np.ascontiguousarray(array)
    return hashlib.sha256(contiguous.reshape(-1).view(np.uint8)).hexdigest()


def _on_host(array: Array) -> np.ndarray:
    """The whole array in host memory; processes that have a part each bring it together, one array at a time."""
    if not array.is_fully_addressable:
        if not array.is_fully_replicated:
            return multihost_utils.process_allgather(array, tiled=True)
        return np.asarray(array.addressable_data(0))
    return np.asarray(array)
