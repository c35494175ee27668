"""The loss of the averaged denoiser on held-out images, in all and by noise time.

One number hides what a network is bad at: nearly clean and nearly noisy tokens have losses of their own, which fall at
their own pace. Invariants: the images, their time fields and their noise are the same at every validation of a run; a
part of [0, 1] in which no token fell has no entry.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from asyncpatch.train.batch import BatchSource, check_batch, put_batch
from asyncpatch.train.flat import flatten
from asyncpatch.train.record import VALIDATION_LOSS
from asyncpatch.train.settings import RunConfig, TrainConfig
from asyncpatch.train.state import NonFiniteLossError, TrainState
from asyncpatch.train.step import TIME_BINS, ErrorsFunction, flat_validation_step

BY_TIME = f"{VALIDATION_LOSS}_by_time"
"""What the names of losses by noise time begin with: `validation_loss_by_time/0.2-0.4`."""


@dataclasses.dataclass(frozen=True)
class Validation:
    """Held-out data, and the errors to measure on it: their mean is the loss of training, with dropout off."""

    data: BatchSource
    errors_fn: ErrorsFunction

    def rehearse(self, state: TrainState, config: TrainConfig, mesh: Mesh) -> None:
        """Raise what measuring the first batch would raise, but compute nothing."""
        arrays, rest = flatten(state.ema)
        host = self.data.batch(0)
        check_batch(host, 0, config.num_classes, mesh.size)
        measure = flat_validation_step(rest, self.errors_fn, config, mesh)
        jax.eval_shape(measure, arrays, put_batch(host, mesh), jnp.int32(0))

    def measure(self, state: TrainState, config: TrainConfig, mesh: Mesh, run: RunConfig) -> dict[str, float]:
        """Losses over the first batches of the data, by the names that they have in a run's metrics.

        Raises `NonFiniteLossError` if the loss is not finite.
        """
        arrays, rest = flatten(state.ema)
        measure = flat_validation_step(rest, self.errors_fn, config, mesh)
        losses, sums, counts = [], np.zeros(TIME_BINS), np.zeros(TIME_BINS)
        for number in range(run.validation_batches):
            host = self.data.batch(number)
            check_batch(host, number, config.num_classes, mesh.size)
            found = measure(arrays, put_batch(host, mesh), jnp.int32(number))
            losses.append(float(found.loss))
            sums += np.asarray(found.sums)
            counts += np.asarray(found.counts)
        mean = math.fsum(losses) / len(losses)
        if not math.isfinite(mean):
            at = [number for number, loss in enumerate(losses) if not math.isfinite(loss)]
            raise NonFiniteLossError(
                f"the validation loss at step {int(state.step)} is {mean}, from validation batches {at}"
            )
        by_time = {
            f"{BY_TIME}/{number / TIME_BINS:g}-{(number + 1) / TIME_BINS:g}": float(sums[number] / counts[number])
            for number in np.flatnonzero(counts)
        }
        return {VALIDATION_LOSS: mean} | by_time
