"""A tree as a flat list of its arrays, and the rest of it apart.

Splitting a state of hundreds of arrays into those and the rest takes Python milliseconds, which at every step would be
a tenth of a small network's training. So it is done once: programs take and give the list, which JAX's own dispatch
walks.

Invariant: `unflatten(*flatten(tree))` is the tree.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
from jaxtyping import Array, PyTree


class Rest(NamedTuple):
    """What a tree is besides its arrays. Hashable if its leaves are."""

    structure: Any
    """The tree's definition, with a place for every leaf."""
    others: tuple[Any, ...]
    """The leaves that are no arrays, and None in the places of those that are."""


def flatten(tree: PyTree) -> tuple[list[Array], Rest]:
    """The arrays of a tree in its order, and the rest."""
    return _flatten(tree, eqx.is_array)


def flatten_shapes(tree: PyTree) -> tuple[list[jax.ShapeDtypeStruct], Rest]:
    """The same of a tree that holds shapes in the places of its arrays; the rest is that of the tree of arrays."""
    return _flatten(tree, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))


def unflatten(arrays: list[Array], rest: Rest) -> PyTree:
    """The tree again."""
    following = iter(arrays)
    return jax.tree.unflatten(rest.structure, [next(following) if leaf is None else leaf for leaf in rest.others])


def _flatten(tree: PyTree, belongs: Callable[[Any], bool]) -> tuple[list, Rest]:
    leaves, structure = jax.tree.flatten(tree)
    arrays = [leaf for leaf in leaves if belongs(leaf)]
    return arrays, Rest(structure, tuple(None if belongs(leaf) else leaf for leaf in leaves))
