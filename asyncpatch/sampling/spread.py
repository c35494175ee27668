"""A batch of images dealt to all devices that hold a denoiser's weights.

The denoiser says where: if its weights lie on a mesh of several devices, as those of a run in training do, or those
that `asyncpatch.sharding.on_every_device` placed, each device makes its share of the images, and the weights stay where
they are. A batch that the devices cannot share alike is filled up. Several processes must all sample, with the same
arguments, and all get the images.

Invariant: an image does not depend on how many devices there are, up to rounding.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree

from asyncpatch.sharding import MESH_AXES, placed, sharing


def mesh_of(tree: PyTree) -> Mesh | None:
    """The mesh of several devices that some of these arrays lie on, if they do."""
    for leaf in jax.tree.leaves(eqx.filter(tree, eqx.is_array)):
        if isinstance(leaf, jax.Array) and not isinstance(leaf, Tracer):
            sharding = leaf.sharding
            if isinstance(sharding, NamedSharding) and sharding.mesh.size > 1 and isinstance(sharding.mesh, Mesh):
                return sharding.mesh
    return None


def run_spread(program: Callable[[tuple, tuple], Any], shared: tuple, each: tuple) -> Any:
    """`program(shared, each)`, whose outputs begin with the axis of images; all of them on this process.

    `shared` holds the denoiser and whatever else all images have in common; the arrays of `each` have an entry for
    every image on their first axis.
    """
    mesh = mesh_of(shared)
    leaves = [leaf for leaf in jax.tree.leaves(each) if eqx.is_array(leaf)]
    if mesh is None or any(isinstance(leaf, Tracer) for leaf in leaves):
        return program(shared, each)
    whole = NamedSharding(mesh, PartitionSpec())
    dealt = NamedSharding(mesh, PartitionSpec(MESH_AXES["batch"]))
    count = len(leaves[0])
    missing = -count % mesh.size

    filled = jax.tree.map(lambda leaf: _fill(leaf, missing) if eqx.is_array(leaf) else leaf, each)
    with sharing(mesh):
        made = program(placed(shared, whole), placed(filled, dealt))
    return jax.tree.map(lambda leaf: _here(leaf)[:count], made)


def _fill(leaf: Array, missing: int) -> Array:
    return jnp.concatenate([leaf, jnp.repeat(leaf[-1:], missing, axis=0)]) if missing else leaf


def _here(leaf: Array) -> Array:
    """An array that the devices of all processes share, on this one."""
    if jax.process_count() == 1:
        return jnp.asarray(jax.device_get(leaf))
    return jnp.asarray(multihost_utils.process_allgather(leaf, tiled=True))
