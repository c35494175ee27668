"""What the trainer costs: images a second of a whole run, over those of its step alone in a plain `jax.jit`."""

import json
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
from asyncpatch.runs import Experiment, configure, open_batches, train_run
from asyncpatch.shapes import NULL_LABEL
from asyncpatch.timesteps import AsyncPatch
from asyncpatch.train import RunConfig

LOG_EVERY = 20
"""Steps between two reports of a speed."""


def bench_trainer(name: str, size: int, batch: int, steps: int) -> None:
    """Print the ratio for one preset: the bare step is timed before and after the run, as machines drift."""
    experiment = configure(Digits(), name, AsyncPatch((1, 2, 4, 8)), pad_to=size, batch_size=batch)
    step = bare_step(experiment)
    before = _rate(step, batch, steps)
    run = RunConfig(steps=steps, log_every=LOG_EVERY, checkpoint_every=10**9, sample_every=10**9, validation_batches=1)
    with tempfile.TemporaryDirectory() as folder:
        train_run(Path(folder), experiment, run)
        lines = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    trainer = statistics.median(line["images_per_second"] for line in lines if "images_per_second" in line)
    bare = (before + _rate(step, batch, steps)) / 2
    print(
        f"trainer, {name} at {size}x{size}, batch {batch}: {trainer:.0f} images/s, "
        f"{trainer / bare:.3f} of the bare step's {bare:.0f}"
    )


def bare_step(experiment: Experiment) -> Callable[[], None]:
    """Loss, gradient, clipped Adam, average of weights and guard, on arrays and one batch that never changes."""
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
            updates, moved = optimizer.update(slope, moments)
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


def _rate(step: Callable[[], None], batch: int, steps: int) -> float:
    """Images a second: the median over stretches as long as the trainer reports."""
    step()
    rates = []
    for _ in range(max(1, steps // LOG_EVERY)):
        begun = time.perf_counter()
        for _ in range(LOG_EVERY):
            step()
        rates.append(batch * LOG_EVERY / (time.perf_counter() - begun))
    return statistics.median(rates)
