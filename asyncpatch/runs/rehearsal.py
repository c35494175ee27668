"""A run's programs, tried before anything is computed and before its data is opened.

They are traced on shapes alone, as JAX does before it compiles: what does not fit together (the loss and the schedule,
the law of times and the size of an image, an order of generation and its steps) is found in seconds, and not by the
first picture after hours of training.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr

from asyncpatch import pictures
from asyncpatch.process import FiniteDenoiser
from asyncpatch.runs.experiment import Experiment
from asyncpatch.runs.sampling import SamplingConfig, four_tasks, labels_in_turn, run_task
from asyncpatch.shapes import NULL_LABEL


def rehearse_training(experiment: Experiment) -> None:
    """Raise what the training loss would raise, and with it the validation loss, which is the same without dropout."""
    experiment.weighting.check(experiment.schedule)
    image, label = jnp.zeros(experiment.data.shape), jnp.asarray(NULL_LABEL, jnp.int32)
    # The denoiser with shapes in the place of its arrays.
    denoiser = eqx.filter_eval_shape(experiment.make_denoiser, jax.eval_shape(lambda: jr.key(0)))
    eqx.filter_eval_shape(experiment.training_loss, denoiser, jr.key(0), image, label)


def rehearse_sampling(experiment: Experiment, config: SamplingConfig) -> None:
    """Raise what drawing samples would raise; the network has been tried with the loss."""
    image = jnp.zeros((2, *experiment.data.shape))
    label = labels_in_turn(2, experiment.network.num_classes)
    # Quickly traced, and as good as the network here.
    denoiser = FiniteDenoiser(image, experiment.schedule)
    for task in four_tasks(config, *experiment.data.shape[:2]).values():
        eqx.filter_eval_shape(lambda denoiser, task=task: run_task(denoiser, task, config, image, label), denoiser)
    pictures.grid(image, columns=1)
