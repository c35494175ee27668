"""Images a second of every way of sampling, and how they depend on the batch."""

import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array

from asyncpatch.masks import Border
from asyncpatch.plans import Task, synchronous, with_strength
from asyncpatch.process import AbstractDenoiser
from asyncpatch.runs import Run, SamplingConfig, four_tasks, guide, open_run
from asyncpatch.sampling import DDIM, repaint, repaint_times, sample

STEPS = 10
"""Network calls of an image here; RePaint makes more of them."""


GUIDED = {
    "generation": "two branches by the label",
    "inpainting": "two branches by the input",
    "outpainting": "four branches by both",
}
"""What a task costs under guidance."""


def bench_sampling(batches: tuple[int, ...], rounds: int) -> None:
    """Print images a second of the model that comes with the package, by task and by batch."""
    run = open_run("fashion")
    for batch in batches:
        rates = {name: _rate(call, batch, rounds) for name, call in _calls(run, batch).items()}
        said = ", ".join(f"{name} {rate:.1f}" for name, rate in rates.items())
        print(f"sampling, {STEPS} steps, batch {batch}, images/s: {said}")
        for task, guided in GUIDED.items():
            print(f"  {guided} cost {rates[task] / rates[guided]:.2f} times {task}")


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
    calls |= {GUIDED[name]: of(denoiser, tasks[name]) for name, denoiser in guided.items()}
    calls[f"RePaint, {len(times.before)} calls"] = lambda: repaint(key, run.denoiser, times, image, known, label, rule)
    return calls


def _rate(call: Callable[[], Array], batch: int, rounds: int) -> float:
    """Images a second, the median over rounds after one that compiles."""
    jax.block_until_ready(call())
    seconds = []
    for _ in range(rounds):
        begun = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - begun)
    return batch / statistics.median(seconds)
