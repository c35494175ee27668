"""Every optimiser lowers a loss; Muon moves kernels orthogonally, and all else as Adam does."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

from asyncpatch.nn import NetworkDenoiser, TransformerConfig, preset
from asyncpatch.noise_schedule import LogLinear
from asyncpatch.train import MuonConfig, OptimizerConfig
from asyncpatch.train.muon import COEFFICIENTS, ROUNDS, orthogonalised
from asyncpatch.train.optimizers import RMS_OF_ADAM, kernels

OPTIMIZERS = [OptimizerConfig(0.05, 2), MuonConfig(0.05, 2)]

SHAPES = {
    "kernel": (3, 3, 16, 12),
    "layers": (2, 1, 1, 16, 12),
    "thin": (3, 3, 4, 16),
    "matrix": (16, 8),
    "gain": (16,),
}


def updates(optimizer, gradients, weights):
    with jax.numpy_dtype_promotion("standard"):
        return optimizer.update(gradients, optimizer.init(weights), weights)[0]


def draw(seed):
    keys = jr.split(jr.key(seed), len(SHAPES))
    return {name: jr.normal(key, shape) for key, (name, shape) in zip(keys, SHAPES.items(), strict=True)}


@pytest.mark.parametrize("config", OPTIMIZERS, ids=lambda config: type(config).__name__)
def test_lowers_a_loss(config):
    weights, aim = draw(0), draw(1)
    optimizer = config.build()

    def loss(weights):
        return sum(jnp.mean((weights[name] - aim[name]) ** 2) for name in SHAPES)

    @jax.jit
    def step(weights, state):
        with jax.numpy_dtype_promotion("standard"):
            moves, state = optimizer.update(jax.grad(loss)(weights), state, weights)
        return eqx.apply_updates(weights, moves), state

    before, state = loss(weights), optimizer.init(weights)
    for _ in range(60):
        weights, state = step(weights, state)
    assert loss(weights) < 0.5 * before


def test_muon_moves_kernels_orthogonally_and_all_else_as_adam():
    config, gradients, weights = MuonConfig(0.1, 0), draw(0), draw(1)
    gradients |= {name: gradients[name] + 3 for name in ("kernel", "layers")}  # one direction is far steeper
    nadam = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.1, b2=config.b2, nesterov=True))
    muon, adam = (updates(optimizer, gradients, weights) for optimizer in (config.build(), nadam))
    for name in ("thin", "matrix", "gain"):
        np.testing.assert_allclose(muon[name], adam[name], rtol=1e-5)
    layers = [muon["kernel"].reshape(-1, 12), *muon["layers"].reshape(2, -1, 12)]
    for matrix in layers:
        values = np.linalg.svd(np.asarray(matrix), compute_uv=False)
        assert values.max() < 2 * values.min()
        assert np.sqrt(np.mean(np.asarray(matrix) ** 2)) == pytest.approx(RMS_OF_ADAM * 0.1, rel=0.3)
    adams = np.linalg.svd(np.asarray(adam["kernel"].reshape(-1, 12)), compute_uv=False)
    assert adams.max() > 5 * adams.min()


def by_whole_matrices(matrix, rounds=ROUNDS):
    """The iteration as it is published, on the matrix itself."""
    first, second, third = COEFFICIENTS
    x = np.asarray(matrix, np.float64)
    x = x / np.linalg.norm(x)
    for _ in range(rounds):
        gram = x @ x.T
        x = first * x + (second * gram + third * gram @ gram) @ x
    return x


@pytest.mark.parametrize("shape", [(40, 12), (12, 40), (16, 16)])
@pytest.mark.parametrize("smallest", [1.0, 1e-2, 1e-6, 0.0])
def test_the_small_matrix_says_what_the_iteration_on_the_whole_one_says(shape, smallest):
    rng = np.random.default_rng(0)
    left, _, right = np.linalg.svd(rng.normal(size=shape), full_matrices=False)
    matrix = (left * np.geomspace(1, max(smallest, 1e-9), len(right))) @ right
    found = np.asarray(jax.jit(orthogonalised)(jnp.asarray(matrix, jnp.float32)))
    np.testing.assert_allclose(found, by_whole_matrices(matrix), atol=1e-3)
    assert np.abs(found - by_whole_matrices(matrix, ROUNDS - 1)).max() > 0.01


def test_no_gradient_is_no_move():
    zeros = {"kernel": jnp.zeros((3, 3, 16, 12))}
    assert not np.any(updates(MuonConfig(0.1, 0).build(), zeros, zeros)["kernel"])


def test_a_layer_of_equal_ones_moves_as_if_it_were_alone():
    optimizer, gradients, weights = MuonConfig(0.1, 0, max_gradient_norm=1e6).build(), draw(0), draw(1)
    together = updates(optimizer, gradients, weights)["layers"]
    for index in range(2):
        alone = updates(optimizer, {"x": gradients["layers"][index]}, {"x": weights["layers"][index]})["x"]
        np.testing.assert_allclose(together[index], alone, atol=1e-5)


@pytest.mark.parametrize(
    "shape",
    [preset("digits", 1, 10), TransformerConfig(channels=1, num_classes=3, width=16, depth=2, hidden=24, head=8)],
    ids=["unet", "transformer"],
)
def test_networks_are_mostly_kernels(shape):
    denoiser = eqx.filter_eval_shape(lambda key: NetworkDenoiser(shape.build(key), LogLinear()), jr.key(0))
    weights = eqx.filter(denoiser, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))
    optimizer = MuonConfig().build()
    jax.eval_shape(optimizer.init, weights)
    chosen = jax.tree.leaves(kernels(weights))
    sizes = [leaf.size for leaf in jax.tree.leaves(weights)]
    assert 0 < sum(chosen) < len(sizes)
    assert sum(size for size, kernel in zip(sizes, chosen, strict=True) if kernel) > 0.6 * sum(sizes)
