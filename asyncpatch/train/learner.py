"""What is trained, as an object with its own update; and the usual one, whose loss is a mean over images.

Loop, checkpoints, guard, moving average and mesh know nothing of losses. A learner says what is built, and how one
batch moves it. Invariant: image `i` of a step sees a key that is a function of the step and of `i` alone, whatever
devices, processes and microbatches share the batch.
"""

import abc
import dataclasses
from collections.abc import Callable
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from asyncpatch.shapes import NULL_LABEL, Image, Label
from asyncpatch.train.batch import Batch
from asyncpatch.train.microbatches import image_keys, summed
from asyncpatch.train.optimizers import AbstractOptimizerConfig
from asyncpatch.train.packed import Packed, packed_like
from asyncpatch.train.settings import TrainConfig

Make = Callable[[PRNGKeyArray], PyTree]
"""Builds what is trained, with fresh weights from a key."""

LossFunction = Callable[[PyTree, PRNGKeyArray, Image, Label], Float[Array, ""]]
"""`(denoiser, key, image, label) -> loss` of one image; draws its time field and noise from the key."""


class Turn(eqx.Module):
    """What one step gives a learner: the batch, the step's key and number, and where and how the work is done."""

    batch: Batch
    key: PRNGKeyArray
    step: Int[Array, ""]
    config: TrainConfig = eqx.field(static=True)
    mesh: Mesh = eqx.field(static=True)


class Moved(eqx.Module):
    """What a learner makes of a turn. `details` are further numbers of this step for the log, by name.

    If `loss` or `gradient_norm` is not finite, nothing of it is kept.
    """

    trained: PyTree
    memory: PyTree
    loss: Float[Array, ""]
    gradient_norm: Float[Array, ""]
    details: dict[str, Float[Array, ""]]


class AbstractLearner(abc.ABC):
    """What is trained, and how a batch moves it.

    To write one more: a frozen dataclass that is hashable, as equal learners share one compiled program; `build`, whose
    first part is what is trained, averaged and opened again, and whose second, the memory, is all else that must go on
    after a resume; and `update`, which works off `turn.config.accumulation` microbatches by `summed`. Both trees have
    the same structure and types before and after. If all of the memory that is like the weights goes through `descend`,
    let `packs` say so. Enrol it in `LEARNERS` of `tests/test_learners.py`.
    """

    @abc.abstractmethod
    def build(self, key: PRNGKeyArray, config: TrainConfig) -> tuple[PyTree, PyTree]:
        """What is trained, with fresh weights, and the memory."""

    @abc.abstractmethod
    def update(self, trained: PyTree, memory: PyTree, turn: Turn) -> Moved:
        """Both after one batch. Runs inside `jit`."""

    def packs(self, config: TrainConfig) -> bool:
        """Whether parts of the memory that are like the weights may come packed, as `descend` can take them."""
        return False


@dataclasses.dataclass(frozen=True)
class Descent(AbstractLearner):
    """Descends the mean over images of one loss; its memory is that of the optimiser. Labels are dropped at random."""

    make: Make
    loss_fn: LossFunction

    def build(self, key: PRNGKeyArray, config: TrainConfig) -> tuple[PyTree, PyTree]:
        trained = self.make(key)
        return trained, config.optimizer.build().init(eqx.filter(trained, eqx.is_inexact_array))

    def update(self, trained: PyTree, memory: PyTree, turn: Turn) -> Moved:
        loss, gradients = self._loss_and_gradients(trained, turn)
        gradients = packed_like(memory, gradients)
        moved, memory = descend(turn, turn.config.optimizer, trained, gradients, memory)
        return Moved(moved, memory, loss, optax.tree.norm(gradients), {})

    def packs(self, config: TrainConfig) -> bool:
        return config.optimizer.elementwise

    def _loss_and_gradients(self, trained: PyTree, turn: Turn) -> tuple[Float[Array, ""], PyTree]:
        """Mean loss and gradient of the batch."""
        trainable, rest = eqx.partition(trained, eqx.is_inexact_array)

        def image_loss(denoiser: PyTree, key: PRNGKeyArray, image: Image, label: Label) -> Float[Array, ""]:
            label_key, loss_key = jr.split(key)
            dropped = jr.bernoulli(label_key, turn.config.label_dropout)
            return self.loss_fn(denoiser, loss_key, image, jnp.where(dropped, NULL_LABEL, label))

        def batch_loss(trainable: PyTree, batch: Batch) -> Float[Array, ""]:
            per_image = partial(image_loss, eqx.combine(trainable, rest))
            return jnp.mean(jax.vmap(per_image)(image_keys(turn.key, batch.index), batch.image, batch.label))

        parts = turn.config.accumulation
        zeros = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, trainable))
        total = summed(
            lambda batch: jax.value_and_grad(batch_loss)(trainable, batch),
            zeros,
            turn.batch,
            parts,
            turn.mesh,
        )
        return jax.tree.map(lambda sums: sums / parts, total)


def descend(
    turn: Turn, optimizer: AbstractOptimizerConfig, weights: PyTree, gradients: PyTree, memory: PyTree
) -> tuple[PyTree, PyTree]:
    """The weights and the optimiser's memory after one update, which the run's cooldown shortens.

    The gradients are packed as the memory is (`packed_like`).
    """
    trainable = packed_like(memory, eqx.filter(weights, eqx.is_inexact_array))
    # optax 0.2.8 mixes int32 and float32 in Adam's bias correction, which strict promotion refuses.
    with jax.numpy_dtype_promotion("standard"):
        updates, memory = optimizer.build().update(gradients, memory, trainable)
    if turn.config.cooldown is not None:
        factor = turn.config.cooldown.factor_at(turn.step)
        updates = jax.tree.map(lambda update: factor.astype(update.dtype) * update, updates)
    if isinstance(updates, Packed):
        updates = updates.unpack()
    return eqx.apply_updates(weights, updates), memory
