"""What the trainer costs: images a second of a whole run, over those of its step alone in a plain `jax.jit`.

The two take turns inside one run, a stretch of steps each. Timed one after the other they may find the process's
memory in different states, which alone moved the ratio by a fifth: the blocks that a step frees are kept by the
allocator or given back to the system, by what was allocated before.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax

from asyncpatch.data import Digits
from asyncpatch.runs import Experiment, configure, open_batches
from asyncpatch.runs.cache import keep_compiled
from asyncpatch.shapes import NULL_LABEL
from asyncpatch.timesteps import AsyncPatch
from asyncpatch.train import RunConfig, make_mesh, read_metrics, train

STRETCH = 20
"""Steps of the one before the other's turn."""


def bench_trainer(name: str, size: int, batch: int, steps: int) -> None:
    """Print the ratio for one preset, from `steps` steps of each."""
    keep_compiled()
    experiment = configure(Digits(), name, AsyncPatch((1, 2, 4, 8)), pad_to=size, batch_size=batch)
    step = bare_step(experiment)
    step()
    bare = []

    def turn(at: int, denoiser: object) -> None:
        """Called between the trainer's stretches; its reports leave out this and the checkpoint before."""
        begun = time.perf_counter()
        for _ in range(STRETCH):
            step()
        bare.append(batch * STRETCH / (time.perf_counter() - begun))

    run = RunConfig(steps=max(3 * STRETCH, steps), log_every=STRETCH, checkpoint_every=10**9, sample_every=STRETCH)
    with tempfile.TemporaryDirectory() as folder:
        train(
            folder,
            experiment,
            experiment.training,
            run,
            experiment.learner,
            open_batches(experiment, 0)[0],
            make_mesh(),
            sample_callback=turn,
        )
        reports = read_metrics(Path(folder))
    trainer = [line["images_per_second"] for line in reports if "images_per_second" in line]
    # The first stretch of each is left out: memory and caches are not yet what they will be.
    ratios = [ours / theirs for ours, theirs in zip(trainer[1:], bare[1:], strict=False)]
    print(
        f"trainer, {name} at {size}x{size}, batch {batch}: {statistics.median(trainer[1:]):.0f} images/s, "
        f"{statistics.median(ratios):.3f} of the bare step's {statistics.median(bare[1:]):.0f} "
        f"(from {min(ratios):.3f} to {max(ratios):.3f})"
    )


def bare_step(experiment: Experiment) -> Callable[[], None]:
    """Loss, gradient, the run's optimiser, average of weights and guard, on arrays and one batch that never changes."""
    config = experiment.training
    optimizer = config.optimizer.build()
    host = open_batches(experiment, 0)[0].batch(0)
    image, label = jnp.asarray(host["image"]), jnp.asarray(host["label"])
    weights, rest = eqx.partition(eqx.filter_jit(experiment.make_denoiser)(jr.key(0)), eqx.is_inexact_array)

    def loss(weights, key):
        def one(key, image, label):
            label_key, loss_key = jr.split(key)
            label = jnp.where(jr.bernoulli(label_key, config.label_dropout), NULL_LABEL, label)
            return experiment.training_loss(eqx.combine(weights, rest), loss_key, image, label)

        return jnp.mean(jax.vmap(one)(jr.split(key, len(label)), image, label))

    @partial(jax.jit, donate_argnums=0)
    def step(state, key):
        weights, average, moments, count = state
        value, slope = jax.value_and_grad(loss)(weights, jr.fold_in(key, count))
        finite = jnp.isfinite(value) & jnp.isfinite(optax.tree.norm(slope))
        with jax.numpy_dtype_promotion("standard"):
            updates, moved = optimizer.update(slope, moments, weights)
        new = eqx.apply_updates(weights, updates)
        decay = config.ema_decay_at(count)
        mixed = jax.tree.map(lambda old, now: decay * old + (1 - decay) * now, average, new)
        kept = jax.tree.map(partial(jnp.where, finite), (new, mixed, moved), (weights, average, moments))
        return (*kept, count + 1), value

    state = [(weights, jax.tree.map(jnp.copy, weights), optimizer.init(weights), jnp.int32(0))]
    key = jr.key(1)

    def once() -> None:
        state[0], value = step(state[0], key)
        jax.block_until_ready(value)

    return once
