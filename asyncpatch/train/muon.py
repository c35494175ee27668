"""Muon: the averaged gradient of a kernel, with all its singular values brought near 1.

    m    <-  beta m + (1 - beta) g                       averaged gradient
    x    <-  (beta m + (1 - beta) g) / its norm          looked ahead (Nesterov)
    x    <-  x (a + b x'x + c (x'x)^2),  five times      Newton and Schulz's iteration

All that the iteration multiplies `x` with is a polynomial of its Gram matrix, so it runs on that small matrix, and `x`
is touched twice instead of ten times: a fifth of the products of a kernel with nine times as many inputs as outputs.

Sources: Jordan et al. 2024 (kellerjordan.github.io/posts/muon), with their coefficients.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Steepest at 0: singular values from about .01 to 1 end between .7 and 1.2 after five rounds."""

ROUNDS = 5

SMALLEST_NORM = 1e-8
"""Added to the norm of an averaged gradient, so that one of zeros stays 0."""


class MuonState(NamedTuple):
    """The averaged gradient of every kernel."""

    momentum: PyTree


def scale_by_muon(momentum: float, root_mean_square: float) -> optax.GradientTransformation:
    """From gradients to directions of about this root mean square.

    Weights are kernels of shape `(..., height, width, inputs, outputs)`, each seen as a matrix from inputs to outputs;
    an axis before these counts layers, which are moved each on its own.
    """

    def init(params: optax.Params) -> MuonState:
        return MuonState(optax.tree.zeros_like(params))

    def update(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, MuonState]:
        del params
        assert isinstance(state, MuonState)
        averaged = optax.tree.update_moment(updates, state.momentum, momentum, 1)
        ahead = optax.tree.update_moment(updates, averaged, momentum, 1)
        return jax.tree.map(lambda kernel: root_mean_square * _direction(kernel), ahead), MuonState(averaged)

    return optax.GradientTransformation(init, update)


def _direction(
    kernel: Float[Array, "*layers height width inputs outputs"],
) -> Float[Array, "*layers height width inputs outputs"]:
    """Orthogonal, with a root mean square of about 1 (arXiv 2502.16982)."""
    *layers, height, width, inputs, outputs = kernel.shape
    matrices = kernel.reshape(*layers, height * width * inputs, outputs)
    orthogonal = orthogonalised
    for _ in layers:
        orthogonal = jax.vmap(orthogonal)
    return max(matrices.shape[-2:]) ** 0.5 * orthogonal(matrices).reshape(kernel.shape)


def orthogonalised(matrix: Float[Array, "rows columns"]) -> Float[Array, "rows columns"]:
    """The same singular vectors, with singular values near 1 where they were above a hundredth of the norm."""
    rows, columns = matrix.shape
    matrix = matrix / (jnp.linalg.norm(matrix) + SMALLEST_NORM)
    gram = matrix.T @ matrix if rows > columns else matrix @ matrix.T
    first, second, third = COEFFICIENTS
    product = jnp.eye(len(gram), dtype=gram.dtype)
    for left in reversed(range(ROUNDS)):
        factor = first * jnp.eye(len(gram), dtype=gram.dtype) + second * gram + third * (gram @ gram)
        product = product @ factor
        if left:
            gram = factor @ gram @ factor
    return matrix @ product if rows > columns else product @ matrix
