"""The train step, compiled once, and the validation step.

    loss        mean over the batch of loss_fn(denoiser, key_i, image_i, label_i)
    update      clip(gradient) -> Adam -> denoiser;   ema <- decay_n ema + (1 - decay_n) denoiser

This is one of the two places with `jax.vmap` over images. Invariants: image `i` of step `n` sees the key
`fold_in(step_key(n), i)`, whatever devices, processes and microbatches share the batch; a step whose loss or
gradient is not finite changes nothing but `broken_at`, and so do all steps after it, so the host may look late.
"""

import functools
from collections.abc import Callable
from functools import partial
from operator import itemgetter

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray, PyTree

from asyncpatch.shapes import NULL_LABEL, Image, Label
from asyncpatch.sharding import forgets_gathered
from asyncpatch.train.batch import Batch
from asyncpatch.train.flat import Rest, flatten, unflatten
from asyncpatch.train.mesh import constrain_weights, microbatch_sharding, replicated, sharing_weights
from asyncpatch.train.settings import TrainConfig
from asyncpatch.train.state import NEVER, TrainState, step_key, validation_key

LossFunction = Callable[[PyTree, PRNGKeyArray, Image, Label], Float[Array, ""]]
"""`(denoiser, key, image, label) -> loss` of one image; draws its time field and noise from the key."""


ErrorsFunction = Callable[
    [PyTree, PRNGKeyArray, Image, Label], tuple[Float[Array, "height width"], Float[Array, "height width"]]
]
"""`(denoiser, key, image, label) -> (t, error)`: every token's noise time, and its error, whose mean is the loss."""

TIME_BINS = 5
"""Equal parts of [0, 1] by which the validation loss is told apart: enough to see which times are hard."""


class StepInputs(eqx.Module):
    """All that a train step reads and does not change."""

    batch: Batch
    loss_fn: LossFunction
    config: TrainConfig
    log_every: int
    mesh: Mesh


class StepMetrics(eqx.Module):
    """What a step reports. `loss` is the mean since the last report; the others are this step's."""

    loss: Float[Array, ""]
    gradient_norm: Float[Array, ""]
    learning_rate: Float[Array, ""]
    broken_at: Int[Array, ""]


FlatStep = Callable[[list[Array], Batch], tuple[list[Array], StepMetrics]]
"""A train step on the arrays of a state, as `flatten` lists them. The buffers of the list are reused for the result."""


@functools.lru_cache(maxsize=8)
def flat_train_step(rest: Rest, loss_fn: LossFunction, config: TrainConfig, log_every: int, mesh: Mesh) -> FlatStep:
    """The program of all steps of a run: nothing but arrays and a batch is looked at when it is called."""

    def train_step(arrays: list[Array], batch: Batch) -> tuple[list[Array], StepMetrics]:
        state, metrics = _update(StepInputs(batch, loss_fn, config, log_every, mesh), unflatten(arrays, rest))
        return flatten(state)[0], metrics

    return jax.jit(train_step, donate_argnums=0)


def train_step(inputs: StepInputs, state: TrainState) -> tuple[TrainState, StepMetrics]:
    """One update. The buffers of `state` are reused for the result: do not touch it afterwards."""
    arrays, rest = flatten(state)
    step = flat_train_step(rest, inputs.loss_fn, inputs.config, inputs.log_every, inputs.mesh)
    arrays, metrics = step(arrays, inputs.batch)
    return unflatten(arrays, rest), metrics


