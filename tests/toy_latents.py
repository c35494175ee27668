"""A tiny autoencoder of digits with random weights, in a folder as training leaves it, and its latents."""

import dataclasses
from pathlib import Path

import equinox as eqx
import jax
import jax.random as jr
from jax.flatten_util import ravel_pytree

from asyncpatch.config import to_json
from asyncpatch.data import Digits, Folds
from asyncpatch.nn import AutoencoderConfig, DiscriminatorConfig, Stages
from asyncpatch.runs import AutoencoderExperiment, configure_autoencoder
from asyncpatch.train import RunConfig, init_state, make_mesh
from asyncpatch.train.checkpoint import Checkpoints

TRAINING, HELD_OUT = Folds(Digits(), 60, (1, 2, 3, 4, 5)), Folds(Digits(), 60, (0,))
AUTOENCODER = AutoencoderConfig(
    channels=1, encoder=Stages((4, 6), (1, 0)), decoder=Stages((4, 6), (0, 1)), latent_channels=2, codes=64
)
"""Eight rows and columns of pixels to four of sites."""


def toy_autoencoder() -> AutoencoderExperiment:
    usual = configure_autoencoder(TRAINING, "photographs-64", held_out=HELD_OUT, batch_size=8)
    return dataclasses.replace(
        usual, autoencoder=AUTOENCODER, discriminator=DiscriminatorConfig(channels=1, widths=(4,))
    )


def save_autoencoder(folder: Path, seed: int = 0) -> Path:
    """Write one with every weight moved off its start, at which residual blocks are the identity."""
    experiment = toy_autoencoder()
    state = init_state(experiment.learner(), experiment.training, make_mesh(1, 1))

    @eqx.filter_jit
    def moved(autoencoder, key):
        weights, rest = eqx.partition(autoencoder, eqx.is_inexact_array)
        flat, restore = ravel_pytree(weights)
        return eqx.combine(restore(flat + 0.2 * jr.normal(key, flat.shape)), rest)

    state = dataclasses.replace(state, ema=moved(state.ema, jr.key(seed)))
    with Checkpoints(folder, RunConfig(steps=1)) as checkpoints:
        checkpoints.save(jax.block_until_ready(state), to_json(experiment), {})
    return folder
