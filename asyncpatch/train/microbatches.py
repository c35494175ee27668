"""One batch in several parts, worked off one after the other, for batches that do not fit in memory at once."""

from collections.abc import Callable
from functools import partial
from operator import itemgetter

import jax
import jax.numpy as jnp
import jax.random as jr
from jax.sharding import Mesh
from jaxtyping import Array, Int, Key, PRNGKeyArray, PyTree

from asyncpatch.train.batch import Batch
from asyncpatch.train.mesh import constrain_weights, microbatch_sharding, sharing_weights


def summed(part: Callable[[Batch], PyTree], zeros: PyTree, batch: Batch, parts: int, mesh: Mesh) -> PyTree:
    """The sum of `part` over the microbatches of a batch; `zeros` is a sum of none."""

    def add(total: PyTree, microbatch: Batch) -> PyTree:
        with sharing_weights(mesh):
            found = part(microbatch)
        return constrain_weights(mesh, jax.tree.map(jnp.add, total, found))

    on_cpu = mesh.devices.flat[0].platform == "cpu"
    accumulate = add_written_out if on_cpu else add_in_a_loop
    return accumulate(add, zeros, _microbatches(batch, parts, mesh))


def add_in_a_loop(add: Callable[[PyTree, PyTree], PyTree], total: PyTree, parts: PyTree) -> PyTree:
    """`add` each part, a slice of the first axis, to the total: one at a time in memory."""
    return jax.lax.scan(lambda total, part: (add(total, part), None), total, parts)[0]


def add_written_out(add: Callable[[PyTree, PyTree], PyTree], total: PyTree, parts: PyTree) -> PyTree:
    """The same without a loop.

    XLA's CPU compiler leaves the gradients of convolutions inside a loop, even of one round, in a form that runs
    8 to 30 times slower.
    """
    for number in range(len(jax.tree.leaves(parts)[0])):
        total = add(total, jax.tree.map(itemgetter(number), parts))
    return total


def image_keys(key: PRNGKeyArray, index: Int[Array, " batch"]) -> Key[Array, " batch"]:
    """The key of each image, from its position in the batch."""
    return jax.vmap(partial(jr.fold_in, key))(index)


def _microbatches(batch: Batch, parts: int, mesh: Mesh) -> Batch:
    """Deal the images to `parts` microbatches in turn, which moves none of them to another device."""

    def deal(array):
        dealt = jnp.swapaxes(array.reshape(-1, parts, *array.shape[1:]), 0, 1)
        return jax.lax.with_sharding_constraint(dealt, microbatch_sharding(mesh))

    return jax.tree.map(deal, batch)
