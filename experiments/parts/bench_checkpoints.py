"""What a checkpoint costs: the seconds that training is held, and those until it is whole on disk."""

import statistics
import tempfile
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array

from asyncpatch.places import place
from asyncpatch.train import RunConfig, TrainState
from asyncpatch.train.checkpoint import Checkpoints
from asyncpatch.train.digest import digests

SIDE = 1000
"""Of the square weights that the state is made of."""


def bench_checkpoints(million_weights: int, rounds: int, folder: str | None = None) -> None:
    """Print the cost for a network of so many million weights, with its average and Adam's two moments."""
    state = _state(million_weights)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) / 1e9
    begun = time.perf_counter()
    digests(eqx.filter(state, eqx.is_array))
    digesting = time.perf_counter() - begun
    held, whole = [], []
    with tempfile.TemporaryDirectory(dir=folder) as temporary, Checkpoints(place(Path(temporary)), RunConfig()) as kept:
        for step in range(1, rounds + 2):
            state = eqx.tree_at(lambda state: state.step, state, jnp.asarray(step, jnp.int32))
            begun = time.perf_counter()
            kept.save(state, {}, {})
            held.append(time.perf_counter() - begun)
            kept.newest()
            whole.append(time.perf_counter() - begun)
    seconds, until = statistics.median(held[1:]), statistics.median(whole[1:])
    print(
        f"checkpoint of {million_weights}M weights, {size:.2f} GB: training is held {seconds:.2f} s (digests "
        f"{digesting:.2f} s of it), and it is whole after {until:.2f} s",
        flush=True,
    )


def _state(million_weights: int) -> TrainState:
    def weights(seed: int) -> list[Array]:
        keys = jr.split(jr.key(seed), million_weights * 10**6 // SIDE**2)
        return [jr.normal(key, (SIDE, SIDE)) for key in keys]

    zero = jnp.zeros((), jnp.int32)
    return TrainState(
        denoiser=weights(0),
        ema=weights(1),
        opt_state=(weights(2), weights(3)),
        step=zero,
        broken_at=zero - 1,
        window_loss=jnp.zeros(()),
        window_steps=zero,
    )
