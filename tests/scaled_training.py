"""A small transformer whose weights are large enough to be split, and the programs that train it on many devices.

python tests/scaled_training.py devices OUT FOLDER fsdp     # eight devices: the same steps on this mesh, or several
python tests/scaled_training.py processes OUT FOLDER PROCESS PORT     # one of two processes of four devices
"""

import json
import re
import sys
from collections import Counter
from pathlib import Path

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from toy_training import NUM_CLASSES, ToyData, arrays_of, toy_loss

from asyncpatch.nn import NetworkDenoiser, TransformerConfig
from asyncpatch.noise_schedule import RectifiedFlow
from asyncpatch.plans import Task, synchronous
from asyncpatch.sampling import DDIM, sample
from asyncpatch.sharding import gathered
from asyncpatch.train import (
    CompanyError,
    Descent,
    MuonConfig,
    OptimizerConfig,
    RunConfig,
    TrainConfig,
    init_state,
    joined,
    leave,
    make_mesh,
    put_batch,
    train,
)
from asyncpatch.train.flat import flatten, unflatten
from asyncpatch.train.processes import VARIABLES
from asyncpatch.train.step import flat_train_step

STEPS, AT_FIRST, BY_TWO = 10, 3, 6
"""Steps in all, and after which other machines go on: two processes, then eight devices."""

NETWORK = TransformerConfig(
    channels=1, num_classes=NUM_CLASSES, width=192, depth=4, hidden=384, head=32, patch=2, pixel_channels=8
)
CONFIG = TrainConfig(num_classes=NUM_CLASSES, optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=4, eps=1e-4))
MESHES = {"one": (1, 1), "two": (1, 2), "data": (8, 1), "fsdp": (1, 8), "both": (2, 4)}
"""Devices along the axes `data` and `fsdp`. The tests use one, the others are for a run by hand."""
CACHE = {"jax_persistent_cache_min_compile_time_secs": 0.0, "jax_persistent_cache_min_entry_size_bytes": -1}
COLLECTIVE = re.compile(r" (all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(")


def make_denoiser(key):
    return NetworkDenoiser(NETWORK.build(key), RectifiedFlow())


def compiled_step(mesh, config=CONFIG, loss_fn=toy_loss):
    """A fresh state as a list of arrays and the rest, and the compiled train step."""
    learner = Descent(make_denoiser, loss_fn)
    arrays, rest = flatten(init_state(learner, config, mesh))
    step = flat_train_step(rest, learner, config, 1, mesh)
    return arrays, rest, step.lower(arrays, put_batch(ToyData().batch(0), mesh)).compile()


def take_steps(mesh):
    """The state after `STEPS` steps by name, and the compiled step."""
    arrays, rest, step = compiled_step(mesh)
    for number in range(STEPS):
        arrays, _ = step(arrays, put_batch(ToyData().batch(number), mesh))
    return arrays_of(unflatten(arrays, rest)), step


def all_at_once(denoiser, key, image, label):
    """The loss with all weights brought together before the first layer."""
    return toy_loss(jax.tree.map(lambda leaf: gathered(leaf), denoiser), key, image, label)


def images(denoiser, plan_axes=None):
    """Five samples, which eight devices cannot share alike."""
    plan = synchronous(3, 4, 4)
    if plan_axes == 0:
        plan = jax.tree.map(lambda leaf: jnp.stack([leaf * (1 - number / 10) for number in range(5)]), plan)
    blank, label = jnp.zeros((5, 4, 4, 1)), jnp.arange(5, dtype=jnp.int32) % NUM_CLASSES
    return np.asarray(sample(jr.key(1), denoiser, Task(plan), blank, label, DDIM(0.5), plan_axes=plan_axes))


def train_to(folder: Path, steps: int, mesh):
    run = RunConfig(steps=steps, log_every=1, checkpoint_every=steps, sample_every=1000)
    return train(folder, CONFIG, CONFIG, run, Descent(make_denoiser, toy_loss), ToyData(), mesh)


def devices(out: Path, folder: Path, *names: str) -> None:
    """Writes what `tests/test_scale.py` reads; ends the run in the folder on eight devices."""
    # The same programs are compiled twice, to be looked at and to be run.
    for name, value in CACHE.items():
        jax.config.update(name, value)
    jax.config.update("jax_compilation_cache_dir", str(out / "cache"))
    steps = {}
    for name in names:
        state, steps[name] = take_steps(make_mesh(*MESHES[name]))
        np.savez(out / f"{name}.npz", **state)
    fsdp = make_mesh(1, 8)
    muon = TrainConfig(num_classes=NUM_CLASSES, optimizer=MuonConfig())
    steps["at once"] = compiled_step(fsdp, loss_fn=all_at_once)[2]
    steps["muon"] = compiled_step(fsdp, muon)[2]
    counts = {name: Counter(COLLECTIVE.findall(step.as_text())) for name, step in steps.items()}
    memory = {name: step.memory_analysis().temp_size_in_bytes for name, step in steps.items()}
    last = train_to(folder, STEPS, fsdp)
    np.savez(out / "moved.npz", **arrays_of(last))
    alone = jax.tree.map(lambda leaf: jax.device_put(leaf, jax.devices()[0]), last.ema)
    split = {f"split-{axes}": images(last.ema, axes) for axes in (None, 0)}
    np.savez(out / "images.npz", **split, **{f"alone-{axes}": images(alone, axes) for axes in (None, 0)})
    (out / "counted.json").write_text(json.dumps({"counts": counts, "memory": memory}))


def processes(out: Path, folder: Path, process: str, port: str) -> None:
    """Goes on with the run in the folder for a few steps, and samples from it."""
    with joined(dict(zip(VARIABLES, (f"localhost:{port}", "2", process), strict=True))):
        state = train_to(folder, BY_TWO, make_mesh(2, 4))
        np.savez(out / f"process-{process}.npz", images=images(state.ema))


if __name__ == "__main__":
    mode, out, folder, *rest = sys.argv[1:]
    try:
        if mode == "devices":
            jax.config.update("jax_num_cpu_devices", 8)
            devices(Path(out), Path(folder), *rest)
        else:
            jax.config.update("jax_num_cpu_devices", 4)
            processes(Path(out), Path(folder), *rest)
    except CompanyError as error:
        print(error, file=sys.stderr, flush=True)
        leave(1)
