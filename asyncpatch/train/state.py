"""What training carries from step to step; a checkpoint holds all of it.

The random key of a step and the position in the data are functions of `TrainConfig.seed` and `step`, so saving
`step` saves both, and no key is ever stored.
"""

from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from asyncpatch.train.mesh import abstract_weights, constrain_weights
from asyncpatch.train.settings import TrainConfig

NEVER = -1
"""The value of `TrainState.broken_at` while every step has been finite."""

MakeDenoiser = Callable[[PRNGKeyArray], PyTree]
"""Builds a denoiser with fresh weights from a key."""


class NonFiniteLossError(RuntimeError):
    """A loss or its gradient was not finite."""


class TrainState(eqx.Module):
    """Denoiser, its moving average, the optimiser's moments and the number of updates made.

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


def init_state(make_denoiser: MakeDenoiser, config: TrainConfig, mesh: Mesh) -> TrainState:
    """A fresh state, drawn where it will live: no device ever holds more than its share."""
    return eqx.filter_jit(_build)(make_denoiser, config, mesh)


def abstract_state(make_denoiser: MakeDenoiser, config: TrainConfig, mesh: Mesh) -> TrainState:
    """The shapes and shardings of `init_state`, without drawing anything."""
    return abstract_weights(mesh, eqx.filter_eval_shape(_build, make_denoiser, config, mesh))


def _build(make_denoiser: MakeDenoiser, config: TrainConfig, mesh: Mesh) -> TrainState:
    denoiser = make_denoiser(init_key(config))
    state = TrainState(
        denoiser=denoiser,
        ema=denoiser,
        opt_state=config.optimizer.build().init(eqx.filter(denoiser, eqx.is_inexact_array)),
        step=jnp.zeros((), jnp.int32),
        broken_at=jnp.full((), NEVER, jnp.int32),
        window_loss=jnp.zeros((), jnp.float32),
        window_steps=jnp.zeros((), jnp.int32),
    )
    return constrain_weights(mesh, state)
