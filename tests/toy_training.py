"""A denoiser, a loss and data small enough to train in a test, and a script that trains them.

`python tests/toy_training.py FOLDER SECONDS [PROCESS PORT]` trains for `TOY_RUN.steps` steps, pausing SECONDS before
each batch so that a test can interrupt it; with PROCESS (0 or 1) and PORT it is one of two processes.
"""

import json
import sys
import time
from collections.abc import Generator
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from asyncpatch.noise_schedule import RectifiedFlow
from asyncpatch.process import AbstractDenoiser, Prediction, corrupt
from asyncpatch.shapes import Image, Label, TimeField
from asyncpatch.train import (
    CompanyError,
    Descent,
    OptimizerConfig,
    RunConfig,
    TrainConfig,
    TrainState,
    joined,
    leave,
    make_mesh,
    train,
)
from asyncpatch.train.processes import VARIABLES

SIZE, NUM_CLASSES, BATCH = 4, 3, 8

TOY_CONFIG = TrainConfig(
    num_classes=NUM_CLASSES,
    optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=4),
    ema_decay=0.9,
    label_dropout=0.25,
)
TOY_RUN = RunConfig(steps=24, log_every=1, checkpoint_every=4, sample_every=1000, keep_last=3)


class DenseDenoiser(AbstractDenoiser):
    """Velocity by one hidden layer on pixels and times, with one bias per label."""

    inner: Float[Array, "features hidden"]
    outer: Float[Array, "hidden pixels"]
    label_bias: Float[Array, "labels hidden"]

    def __init__(self, key: PRNGKeyArray, hidden: int = 16):
        inner_key, outer_key = jr.split(key)
        pixels = SIZE * SIZE
        self.inner = jr.normal(inner_key, (2 * pixels, hidden)) / (2 * pixels) ** 0.5
        self.outer = jr.normal(outer_key, (hidden, pixels)) / hidden**0.5
        self.label_bias = jnp.zeros((NUM_CLASSES + 1, hidden))

    schedule = RectifiedFlow()
    num_classes = None

    def __call__(self, z: Image, t: TimeField, label: Label) -> Prediction:
        hidden = jnp.concatenate([z.ravel(), t.ravel()]) @ self.inner + self.label_bias[label]
        velocity = (jnp.tanh(hidden) @ self.outer).reshape(z.shape)
        return Prediction.from_velocity(self.schedule, z, t, velocity)


def toy_loss(denoiser: AbstractDenoiser, key: PRNGKeyArray, image: Image, label: Label) -> Float[Array, ""]:
    """The mean of `toy_errors`."""
    return jnp.mean(toy_errors(denoiser, key, image, label)[1])


def toy_errors(
    denoiser: AbstractDenoiser, key: PRNGKeyArray, image: Image, label: Label
) -> tuple[TimeField, TimeField]:
    """Independent uniform times, and the squared error of the velocity at them."""
    time_key, noise_key = jr.split(key)
    t, noise = jr.uniform(time_key, image.shape[:2]), jr.normal(noise_key, image.shape)
    prediction = denoiser(corrupt(RectifiedFlow(), image, t, noise), t, label)
    return t, ((prediction.velocity(RectifiedFlow(), t) - (noise - image)) ** 2)[..., 0]


class ToyData:
    """Batches that are functions of the step; `edit(step, images, labels)` may spoil them."""

    def __init__(self, pause: float = 0.0, edit=None, batch: int = BATCH):
        self.pause, self.edit, self.size = pause, edit, batch

    def batch(self, step: int) -> dict[str, np.ndarray]:
        random = np.random.default_rng(step)
        label = random.integers(0, NUM_CLASSES, self.size, dtype=np.int32)
        noise = 0.1 * random.standard_normal((self.size, SIZE, SIZE, 1), dtype=np.float32)
        image = np.tanh(noise + (label[:, None, None, None] - 1).astype(np.float32))
        if self.edit is not None:
            self.edit(step, image, label)
        local = self.size // jax.process_count()
        share = slice(jax.process_index() * local, (jax.process_index() + 1) * local)
        return {"image": image[share], "label": label[share]}

    def iterate(self, start_step: int) -> Generator[dict[str, np.ndarray], None, None]:
        step = start_step
        while True:
            time.sleep(self.pause)
            yield self.batch(step)
            step += 1


TOY_LEARNER = Descent(DenseDenoiser, toy_loss)


def toy_train(
    folder: Path, config: TrainConfig = TOY_CONFIG, run: RunConfig = TOY_RUN, loss_fn=toy_loss, **changes
) -> TrainState:
    """Train the toy with another loss, or with one argument of `train` or another changed."""
    arguments = {
        "experiment": (config, run),
        "learner": Descent(DenseDenoiser, loss_fn),
        "data": ToyData(),
        "mesh": make_mesh(),
    }
    return train(folder, config=config, run=run, **(arguments | changes))


def arrays_of(state: PyTree) -> dict[str, np.ndarray]:
    """Every array of a state in host memory, by its name."""
    leaves = jax.tree_util.tree_leaves_with_path(eqx.filter(state, eqx.is_array))
    return {jax.tree_util.keystr(path): np.array(leaf) for path, leaf in leaves}


def losses_of(folder: Path, name: str = "loss") -> dict[int, float]:
    """What metrics.jsonl says of each step."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line[name] for line in lines if name in line}


if __name__ == "__main__":
    folder, pause, *distributed = sys.argv[1:]
    jax.config.update("jax_num_cpu_devices", 4)
    if distributed:
        process, port = distributed
        variables = (f"localhost:{port}", "2", process)
        try:
            with joined(dict(zip(VARIABLES, variables, strict=True))):
                toy_train(Path(folder), data=ToyData(pause=float(pause)), mesh=make_mesh(data=4, fsdp=2))
        except CompanyError as error:
            print(error, file=sys.stderr, flush=True)
            leave(1)
    else:
        toy_train(Path(folder), data=ToyData(pause=float(pause)))
