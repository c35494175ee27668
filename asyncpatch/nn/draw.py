"""Unit normals for all weights of a network, each device drawing the share that it keeps.

JAX makes the numbers of a flat draw one by one: the bits of number `i` are a hash of the key and of `i`. Left to
itself, the compiler splits the flat draw into equal runs, which are no device's weights, and sends them around: on
eight devices a UNet of 60M weights took 650 MB a device beside the 127 MB that it keeps, and 1,200 collectives. Here
each device hashes the places of its own numbers. That takes 126 MB, and nothing is sent.

Invariant: the numbers are those of `jax.random.normal`, whatever devices share them.
"""

import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.extend.random import threefry2x32_p
from jax.sharding import AbstractMesh, PartitionSpec
from jaxtyping import Array, Float, PRNGKeyArray, UInt32

from asyncpatch.sharding import FSDP, weight_spec

MOST = 2**32
"""Weights of one draw, whose places are 32 bits."""

Shape = tuple[int, ...]


def unit_normals(key: PRNGKeyArray, shapes: Sequence[Shape]) -> list[Float[Array, "..."]]:
    """An array of each shape, filled one after another from one flat draw. Inside of `asyncpatch.sharding.sharing`, the
    devices of the mesh share them as they share weights; `ValueError` is raised then for `MOST` numbers or more."""
    sizes = [math.prod(shape) for shape in shapes]
    mesh = jax.sharding.get_abstract_mesh()
    if FSDP not in mesh.shape or not _hashes_places(key):
        return _pieces(jr.normal(key, (sum(sizes),)), shapes)
    if sum(sizes) >= MOST:
        raise ValueError(f"one draw has fewer than {MOST:,} weights, got {sum(sizes):,}; draw the network in parts")
    specs = [weight_spec(mesh, shape) for shape in shapes]
    starts = list(itertools.accumulate(sizes, initial=0))[:-1]

    def own_share(key_data: UInt32[Array, "2"]) -> list[Array]:
        places = [_places(mesh, *its) for its in zip(starts, shapes, specs, strict=True)]
        flat = _normals_at(key_data, jnp.concatenate([place.reshape(-1) for place in places]))
        return _pieces(flat, [place.shape for place in places])

    # Every number is a function of its place alone, which the check of replicas cannot know.
    share = jax.shard_map(own_share, mesh=mesh, in_specs=PartitionSpec(), out_specs=specs, check_vma=False)
    return share(jr.key_data(key))


def _hashes_places(key: PRNGKeyArray) -> bool:
    """Whether the key is of the kind whose numbers are made as above: JAX's own, unless it is told otherwise."""
    return str(jr.key_impl(key)) == "threefry2x32" and jax.config.jax_threefry_partitionable


def _pieces(flat: Float[Array, " size"], shapes: Sequence[Shape]) -> list[Array]:
    ends = list(itertools.accumulate(math.prod(shape) for shape in shapes))
    return [piece.reshape(shape) for piece, shape in zip(jnp.split(flat, ends[:-1]), shapes, strict=True)]


def _places(mesh: AbstractMesh, start: int, shape: Shape, spec: PartitionSpec) -> UInt32[Array, "..."]:
    """Where this device's part of an array, which begins at `start`, lies in the flat draw."""
    places = jnp.full((1,) * len(shape), start, jnp.uint32)
    axes = itertools.zip_longest(shape, spec)
    for axis, (length, shared) in enumerate(axes):
        own = length if shared is None else length // mesh.shape[FSDP]
        first = jnp.uint32(0) if shared is None else jax.lax.axis_index(FSDP).astype(jnp.uint32) * own
        along = (first + jnp.arange(own, dtype=jnp.uint32)) * math.prod(shape[axis + 1 :])
        places = places + along.reshape(*(-1 if other == axis else 1 for other in range(len(shape))))
    return places


def _normals_at(key_data: UInt32[Array, "2"], places: UInt32[Array, " size"]) -> Float[Array, " size"]:
    """The numbers that `jax.random.normal` has at these places: 23 bits make one in (-1, 1), whose error function is
    inverted."""
    high, low = threefry2x32_p.bind(key_data[0], key_data[1], jnp.zeros_like(places), places)
    one = np.float32(1).view(np.uint32)
    mantissa = jnp.right_shift(high ^ low, jnp.uint32(9)) | one
    in_unit = jax.lax.bitcast_convert_type(mantissa, jnp.float32) - 1
    least = np.nextafter(np.float32(-1), np.float32(0))
    symmetric = jnp.maximum(least, in_unit * (np.float32(1) - least) + least)
    return np.float32(math.sqrt(2)) * jax.lax.erf_inv(symmetric)
