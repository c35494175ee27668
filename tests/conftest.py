"""Strict settings for every test: no silent broadcasting, no silent casts, no reused keys, no warnings."""

import os
import shutil
from dataclasses import replace

import pytest

# Small triangular solves on two cores take a hundred times longer when OpenBLAS threads contend for them.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Tests compile much and run little: the compiler's costly passes would double their time. Programs that a test starts
# inherit this, so that their numbers are equal to the bit.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
# Compilations are counted, and nothing is written outside of temporary folders.
os.environ["ASYNCPATCH_CACHE"] = "off"
# Several test processes share the machine: none holds on to memory that it does not use.
os.environ["ASYNCPATCH_MEMORY"] = "off"

import jax

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_debug_key_reuse", True)

from hypothesis import settings  # noqa: E402  (JAX must be configured before anything imports it further)

settings.register_profile("asyncpatch", derandomize=True, deadline=None, max_examples=20)
settings.load_profile("asyncpatch")


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """The folder of a toy run of eight steps. Do not change it: `run` is a copy."""
    from toy_training import TOY_RUN, toy_train

    folder = tmp_path_factory.mktemp("trained")
    toy_train(folder, run=replace(TOY_RUN, steps=8))
    return folder


@pytest.fixture
def run(trained, tmp_path):
    """A copy of that folder."""
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture(scope="session")
def digits_experiment():
    """The config of a tiny network of digits."""
    from asyncpatch.data import Digits
    from asyncpatch.runs import configure
    from asyncpatch.timesteps import AsyncPatch

    whole = configure(Digits(), "digits", AsyncPatch((1, 2)), batch_size=8)
    return replace(whole, network=replace(whole.network, base=8, head=8))


@pytest.fixture(scope="session")
def digits_judge(digits_experiment, tmp_path_factory):
    """A classifier of digits that has learned for a moment."""
    from asyncpatch.metrics import save_classifier, train_classifier
    from experiments.parts.judges import OwnClassifier, read_images

    file = tmp_path_factory.mktemp("judge") / "classifier.npz"
    images, labels = read_images(digits_experiment, digits_experiment.data.source, 256)
    save_classifier(file, train_classifier(images, labels, 10, seed=0, steps=5))
    return OwnClassifier(file)


@pytest.fixture(scope="session")
def digits_run(digits_experiment, tmp_path_factory):
    """The folder of a run of it that has saved its first weights and nothing else. Do not change it."""
    from asyncpatch.config import to_json
    from asyncpatch.train import RunConfig, init_state, make_mesh
    from asyncpatch.train.checkpoint import Checkpoints

    folder = tmp_path_factory.mktemp("digits")
    state = init_state(digits_experiment.learner, digits_experiment.training, make_mesh(1, 1))
    with Checkpoints(folder, RunConfig(steps=1)) as checkpoints:
        checkpoints.save(state, to_json(digits_experiment), {})
    return folder
