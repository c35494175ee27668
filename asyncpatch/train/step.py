"""The train step, compiled once, and the validation step.

    learner     (denoiser, memory, batch n) -> denoiser, memory, loss      (`learner`, the one place with `jax.vmap`)
    average     ema <- decay_n ema + (1 - decay_n) denoiser

Invariant: a step whose loss or gradient is not finite changes nothing but `broken_at`, and so do all steps after it, so
the host may look late.
"""

import functools
from collections.abc import Callable
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from asyncpatch.shapes import Image, Label
from asyncpatch.train.batch import Batch
from asyncpatch.train.flat import Rest, flatten, unflatten
from asyncpatch.train.learner import AbstractLearner, Turn
from asyncpatch.train.mesh import constrain_weights, replicated, sharing_weights
from asyncpatch.train.microbatches import image_keys
from asyncpatch.train.packed import Packed
from asyncpatch.train.settings import TrainConfig
from asyncpatch.train.state import NEVER, TrainState, as_trees, carried, step_key, validation_key

ErrorsFunction = Callable[
    [PyTree, PRNGKeyArray, Image, Label], tuple[Float[Array, "height width"], Float[Array, "height width"]]
]
"""`(denoiser, key, image, label) -> (t, error)`: every token's noise time, and its error, whose mean is the loss."""

TIME_BINS = 5
"""Equal parts of [0, 1] by which the validation loss is told apart: enough to see which times are hard."""


class StepInputs(eqx.Module):
    """All that a train step reads and does not change."""

    batch: Batch
    learner: AbstractLearner
    config: TrainConfig
    log_every: int
    mesh: Mesh


class StepMetrics(eqx.Module):
    """What a step reports. `loss` is the mean since the last report; the others are this step's.

    `details` are the learner's own numbers, by name.
    """

    loss: Float[Array, ""]
    gradient_norm: Float[Array, ""]
    learning_rate: Float[Array, ""]
    broken_at: Int[Array, ""]
    details: dict[str, Float[Array, ""]]


FEWER_PASSES = {"xla_backend_optimization_level": 1}
"""Of LLVM, which writes a CPU's machine code: as fast a step, sooner compiled."""

FlatStep = Callable[[list[Array], Batch], tuple[list[Array], StepMetrics]]
"""A train step on the arrays of a state, as `flatten` lists them. The buffers of the list are reused for the result."""


@functools.lru_cache(maxsize=8)
def flat_train_step(rest: Rest, learner: AbstractLearner, config: TrainConfig, log_every: int, mesh: Mesh) -> FlatStep:
    """The program of all steps of a run: nothing but arrays and a batch is looked at when it is called.

    `rest` is that of a state, `carried` or as it is.
    """

    def train_step(arrays: list[Array], batch: Batch) -> tuple[list[Array], StepMetrics]:
        state, metrics = _update(StepInputs(batch, learner, config, log_every, mesh), unflatten(arrays, rest))
        return flatten(state)[0], metrics

    return jax.jit(train_step, donate_argnums=0, compiler_options=_compiler_options(mesh))


def train_step(inputs: StepInputs, state: TrainState) -> tuple[TrainState, StepMetrics]:
    """One update. The buffers of `state` are reused for the result: do not touch it afterwards."""
    arrays, rest = flatten(carried(state, inputs.learner, inputs.config, inputs.mesh))
    step = flat_train_step(rest, inputs.learner, inputs.config, inputs.log_every, inputs.mesh)
    arrays, metrics = step(arrays, inputs.batch)
    return as_trees(unflatten(arrays, rest)), metrics


def _update(inputs: StepInputs, state: TrainState) -> tuple[TrainState, StepMetrics]:
    config, step = inputs.config, state.step
    turn = Turn(inputs.batch, step_key(config, step), step, config, inputs.mesh)
    moved = inputs.learner.update(state.denoiser, state.opt_state, turn)
    finite = jnp.isfinite(moved.loss) & jnp.isfinite(moved.gradient_norm) & (state.broken_at == NEVER)
    # Without the barrier XLA writes what these two are made of into the update of each weight, again and again.
    finite, decay = jax.lax.optimization_barrier((finite, config.ema_decay_at(step)))

    kept = partial(_select, finite)
    window_loss, window_steps = state.window_loss + moved.loss, state.window_steps + 1
    reported = (step + 1) % inputs.log_every == 0
    # The average reads the weights that are kept, so that XLA writes these in the place of the old ones, uncopied.
    denoiser = kept(moved.trained, state.denoiser)
    state = TrainState(
        denoiser=denoiser,
        ema=kept(_average(state.ema, denoiser, decay), state.ema),
        opt_state=kept(moved.memory, state.opt_state),
        step=kept(step + 1, step),
        broken_at=kept(state.broken_at, step),  # which does not move any more
        window_loss=kept(jnp.where(reported, 0.0, window_loss), state.window_loss),
        window_steps=kept(jnp.where(reported, 0, window_steps), state.window_steps),
    )
    state = constrain_weights(inputs.mesh, state)
    metrics = StepMetrics(
        loss=window_loss / window_steps.astype(jnp.float32),
        gradient_norm=moved.gradient_norm,
        learning_rate=config.learning_rate_at(step),
        broken_at=state.broken_at,
        details=moved.details,
    )
    return state, jax.lax.with_sharding_constraint(metrics, replicated(inputs.mesh))


class BatchErrors(eqx.Module):
    """Of a validation batch: the mean loss, and by noise time the sum of the tokens' errors and their number."""

    loss: Float[Array, ""]
    sums: Float[Array, " bins"]
    counts: Int[Array, " bins"]


@functools.lru_cache(maxsize=8)
def flat_validation_step(rest: Rest, errors_fn: ErrorsFunction, config: TrainConfig, mesh: Mesh) -> Callable:
    """The program that gives the errors of a validation batch: the arrays of a denoiser, the batch and its number.

    Every label is kept, and a batch has the same keys each time.
    """

    def validation_step(arrays: list[Array], batch: Batch, number: Int[Array, ""]) -> BatchErrors:
        keys = image_keys(validation_key(config, number), batch.index)
        with sharing_weights(mesh):
            t, error = jax.vmap(partial(errors_fn, unflatten(arrays, rest)))(keys, batch.image, batch.label)
        part = jnp.minimum((t * TIME_BINS).astype(jnp.int32), TIME_BINS - 1)
        inside = jax.nn.one_hot(part, TIME_BINS, dtype=bool)
        tokens = tuple(range(t.ndim))
        found = BatchErrors(jnp.mean(error), jnp.where(inside, error[..., None], 0.0).sum(tokens), inside.sum(tokens))
        return jax.lax.with_sharding_constraint(found, replicated(mesh))

    return jax.jit(validation_step, compiler_options=_compiler_options(mesh))


def _compiler_options(mesh: Mesh) -> dict[str, int]:
    """Of a program for this mesh; none where JAX is told to optimise even less."""
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    return FEWER_PASSES if on_cpu and not jax.config.values["jax_disable_most_optimizations"] else {}


def _average(ema: PyTree, denoiser: PyTree, decay: Float[Array, ""]) -> PyTree:
    def move(average, weight):
        return decay * average + (1 - decay) * weight if eqx.is_inexact_array(average) else weight

    return jax.tree.map(move, ema, ema.packing.pack(denoiser) if isinstance(ema, Packed) else denoiser)


def _select(condition, accepted: PyTree, refused: PyTree) -> PyTree:
    def choose(new, old):
        return jnp.where(condition, new, old) if eqx.is_array(new) else new

    return jax.tree.map(choose, accepted, refused)
