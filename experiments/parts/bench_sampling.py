"""Images a second of every way of sampling, and how they depend on the batch.

What guidance costs is printed beside its floor: one call of the network on the batches that its looks make. On two
cores the network is linear in the batch from 32 images on, and a second look costs as much as the first. Guidance by
the label costs less, as both looks are at the same times, which then go through the network's time features once.
"""

import statistics
from collections.abc import Callable
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array

from asyncpatch.masks import Border
from asyncpatch.plans import Task, synchronous, with_strength
from asyncpatch.process import AbstractDenoiser
from asyncpatch.runs import Run, SamplingConfig, four_tasks, guide, open_run
from asyncpatch.sampling import DDIM, repaint, repaint_times, sample
from experiments.parts.in_turns import ratio, side_by_side

STEPS = 10
"""Network calls of an image here; RePaint makes more of them."""


GUIDED = {
    "generation": ("two branches by the label", 2),
    "inpainting": ("two branches by the input", 2),
    "outpainting": ("four branches by both", 4),
}
"""How a task is guided here, and by how many looks."""


def bench_sampling(batches: tuple[int, ...], rounds: int) -> None:
    """Print images a second of the model that comes with the package, by task and by batch. At least two rounds."""
    run = open_run("fashion")
    for batch in batches:
        calls = _calls(run, batch)
        networks = {f"network, {looks}": _network(run, looks * batch) for looks in (1, 2, 4)}
        seconds = side_by_side({name: partial(_wait, call) for name, call in (calls | networks).items()}, rounds)
        said = ", ".join(f"{name} {batch / statistics.median(seconds[name]):.1f}" for name in calls)
        print(f"sampling, {STEPS} steps, batch {batch}, images/s: {said}")
        for task, (guided, looks) in GUIDED.items():
            print(f"  {guided} / {task} = {ratio(seconds, guided, task)}")
            print(f"    of the network alone {ratio(seconds, f'network, {looks}', 'network, 1')}")


def _wait(call: Callable[[], Array]) -> None:
    jax.block_until_ready(call())


def _network(run: Run, batch: int) -> Callable[[], Array]:
    """One call on a batch, every pixel of which has its own time."""
    z_key, t_key = jr.split(jr.key(0))
    z, t = jr.normal(z_key, (batch, *run.image_shape)), jr.uniform(t_key, (batch, *run.image_shape[:2]))
    label = jnp.zeros(batch, jnp.int32)
    call = eqx.filter_jit(eqx.filter_vmap(lambda denoiser, z, t, label: denoiser(z, t, label), in_axes=(None, 0, 0, 0)))
    return lambda: call(run.denoiser, z, t, label).data


def _calls(run: Run, batch: int) -> dict[str, Callable[[], Array]]:
    height, width, _ = run.image_shape
    index = jnp.arange(batch) % len(run.examples.label)
    image, label = run.examples.image[index], run.examples.label[index]
    tasks = four_tasks(SamplingConfig(steps=STEPS, patch=8), height, width)
    known = Border()(jr.key(0), height, width)
    rule, key = DDIM(1.0), jr.key(0)
    guided = {
        "generation": guide(run.denoiser, 2.0, 0.0, 1.0, 0),
        "inpainting": guide(run.denoiser, 1.0, 1.0, 1.0, 0),
        "outpainting": guide(run.denoiser, 2.0, 1.0, 1.0, 0),
    }
    times = repaint_times(STEPS, 5, 2)

    def of(denoiser: AbstractDenoiser, task: Task) -> Callable[[], Array]:
        return lambda: sample(key, denoiser, task, image, label, rule)

    tasks["image to image"] = Task(with_strength(synchronous(STEPS, height, width), 0.5))
    calls = {name: of(run.denoiser, task) for name, task in tasks.items()}
    calls |= {GUIDED[name][0]: of(denoiser, tasks[name]) for name, denoiser in guided.items()}
    calls[f"RePaint, {len(times.before)} calls"] = lambda: repaint(key, run.denoiser, times, image, known, label, rule)
    return calls
