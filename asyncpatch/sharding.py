"""Where arrays live on a mesh of devices, and weights that are brought together where a layer uses them.

Each logical axis is given its mesh axis once, in `MESH_AXES`, and nowhere else. A mesh has the axes `data` and `fsdp`.
Batches are split over both; large weights, their moving average and their moments are split over `fsdp`; everything
else is on every device.

A weight that devices share lies in parts. Left alone, the compiler may move activations instead, or bring all weights
together before the first layer. So each layer asks for its weight by `gathered` where it multiplies by it, and a
network runs its blocks by `forgets_gathered`: their backward pass brings each weight together anew. Of the gradient
each device keeps its part of the sum over all (arXiv 1910.02054, stage 3). Blocks that are recomputed in the backward
pass forget all the same. Around them, as around a whole loss, `forgets_gathered` would undo that: what an outer
`jax.checkpoint` keeps, it keeps of the inner ones, too.

Invariants: where an array lives depends on its shape and the mesh alone, so that the step, the restored checkpoint and
the initial state agree; the numbers are the same with and without gathering; outside of `sharing` a mesh nothing is
done at all.
"""

import math
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import equinox as eqx
import jax
import jax.random as jr
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree

DATA, FSDP = "data", "fsdp"

MESH_AXES = {"batch": (DATA, FSDP), "weight": FSDP}
"""Logical axis -> mesh axis or axes."""

MIN_SHARDED_SIZE = 2**16
"""Weights with fewer entries stay whole: gathering them would cost more than the memory they take."""

LAYER_AXES = 4
"""A layer's weight has at most so many axes, those of a convolution; one before them counts equal layers, whose weights
are stacked."""


def weight_spec(mesh: Mesh | AbstractMesh, shape: tuple[int, ...]) -> PartitionSpec:
    """The larger of the last two axes that `fsdp` divides is split over it, if the weight is large; else none is.

    Equal layers that are stacked are split as each of them would be.
    """
    parts = mesh.shape[FSDP]
    last_two = range(max(len(shape) - 2, 0), len(shape))
    divisible = [axis for axis in last_two if shape[axis] % parts == 0]
    if parts == 1 or math.prod(shape[-LAYER_AXES:]) < MIN_SHARDED_SIZE or not divisible:
        return PartitionSpec()
    largest = max(divisible, key=lambda axis: shape[axis])
    return PartitionSpec(*[None] * largest, MESH_AXES["weight"])


def on_every_device(tree: PyTree) -> PyTree:
    """A copy of every array on every device of all processes, each of which must call this; alone, the tree itself."""
    count = jax.device_count()
    if count == 1:
        return tree
    mesh = jax.make_mesh((count, 1), (DATA, FSDP), axis_types=(AxisType.Auto,) * 2)
    return placed(tree, NamedSharding(mesh, PartitionSpec()))


def placed(tree: PyTree, sharding: NamedSharding) -> PyTree:
    """The arrays that all processes have alike, on the devices of all; those that are on them already stay as they
    are."""

    def place(leaf: Array) -> Array:
        if isinstance(leaf, jax.Array) and leaf.sharding.device_set == sharding.device_set:
            return leaf
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jr.wrap_key_data(place(jr.key_data(leaf)), impl=jr.key_impl(leaf))
        # Not `jax.device_put`, which refuses devices of other processes.
        host = np.asarray(leaf)
        return jax.make_array_from_callback(host.shape, sharding, host.__getitem__)

    return jax.tree.map(lambda leaf: place(leaf) if eqx.is_array(leaf) else leaf, tree)


@contextmanager
def sharing(mesh: Mesh) -> Generator[None]:
    """What is traced inside runs on a mesh, and its layers bring together the weights that its devices share."""
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        yield


def gathered(weight: Array) -> Array:
    """The weight, whole on every device that runs the layer."""
    mesh = jax.sharding.get_abstract_mesh()
    if FSDP not in mesh.shape or weight_spec(mesh, weight.shape) == PartitionSpec():
        return weight
    return _gather(weight)


@jax.custom_vjp
def _gather(weight: Array) -> Array:
    return jax.lax.with_sharding_constraint(weight, PartitionSpec())


def _gather_forward(weight: Array) -> tuple[Array, None]:
    return _gather(weight), None


def _scatter_backward(_: None, gradient: Array) -> tuple[Array]:
    spec = weight_spec(jax.sharding.get_abstract_mesh(), gradient.shape)
    return (jax.lax.with_sharding_constraint(gradient, spec),)


_gather.defvjp(_gather_forward, _scatter_backward)


def forgets_gathered(function: Callable) -> Callable:
    """A function whose gradient keeps what it would keep anyway, but no whole weight."""
    if FSDP not in jax.sharding.get_abstract_mesh().shape:
        return function
    return jax.checkpoint(function, policy=_is_kept)


def _is_kept(primitive: Any, *_: Any, **parameters: Any) -> bool:
    """Whether the backward pass may keep what this made: not a weight that was just brought together."""
    inside = parameters.get("call_jaxpr")
    gathers = inside is not None and any(step.primitive.name == "sharding_constraint" for step in inside.eqns)
    return not gathers and primitive.name != "sharding_constraint"
