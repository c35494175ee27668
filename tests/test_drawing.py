"""Fresh weights: each device draws its share, nothing is sent, and the numbers are those of one device."""

import re
from contextlib import nullcontext

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scaled_training import COLLECTIVE
from toy_training import NUM_CLASSES, toy_loss

from asyncpatch.nn import NetworkDenoiser, UNetConfig
from asyncpatch.nn.draw import MOST, unit_normals
from asyncpatch.noise_schedule import RectifiedFlow
from asyncpatch.sharding import sharing, weight_spec
from asyncpatch.train import Descent, TrainConfig, init_state, make_mesh
from asyncpatch.train.mesh import constrain_weights, sharing_weights
from asyncpatch.train.state import _build

UNET = UNetConfig(
    channels=1, num_classes=NUM_CLASSES, base=64, multipliers=(1, 2), blocks=1, attention=(False, True), head=32
)
LEARNER = Descent(lambda key: NetworkDenoiser(UNET.build(key), RectifiedFlow()), toy_loss)
CONFIG = TrainConfig(num_classes=NUM_CLASSES)
SHAPES = ((3, 3, 64, 256), (7, 5), (512, 384), (2, 3, 3, 64, 64), (1001, 65))


@pytest.mark.parametrize("grid", [(1, 4), (2, 2)])
def test_devices_that_share_weights_draw_those_of_one_device(grid):
    """To the bit, for single layers and for stacked ones; another key gives others."""

    def draw(seed):
        key, stacked_key = jr.split(jr.key(seed))
        stacked = jax.vmap(lambda key: unit_normals(key, SHAPES[:2]))(jr.split(stacked_key, 3))
        return unit_normals(key, SHAPES), stacked

    mesh = make_mesh(*grid)
    with sharing(mesh):
        shared = jax.jit(lambda seed: constrain_weights(mesh, draw(seed)))(7)
    alone, others = jax.jit(draw)(7), jax.jit(draw)(8)
    jax.tree.map(np.testing.assert_array_equal, shared, alone)
    assert all(jnp.any(one != other) for one, other in zip(alone[0], others[0], strict=True))
    assert [leaf.sharding.spec for leaf in shared[0]] == [weight_spec(mesh, shape) for shape in SHAPES]


def test_a_state_on_four_devices_is_that_of_one():
    shared, alone = (init_state(LEARNER, CONFIG, make_mesh(1, fsdp)) for fsdp in (4, 1))
    assert jax.tree.structure(shared) == jax.tree.structure(alone)
    for one, other in zip(jax.tree.leaves(shared), jax.tree.leaves(alone), strict=True):
        if eqx.is_array(one):
            np.testing.assert_array_equal(one, other)


def test_no_device_holds_more_than_its_share_while_weights_are_drawn():
    """Beside the share of the state that it keeps, a device has room for another. The wrong twin leaves the sharing to
    the compiler, which draws more than that everywhere or sends runs of the flat draw around."""
    mesh = make_mesh(1, 4)
    share, beside = {}, {}
    for name, place in (("shared", sharing_weights(mesh)), ("twin", nullcontext())):
        with place:
            program = eqx.filter_jit(_build).lower(LEARNER, CONFIG, mesh).compile().compiled
        memory = program.memory_analysis()
        share[name], beside[name] = memory.output_size_in_bytes, memory.temp_size_in_bytes
        if name == "shared":
            assert not COLLECTIVE.findall(program.as_text())
    assert share["shared"] == share["twin"]
    assert beside["shared"] < 1.1 * share["shared"]
    assert beside["twin"] > 2 * share["twin"]


def test_more_weights_than_places_are_refused():
    with sharing_weights(make_mesh(1, 4)), pytest.raises(ValueError, match=re.escape(f"fewer than {MOST:,} weights")):
        unit_normals(jr.key(0), [(2**16, 2**16)])
