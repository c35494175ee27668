"""A run's small arrays in one vector: nothing but the number of arrays changes."""

from dataclasses import dataclass, replace

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from test_learners import every_learner
from toy_training import TOY_CONFIG, TOY_LEARNER, ToyData, arrays_of

from asyncpatch.train import MuonConfig, OptimizerConfig, init_state, make_mesh, put_batch
from asyncpatch.train.flat import flatten, unflatten
from asyncpatch.train.learner import AbstractLearner
from asyncpatch.train.mesh import replicated
from asyncpatch.train.packed import LARGE, MULTIPLE, is_packed, packed_like, packing_of
from asyncpatch.train.state import as_trees, carried
from asyncpatch.train.step import flat_train_step

MESH = make_mesh()


def odd_tree():
    """Arrays that a vector takes, and whatever else a tree may hold."""
    first, second, third = jr.split(jr.key(0), 3)
    return {
        "kernel": jr.normal(first, (3, 3, 2, 5)),
        "large": jr.normal(second, (LARGE,)),
        "count": jnp.int32(7),
        "rest": (None, "a word", jnp.float32(0.5), [jr.normal(third, (4,)), jnp.zeros((0, 3))]),
    }


def packed_parts(tree):
    return [part for part in jax.tree.leaves(tree, is_leaf=is_packed) if is_packed(part)]


def assert_same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for left, right in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert type(left) is type(right)
        assert left.dtype == right.dtype if eqx.is_array(left) else left == right
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("inside", [True, False], ids=["in a program", "outside"])
def test_a_packed_tree_is_the_tree(inside):
    tree = odd_tree()
    packing = packing_of(tree)
    assert packing is not None
    arrays, rest = flatten(tree)
    put = packing.put(tree, replicated(MESH))
    if inside:
        packed_arrays, packed_rest = flatten(put)
        vector = jax.jit(lambda arrays: flatten(packing.pack(unflatten(arrays, rest)))[0])(arrays)[0]
        np.testing.assert_array_equal(vector, put.vector)
        unpacked = jax.jit(lambda arrays: flatten(unflatten(arrays, packed_rest).unpack())[0])(packed_arrays)
        assert_same(unflatten(unpacked, rest), tree)
    else:
        assert_same(put.fetch(), tree)
    assert put.vector.size == MULTIPLE
    assert [getattr(leaf, "shape", leaf) for leaf in put.apart] == [(), (LARGE,), "a word"]


def test_what_is_fetched_outlives_a_vector_that_the_next_step_reuses():
    tree = {"weight": jnp.arange(64.0).reshape(8, 8)}
    put = packing_of(tree).put(tree, replicated(MESH))
    made = replace(put, vector=jax.jit(lambda vector: vector + 0.0)(put.vector))  # as a step makes it
    fetched = made.fetch()
    jax.jit(lambda vector: vector + 1.0, donate_argnums=0)(made.vector)
    np.testing.assert_array_equal(fetched["weight"], tree["weight"])
    assert made.vector.is_deleted()  # a view of it, in the place of a copy, would keep it


@every_learner
def test_a_carried_state_is_the_state(learner):
    state = init_state(learner, TOY_CONFIG, MESH)
    packed = carried(state, learner, TOY_CONFIG, MESH)
    assert len(packed_parts(packed)) == 3  # the average and two moments
    assert len(flatten(packed)[0]) < len(flatten(state)[0])
    assert_same(as_trees(packed), state)


@every_learner
def test_a_packed_step_is_the_step(learner):
    """To rounding. The wrong twin forgets the second moments."""
    found = {}
    for name in ("trees", "packed", "twin"):
        state = init_state(learner, TOY_CONFIG, MESH)
        if name != "trees":
            state = carried(state, learner, TOY_CONFIG, MESH)
        arrays, rest = flatten(state)
        step = flat_train_step(rest, learner, TOY_CONFIG, 1, MESH)
        for number in range(3):
            arrays, metrics = step(arrays, put_batch(ToyData().batch(number), MESH))
            if name == "twin":
                arrays = flatten(_forgetful(unflatten(arrays, rest)))[0]
        found[name] = arrays_of(as_trees(unflatten(arrays, rest))), metrics

    def differs(name):
        (one, _), (other, _) = found["trees"], found[name]
        assert one.keys() == other.keys()
        return any(not np.allclose(one[key], other[key], rtol=1e-4, atol=1e-5) for key in one)

    assert not differs("packed")
    assert differs("twin")
    for one, other in zip(*(jax.tree.leaves(found[name][1]) for name in ("trees", "packed")), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4)


def _forgetful(state):
    return eqx.tree_at(lambda state: packed_parts(state.opt_state)[1].vector, state, replace_fn=jnp.zeros_like)


@dataclass(frozen=True)
class Silent(AbstractLearner):
    """Says nothing of its memory."""

    inner: AbstractLearner

    def build(self, key, config):
        return self.inner.build(key, config)

    def update(self, trained, memory, turn):
        return self.inner.update(trained, memory, turn)


@pytest.mark.parametrize(
    ("learner", "optimizer", "count"),
    [
        (TOY_LEARNER, OptimizerConfig(), 3),
        (TOY_LEARNER, MuonConfig(), 1),
        (Silent(TOY_LEARNER), OptimizerConfig(), 1),
    ],
    ids=["Adam", "Muon", "a learner that does not say so"],
)
def test_the_memory_is_packed_only_where_each_number_moves_by_itself(learner, optimizer, count):
    config = replace(TOY_CONFIG, optimizer=optimizer)
    state = carried(init_state(learner, config, MESH), learner, config, MESH)
    assert len(packed_parts(state)) == count
    assert packed_like(state.opt_state, state.denoiser) is state.denoiser or count == 3


def test_weights_that_devices_share_are_not_packed():
    mesh = make_mesh(data=1, fsdp=2)
    state = init_state(TOY_LEARNER, TOY_CONFIG, mesh)
    assert carried(state, TOY_LEARNER, TOY_CONFIG, mesh) is state
