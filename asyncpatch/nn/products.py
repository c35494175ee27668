"""The product of every token with one matrix, whose gradient is one plain matrix product too.

A network is written for one image and mapped over a batch, so `x @ weight` is a product over an axis for the batch, one
for rows and one for columns. The gradient of the weights sums over all three, and to sum over several axes XLA's CPU
compiler first copies the transpose of the gradient of the output: some 6% of the train step of a small UNet. Here the
three become one axis, whatever `jax.vmap` stood around, and nothing is copied.

It has to be a primitive of JAX. Only there are both seen, the whole batch and that the product is bilinear: the
backward function of `jax.custom_vjp` under `jax.vmap` gives the gradient of the weights for every image, to be summed.

Invariant: the same numbers as `x @ weight` gives, up to rounding, and derivatives of them in both modes.
"""

import jax
import jax.core
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float


def product(x: Float[Array, "*shape inputs"], weight: Float[Array, "inputs outputs"]) -> Float[Array, "*shape outputs"]:
    """`x @ weight`."""
    return product_p.bind(x, weight)


def _of_rows(x, weight):
    """The same as a product of two matrices."""
    return (x.reshape(-1, x.shape[-1]) @ weight).reshape(*x.shape[:-1], weight.shape[-1])


def _shape(x: jax.core.ShapedArray, weight: jax.core.ShapedArray) -> jax.core.ShapedArray:
    found = jax.eval_shape(_of_rows, x, weight)
    return jax.core.ShapedArray(found.shape, found.dtype)


def _to_x(slope, x, weight):
    return product(slope, weight.T)


def _to_weight(slope, x, weight):
    # Rows are summed over: both are contracted along their first axis.
    rows, slopes = x.reshape(-1, x.shape[-1]), slope.reshape(-1, slope.shape[-1])
    return jax.lax.dot_general(rows, slopes, (((0,), (0,)), ((), ())))


def _batched(operands, axes):
    (x, weight), (of_x, of_weight) = operands, axes
    if of_weight is None:
        return product(jnp.moveaxis(x, of_x, 0), weight), 0
    return jax.vmap(_of_rows, axes)(x, weight), 0


product_p = Primitive("product_of_tokens")
product_p.def_impl(jax.jit(_of_rows))
product_p.def_abstract_eval(_shape)
ad.defbilinear(product_p, _to_x, _to_weight)
batching.primitive_batchers[product_p] = _batched
mlir.register_lowering(product_p, mlir.lower_fun(_of_rows, multiple_results=False))
