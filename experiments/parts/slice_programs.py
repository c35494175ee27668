"""The programs that a run on a slice is made of, on shapes alone: what training and sampling call, no copy of it.

A program is traced for a mesh of chips that need not be there. Its FLOPs are counted twice, from the shapes of its
matrix products and convolutions: those of the network as its user counts them (a gradient is two more forward passes),
and those of the program as written, with all that is recomputed to save memory.
"""

import dataclasses
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.sharding import Mesh

from asyncpatch.data import AbstractSource
from asyncpatch.data.base import InMemoryRecords
from asyncpatch.nn import NetworkDenoiser
from asyncpatch.plans import FixedPlan, Task
from asyncpatch.runs import (
    AutoencoderExperiment,
    DataConfig,
    Experiment,
    configure,
    configure_autoencoder,
    guide,
)
from asyncpatch.sampling import DDIM, sample
from asyncpatch.timesteps import AsyncPatch
from asyncpatch.train import Batch, RunConfig
from asyncpatch.train.flat import flatten_shapes, unflatten
from asyncpatch.train.mesh import abstract_weights, batch_sharding, replicated, sharing_weights
from asyncpatch.train.state import abstract_state
from asyncpatch.train.step import flat_train_step
from experiments.parts.bench_layers import products

SIDE, CHANNELS, CLASSES = 64, 3, 1000
"""ImageNet at 64x64 pixels, and its latents at 256x256 with four times fewer rows and columns: the same shape."""

PATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)
"""Of AsyncPatch's times: from a pixel to the image."""

STEPS, GUIDANCE, FRESH_NOISE = 250, 1.5, 0.5
"""Of sampling, as the paper samples: 250 steps, with both branches of guidance by the label."""

FORWARD_PASSES = 3
"""That a loss and its gradient cost: one forward, two backward (by the input and by the weights)."""


@dataclasses.dataclass(frozen=True)
class Blank(AbstractSource):
    """Black images: all that the config of a run reads off its data is their shape and the number of classes."""

    side: int
    channels: int
    classes: int

    def open(self) -> InMemoryRecords:
        return InMemoryRecords(
            shape=(self.side, self.side, self.channels),
            class_names=tuple(str(label) for label in range(self.classes)),
            images=np.zeros((1, self.side, self.side, self.channels), np.uint8),
            labels=np.zeros(1, np.int32),
        )


@dataclasses.dataclass(frozen=True)
class Traced:
    """A program before it is compiled, with its FLOPs over all devices."""

    lowered: jax.stages.Lowered
    network_flops: float
    program_flops: float
    parameters: int


AUTOENCODER_SIDES = {"photographs-64": 64, "paper-256": 256}
"""Of the images that the presets of autoencoders are for."""

AUTOENCODER_BATCH = 256
"""Images of a step of an autoencoder, unless told otherwise."""


def experiment_of(
    preset: str, batch_size: int | None, accumulation: int, compute_dtype: str | None, source: AbstractSource
) -> Experiment | AutoencoderExperiment:
    """A run of a preset as training configures it, the paper's law of times included."""
    if preset in AUTOENCODER_SIDES:
        blank = Blank(AUTOENCODER_SIDES[preset], CHANNELS, CLASSES)
        size = AUTOENCODER_BATCH if batch_size is None else batch_size
        return configure_autoencoder(blank, preset, batch_size=size, accumulation=accumulation, flip=True)
    side = source.open().shape[0]
    law = AsyncPatch(tuple(size for size in PATCH_SIZES if size <= side))
    return configure(
        source, preset, law, batch_size=batch_size, accumulation=accumulation, compute_dtype=compute_dtype, flip=True
    )


