"""An autoencoder and a discriminator small enough to train in a test, and a script that trains them.

`python tests/toy_adversarial.py FOLDER SECONDS` trains for `QUICK.steps` steps, pausing SECONDS before each batch.
"""

import sys
from pathlib import Path

import jax.numpy as jnp
from toy_training import TOY_CONFIG, ToyData

from asyncpatch.losses import AutoencoderObjective
from asyncpatch.masks import RandomBox
from asyncpatch.nn import AutoencoderConfig, DiscriminatorConfig, Stages
from asyncpatch.train import AbstractLearner, Adversarial, OptimizerConfig, RunConfig, TrainState, make_mesh, train

AUTOENCODER = AutoencoderConfig(
    channels=1, encoder=Stages((4, 8), (0, 1)), decoder=Stages((4, 8), (0, 1)), latent_channels=2, codes=8
)
START = 2


def contrast(first, second):
    """A perceptual distance of the tests: the squared difference of neighbours' differences."""
    return jnp.mean(jnp.square(jnp.diff(first - second, axis=2)), axis=(1, 2, 3))


ADVERSARIAL = Adversarial(
    autoencoder=AUTOENCODER,
    discriminator=DiscriminatorConfig(channels=1, widths=(4,)),
    objective=AutoencoderObjective(masks=RandomBox(), start=START),
    discriminator_optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=1),
    perceptual=contrast,
)
QUICK = RunConfig(steps=8, log_every=1, checkpoint_every=2, sample_every=100, keep_last=4)


def quick_train(folder: Path, learner: AbstractLearner = ADVERSARIAL, pause: float = 0.0) -> TrainState:
    """Train for `QUICK.steps` steps, from the newest checkpoint if there is one."""
    return train(folder, TOY_CONFIG, TOY_CONFIG, QUICK, learner, ToyData(pause), make_mesh())


if __name__ == "__main__":
    quick_train(Path(sys.argv[1]), pause=float(sys.argv[2]))
