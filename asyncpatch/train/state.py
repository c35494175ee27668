"""What training carries from step to step; a checkpoint holds all of it.

The random key of a step and the position in the data are functions of `TrainConfig.seed` and `step`, so saving
`step` saves both, and no key is ever stored.
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from asyncpatch.sharding import FSDP
from asyncpatch.train.learner import AbstractLearner
from asyncpatch.train.mesh import abstract_weights, constrain_weights, replicated, sharing_weights
from asyncpatch.train.packed import is_packed, packing_of
from asyncpatch.train.settings import TrainConfig

NEVER = -1
"""The value of `TrainState.broken_at` while every step has been finite."""


class NonFiniteLossError(RuntimeError):
    """A loss or its gradient was not finite."""


class TrainState(eqx.Module):
    """What is trained, its moving average, the learner's memory and the number of updates made.

    The first is a denoiser or whatever else the learner builds, and the memory, `opt_state`, holds more than an
    optimiser's moments if the learner has more to remember: checkpoints know both by these names.
    `broken_at` is the first step whose loss or gradient was not finite: nothing but itself has changed since.
    `window_loss` and `window_steps` sum the losses since the last report, so that a resumed run reports the same
    means as one that was never interrupted.
    """

    denoiser: PyTree
    ema: PyTree
    opt_state: PyTree
    step: Int[Array, ""]
    broken_at: Int[Array, ""]
    window_loss: Float[Array, ""]
    window_steps: Int[Array, ""]


def init_key(config: TrainConfig) -> PRNGKeyArray:
    """The key that initial weights are drawn from."""
    return jr.split(jr.key(config.seed), 3)[0]


def step_key(config: TrainConfig, step: Int[Array, ""]) -> PRNGKeyArray:
    """The key of one training step."""
    return jr.fold_in(jr.split(jr.key(config.seed), 3)[1], step)


def validation_key(config: TrainConfig, batch: Int[Array, ""]) -> PRNGKeyArray:
    """The key of one validation batch: the same at every validation, so that their losses compare."""
    return jr.fold_in(jr.split(jr.key(config.seed), 3)[2], batch)


def init_state(learner: AbstractLearner, config: TrainConfig, mesh: Mesh) -> TrainState:
    """A fresh state, drawn where it will live: no device ever holds more than its share."""
    with sharing_weights(mesh):
        return eqx.filter_jit(_build)(learner, config, mesh)


def abstract_state(learner: AbstractLearner, config: TrainConfig, mesh: Mesh) -> TrainState:
    """The shapes and shardings of `init_state`, without drawing anything."""
    return abstract_weights(mesh, eqx.filter_eval_shape(_build, learner, config, mesh))


def carried(state: TrainState, learner: AbstractLearner, config: TrainConfig, mesh: Mesh) -> TrainState:
    """A state as a run's program carries it, whose large arrays are those of the state.

    On CPU devices of one process the average is packed, and what is like the weights in the memory if the learner says
    so; elsewhere it is the state itself.
    """
    weights = eqx.filter(state.denoiser, eqx.is_inexact_array)
    packing, of_average = packing_of(weights), packing_of(state.ema)
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    if packing is None or of_average is None or not on_cpu or mesh.shape[FSDP] > 1 or jax.process_count() > 1:
        return state

    def like_the_weights(part: PyTree) -> bool:
        return packing_of(part) == packing

    def packed(part: PyTree) -> PyTree:
        return packing.put(part, replicated(mesh)) if like_the_weights(part) else part

    memory = state.opt_state
    if learner.packs(config):
        memory = jax.tree.map(packed, memory, is_leaf=like_the_weights)
    return dataclasses.replace(state, ema=of_average.put(state.ema, replicated(mesh)), opt_state=memory)


def as_trees(state: TrainState) -> TrainState:
    """The state that was `carried`."""
    return jax.tree.map(lambda part: part.fetch() if is_packed(part) else part, state, is_leaf=is_packed)


def _build(learner: AbstractLearner, config: TrainConfig, mesh: Mesh) -> TrainState:
    trained, memory = learner.build(init_key(config), config)
    state = TrainState(
        denoiser=trained,
        ema=trained,
        opt_state=memory,
        step=jnp.zeros((), jnp.int32),
        broken_at=jnp.full((), NEVER, jnp.int32),
        window_loss=jnp.zeros((), jnp.float32),
        window_steps=jnp.zeros((), jnp.int32),
    )
    return constrain_weights(mesh, state)