def train_program(experiment: Experiment | AutoencoderExperiment, mesh: Mesh) -> Traced:
    """One step of training: loss, gradient, optimiser, average and guard.

    An autoencoder's losses take several passes through two networks, so that what its program computes is all that is
    said of it. Raises `ValueError` for a batch that the devices cannot share.
    """
    data, config = experiment.data, experiment.training
    batch, parts = data.batch_size, config.accumulation * mesh.size
    if batch % parts:
        raise ValueError(
            f"a batch of {batch} images cannot be split into {parts} equal parts ({config.accumulation} "
            f"microbatches times {mesh.size} chips); give a multiple"
        )
    learner = experiment.learner if isinstance(experiment, Experiment) else experiment.learner()
    state = abstract_state(learner, config, mesh)
    arrays, rest = flatten_shapes(state)
    step = flat_train_step(rest, learner, config, RunConfig().log_every, mesh)
    inputs = arrays, _batch(data, mesh)
    lowered = step.lower(*inputs)  # type: ignore
    flops = _flops(step, *inputs)
    of_network = FORWARD_PASSES * batch * _forward_flops(experiment) if isinstance(experiment, Experiment) else flops
    return Traced(lowered, of_network, flops, _size(state.denoiser))


def sample_program(experiment: Experiment | AutoencoderExperiment, mesh: Mesh) -> Traced:
    """All steps of sampling a batch from noise, guided by the label."""
    if not isinstance(experiment, Experiment):
        raise ValueError("an autoencoder does not sample; leave out the program sample")
    batch = experiment.data.batch_size
    if batch % mesh.size:
        raise ValueError(f"a batch of {batch} images cannot be shared by {mesh.size} chips; give a multiple")
    shapes = eqx.filter_eval_shape(experiment.make_denoiser, jax.eval_shape(lambda: jr.key(0)))
    arrays, rest = flatten_shapes(abstract_weights(mesh, shapes))
    height, width, _ = experiment.data.shape
    times = jax.ShapeDtypeStruct((STEPS + 1, height, width), jnp.float32, sharding=replicated(mesh))

    def draw(arrays, key_data, times, image, label):
        denoiser = guide(unflatten(arrays, rest), GUIDANCE, 0.0, None, 0)
        key = jr.wrap_key_data(key_data)
        return sample(key, denoiser, Task(FixedPlan(times)), image, label, DDIM(FRESH_NOISE))

    key_data = jax.ShapeDtypeStruct((2,), jnp.uint32, sharding=replicated(mesh))
    given = _batch(experiment.data, mesh)
    inputs = arrays, key_data, times, given.image, given.label
    program = jax.jit(draw, out_shardings=batch_sharding(mesh))
    needed = 2 * STEPS * batch * _forward_flops(experiment)
    with sharing_weights(mesh):
        lowered = program.lower(*inputs)
    return Traced(lowered, needed, _flops(program, *inputs), _size(shapes))


PROGRAMS: dict[str, Callable[[Experiment | AutoencoderExperiment, Mesh], Traced]] = {
    "train": train_program,
    "sample": sample_program,
}
"""What can be compiled, by the name that the command has for it."""


def _batch(data: DataConfig, mesh: Mesh) -> Batch:
    """The shapes of a batch, each with its sharding."""
    count = data.batch_size

    def zeros() -> Batch:
        return Batch(jnp.zeros((count, *data.shape)), *(jnp.zeros(count, jnp.int32) for _ in range(2)))

    def place(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=batch_sharding(mesh))

    return jax.tree.map(place, jax.eval_shape(zeros))


def _forward_flops(experiment: Experiment) -> float:
    """Of the network's velocity for one image."""
    shapes = eqx.filter_eval_shape(experiment.make_denoiser, jax.eval_shape(lambda: jr.key(0)))
    arrays, rest = flatten_shapes(shapes)

    def velocity(arrays, z, t, label):
        denoiser: NetworkDenoiser = unflatten(arrays, rest)
        return denoiser.network(z, t, label)

    height, width, channels = experiment.data.shape
    z, t = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((height, width, channels), (height, width)))
    return _flops(velocity, arrays, z, t, jax.ShapeDtypeStruct((), jnp.int32))


def _flops(function: Callable, *arguments) -> float:
    """Of all products and convolutions, loops counted as often as they run."""
    return sum(product.count * product.flops for product in products(function, *arguments))


def _size(tree: object) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree) if hasattr(leaf, "size"))
