"""The mesh of devices, and the placement of batches and states on it (the table is in `asyncpatch.sharding`).

One device is a mesh of one, and the same program runs on one device, on several, and on several processes.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import equinox as eqx
import jax
from jax.experimental.mesh_utils import create_device_mesh
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from asyncpatch.sharding import DATA, FSDP, MESH_AXES, sharing, weight_spec


def make_mesh(data: int = 1, fsdp: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh of the first `data * fsdp` of the devices present, or given. Raises `ValueError` if there are not as many.

    Neighbours on the axis `fsdp` are neighbours on the chips' network, where there is one.
    """
    devices = jax.devices() if devices is None else devices
    if data < 1 or fsdp < 1 or data * fsdp > len(devices):
        raise ValueError(
            f"a mesh of {data} x {fsdp} devices does not fit the {len(devices)} devices present; "
            "give two positive numbers with a smaller product"
        )
    # `jax.make_mesh` refuses 16 x 4 on a slice of 8 x 8 chips: there an axis of the mesh is part of an axis of chips.
    grid = create_device_mesh((data, fsdp), devices[: data * fsdp], allow_split_physical_axes=True)
    return Mesh(grid, (DATA, FSDP), axis_types=(AxisType.Auto,) * 2)


def replicated(mesh: Mesh) -> NamedSharding:
    """On every device, whole."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The first axis split over all devices."""
    return NamedSharding(mesh, PartitionSpec(MESH_AXES["batch"]))


def microbatch_sharding(mesh: Mesh) -> NamedSharding:
    """The second axis split over all devices; the first counts microbatches."""
    return NamedSharding(mesh, PartitionSpec(None, MESH_AXES["batch"]))


def weight_sharding(mesh: Mesh, shape: tuple[int, ...]) -> NamedSharding:
    """Split over `fsdp` if the weight is large, else whole on every device."""
    return NamedSharding(mesh, weight_spec(mesh, shape))


def sharing_weights(mesh: Mesh) -> AbstractContextManager[None]:
    """What is traced inside gathers weights layer by layer (`asyncpatch.sharding`), if this mesh splits any."""
    return nullcontext() if mesh.shape[FSDP] == 1 else sharing(mesh)


def constrain_weights(mesh: Mesh, tree: PyTree) -> PyTree:
    """Inside a compiled function, place every array of a state by `weight_sharding`."""

    def place(leaf):
        return jax.lax.with_sharding_constraint(leaf, weight_sharding(mesh, leaf.shape)) if eqx.is_array(leaf) else leaf

    return jax.tree.map(place, tree)


def abstract_weights(mesh: Mesh, tree: PyTree) -> PyTree:
    """The shapes that `eqx.filter_eval_shape` gave, each with its sharding: what a checkpoint is restored into."""

    def describe(leaf):
        if not isinstance(leaf, jax.ShapeDtypeStruct):
            return leaf
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=weight_sharding(mesh, leaf.shape))

    return jax.tree.map(describe, tree)