def _update(inputs: StepInputs, state: TrainState) -> tuple[TrainState, StepMetrics]:
    config, step = inputs.config, state.step
    loss, gradients = _loss_and_gradients(inputs, state)
    gradient_norm = optax.tree.norm(gradients)
    finite = jnp.isfinite(loss) & jnp.isfinite(gradient_norm) & (state.broken_at == NEVER)

    # optax 0.2.8 mixes int32 and float32 in Adam's bias correction, which strict promotion refuses.
    with jax.numpy_dtype_promotion("standard"):
        weights = eqx.filter(state.denoiser, eqx.is_inexact_array)
        updates, opt_state = config.optimizer.build().update(gradients, state.opt_state, weights)
    denoiser = eqx.apply_updates(state.denoiser, updates)
    window_loss, window_steps = state.window_loss + loss, state.window_steps + 1
    reported = (step + 1) % inputs.log_every == 0
    moved = TrainState(
        denoiser=denoiser,
        ema=_average(state.ema, denoiser, config.ema_decay_at(step)),
        opt_state=opt_state,
        step=step + 1,
        broken_at=state.broken_at,
        window_loss=jnp.where(reported, 0.0, window_loss),
        window_steps=jnp.where(reported, 0, window_steps),
    )
    stayed = eqx.tree_at(lambda s: s.broken_at, state, jnp.where(state.broken_at == NEVER, step, state.broken_at))
    state = constrain_weights(inputs.mesh, _select(finite, moved, stayed))
    metrics = StepMetrics(
        loss=window_loss / window_steps.astype(jnp.float32),
        gradient_norm=gradient_norm,
        learning_rate=config.optimizer.learning_rate_at(step),
        broken_at=state.broken_at,
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
        keys = _image_keys(validation_key(config, number), batch.index)
        with sharing_weights(mesh):
            t, error = jax.vmap(partial(errors_fn, unflatten(arrays, rest)))(keys, batch.image, batch.label)
        part = jnp.minimum((t * TIME_BINS).astype(jnp.int32), TIME_BINS - 1)
        inside = jax.nn.one_hot(part, TIME_BINS, dtype=bool)
        tokens = tuple(range(t.ndim))
        found = BatchErrors(jnp.mean(error), jnp.where(inside, error[..., None], 0.0).sum(tokens), inside.sum(tokens))
        return jax.lax.with_sharding_constraint(found, replicated(mesh))

    return jax.jit(validation_step)


def _loss_and_gradients(inputs: StepInputs, state: TrainState) -> tuple[Float[Array, ""], PyTree]:
    """Mean loss and gradient of the batch, one microbatch after the other."""
    key = step_key(inputs.config, state.step)
    trainable, rest = eqx.partition(state.denoiser, eqx.is_inexact_array)

    def image_loss(denoiser: PyTree, key: PRNGKeyArray, image: Image, label: Label) -> Float[Array, ""]:
        label_key, loss_key = jr.split(key)
        dropped = jr.bernoulli(label_key, inputs.config.label_dropout)
        return inputs.loss_fn(denoiser, loss_key, image, jnp.where(dropped, NULL_LABEL, label))

    def batch_loss(trainable: PyTree, batch: Batch) -> Float[Array, ""]:
        per_image = partial(image_loss, eqx.combine(trainable, rest))
        return jnp.mean(jax.vmap(per_image)(_image_keys(key, batch.index), batch.image, batch.label))

    def add(total, batch: Batch):
        with sharing_weights(inputs.mesh):
            part = jax.value_and_grad(forgets_gathered(batch_loss))(trainable, batch)
        return constrain_weights(inputs.mesh, jax.tree.map(jnp.add, total, part))

    parts = inputs.config.accumulation
    total = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, trainable))
    on_cpu = inputs.mesh.devices.flat[0].platform == "cpu"
    accumulate = add_written_out if on_cpu else add_in_a_loop
    total = accumulate(add, total, _microbatches(inputs.batch, parts, inputs.mesh))
    return jax.tree.map(lambda sums: sums / parts, total)


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


def _microbatches(batch: Batch, parts: int, mesh: Mesh) -> Batch:
    """Deal the images to `parts` microbatches in turn, which moves none of them to another device."""

    def deal(array):
        dealt = jnp.swapaxes(array.reshape(-1, parts, *array.shape[1:]), 0, 1)
        return jax.lax.with_sharding_constraint(dealt, microbatch_sharding(mesh))

    return jax.tree.map(deal, batch)


def _image_keys(key: PRNGKeyArray, index: Int[Array, " batch"]) -> Key[Array, " batch"]:
    return jax.vmap(partial(jr.fold_in, key))(index)


def _average(ema: PyTree, denoiser: PyTree, decay: Float[Array, ""]) -> PyTree:
    def move(average, weight):
        return decay * average + (1 - decay) * weight if eqx.is_inexact_array(average) else weight

    return jax.tree.map(move, ema, denoiser)


def _select(condition, accepted: PyTree, refused: PyTree) -> PyTree:
    def choose(new, old):
        return jnp.where(condition, new, old) if eqx.is_array(new) else new

    return jax.tree.map(choose, accepted, refused)
