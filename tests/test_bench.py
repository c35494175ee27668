"""The benchmark counts what it divides by: the FLOPs of convolutions and products, loops included.

What it prints of accelerators is exercised on a small network.
"""

import re

import jax
import jax.numpy as jnp
import pytest

from asyncpatch.nn.products import product
from experiments.bench import bench_card
from experiments.parts.bench_layers import products


def convolve(x, weight):
    return jax.lax.conv_general_dilated(x, weight, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def total(function, *arguments):
    return sum(product.count * product.flops for product in products(function, *arguments))


X, WEIGHT = jnp.ones((2, 8, 8, 4)), jnp.ones((3, 3, 4, 6))
ONE = 2 * (2 * 8 * 8 * 6) * (3 * 3 * 4)
"""Twice the multiplications of one convolution."""


def test_a_convolution_and_its_two_gradients_cost_the_same():
    gradients = jax.grad(lambda x, weight: jnp.sum(convolve(x, weight) ** 2), argnums=(0, 1))
    assert total(convolve, X, WEIGHT) == ONE
    assert total(jax.jit(gradients), X, WEIGHT) == pytest.approx(3 * ONE, rel=0.01)


def test_products_inside_loops_are_counted_as_often_as_they_run():
    square = jnp.ones((5, 5))

    def loop(x):
        return jax.lax.scan(lambda x, _: (x @ square, None), x, None, length=7)[0]

    assert total(loop, jnp.ones((3, 5))) == 7 * 2 * 3 * 5 * 5


def test_products_of_tokens_are_counted():
    assert total(jax.vmap(product, (0, None)), jnp.ones((3, 2, 2, 5)), jnp.ones((5, 7))) == 2 * 12 * 5 * 7


def test_equal_products_are_one_row():
    (row,) = products(lambda x: convolve(x, WEIGHT) + convolve(2 * x, WEIGHT), X)
    assert row.count == 2
    assert row.run(X, WEIGHT).shape == (2, 8, 8, 6)


def test_a_preset_on_a_card_has_its_shares_of_a_product(capsys):
    with jax.numpy_dtype_promotion("standard"):  # optax relies on it
        bench_card({"digits": 2}, side=64, size=8, rounds=2)
    product, row = capsys.readouterr().out.splitlines()
    assert product.startswith("matrix product of 64x64 in bfloat16")
    done, model = map(int, re.findall("([0-9]+)% (?:of the product|for the model)", row))
    # Nothing is computed again here; the gradient of the images, which nobody asks for, is left out.
    assert 0.9 * model - 1 <= done <= model + 1
    assert row.startswith("digits at 8x8, batch 2: train step")
