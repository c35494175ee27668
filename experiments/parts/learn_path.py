"""Fit a law of paths to a frozen denoiser by gradient: the tighter its bound, the better.

The bound is differentiable in the law. Its two ends do not depend on the path, so the line integral alone is the loss.
For an exact denoiser nothing can be gained: its bound is the same on all paths.
"""

import dataclasses
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from asyncpatch.elbo import WholePath, diffusion_nats
from asyncpatch.paths import Learned
from asyncpatch.ranges import check_counts, check_number, check_seed
from experiments.parts.bounds import Model


@dataclasses.dataclass(frozen=True)
class FitConfig:
    """How a law is fitted."""

    steps: int = 200
    images_a_step: int = 8
    points: int = 16
    """Network calls along one path, for each image of a step."""
    learning_rate: float = 0.03
    seed: int = 0

    def __post_init__(self):
        check_counts(steps=self.steps, images_a_step=self.images_a_step, points=self.points)
        check_number("learning_rate", self.learning_rate, lambda rate: rate > 0, "above 0")
        check_seed(self.seed)


def fit(
    model: Model, law: Learned, config: FitConfig, progress: Callable[[float, float], None] = lambda loss, spread: None
) -> tuple[Learned, list[tuple[float, float]]]:
    """The fitted law, and the loss (bits per dimension, a noisy draw) and the spread `c` before each step.

    `model.images` is what it is fitted to; `progress` is called with both after each step.
    """
    optimizer = optax.adam(optax.cosine_decay_schedule(config.learning_rate, config.steps))
    state = optimizer.init(eqx.filter(law, eqx.is_inexact_array))
    unit = float(model.images[0].size * jnp.log(2.0))
    history = []
    for key in jr.split(jr.key(config.seed), config.steps):
        spread = float(jnp.exp(law.log_spread))
        law, state, nats = _step(model, config, optimizer, law, state, key)
        history.append((float(nats) / unit, spread))
        progress(*history[-1])
    return law, history


@eqx.filter_jit
def _step(model: Model, config: FitConfig, optimizer, law: Learned, state, key: PRNGKeyArray):
    index_key, draw_key = jr.split(key)
    index = jr.choice(index_key, len(model.images), (config.images_a_step,), replace=False)
    weights, rest = eqx.partition(law, eqx.is_inexact_array)

    def loss(weights) -> Float[Array, ""]:
        def one(key, image, label):
            law = eqx.combine(weights, rest)
            design = WholePath(config.points)
            return diffusion_nats(key, model.denoiser, law, design, image, label)

        keys = jr.split(draw_key, config.images_a_step)
        return jnp.mean(jax.vmap(one)(keys, model.images[index], model.labels[index]))

    nats, gradient = jax.value_and_grad(loss)(weights)
    with jax.numpy_dtype_promotion("standard"):  # optax divides by an integer power
        updates, state = optimizer.update(gradient, state)
    return eqx.apply_updates(law, updates), state, nats
