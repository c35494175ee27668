"""A tree as a flat list of its arrays, and the rest of it apart.

Splitting a state of hundreds of arrays into those and the rest takes Python milliseconds, which at every step would be
a tenth of a small network's training. So it is done once: programs take and give the list, which JAX's own dispatch
walks.

Invariant: `unflatten(*flatten(tree))` is the tree.
"""

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
    """The arrays of a tree in its order, or the shapes that stand in their places, and the rest."""
    leaves, structure = jax.tree.flatten(tree)
    arrays = [leaf for leaf in leaves if _is_array(leaf)]
    return arrays, Rest(structure, tuple(None if _is_array(leaf) else leaf for leaf in leaves))


def unflatten(arrays: list[Array], rest: Rest) -> PyTree:
    """The tree again."""
    following = iter(arrays)
    return jax.tree.unflatten(rest.structure, [next(following) if leaf is None else leaf for leaf in rest.others])


def _is_array(leaf: object) -> bool:
    return eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)
