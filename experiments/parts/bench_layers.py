"""Where a train step's seconds go: each of its convolutions and matrix products alone, and what is left.

The program of a step is read as JAX traces it. Every convolution or product of one kind and shape is compiled alone and
timed on random arrays, so forward, gradient of the input and gradient of the weights are rows of their own. What the
whole step takes beyond their sum is memory traffic: normalisation, FiLM, activations, the optimiser.
"""

import collections
import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Iterator

import jax
import jax.core
import jax.numpy as jnp
import jax.random as jr
from jax.extend import core

from asyncpatch.nn.products import product_p

PRODUCTS = ("conv_general_dilated", "dot_general", product_p.name)

PEAK_SIDE = 2048
"""Side of the square matrices whose product says what the machine can do."""


@dataclasses.dataclass(frozen=True)
class Product:
    """A convolution or matrix product of a program."""

    equation: core.JaxprEqn
    count: int

    @property
    def operands(self) -> tuple[jax.core.ShapedArray, jax.core.ShapedArray]:
        left, right = (var.aval for var in self.equation.invars)
        return left, right  # type: ignore

    @property
    def shapes(self) -> str:
        left, right = (operand.shape for operand in self.operands)
        return f"{'x'.join(map(str, left))} by {'x'.join(map(str, right))}"

    @property
    def flops(self) -> float:
        """Of one: twice the multiplications."""
        left, right = (operand.shape for operand in self.operands)
        out = jax.eval_shape(self.run, *self.operands).shape
        if self.equation.primitive is product_p:
            return 2.0 * math.prod(out) * left[-1]
        if self.equation.primitive.name == "dot_general":
            (contracted, _), _ = self.equation.params["dimension_numbers"]
            return 2.0 * math.prod(out) * math.prod(left[axis] for axis in contracted)
        numbers = self.equation.params["dimension_numbers"]
        return 2.0 * math.prod(out) * math.prod(right) / right[numbers.rhs_spec[0]]

    def run(self, left, right):
        return self.equation.primitive.bind(left, right, **self.equation.params)


def products(function: Callable, *arguments) -> list[Product]:
    """The products of a program, equal ones counted."""
    found = collections.Counter()
    first = {}
    for equation in _equations(jax.make_jaxpr(function)(*arguments).jaxpr):
        if equation.primitive.name in PRODUCTS:
            key = (str(equation.params), *(str(var.aval) for var in equation.invars))
            found[key] += 1
            first.setdefault(key, equation)
    return [Product(first[key], count) for key, count in found.items()]


def _equations(jaxpr: core.Jaxpr) -> Iterator[core.JaxprEqn]:
    for equation in jaxpr.eqns:
        inner = [value for value in equation.params.values() if isinstance(value, (core.Jaxpr, core.ClosedJaxpr))]
        if not inner:
            yield equation
        times = equation.params["length"] if equation.primitive.name == "scan" else 1
        for value in inner:
            for _ in range(times):
                yield from _equations(getattr(value, "jaxpr", value))


def seconds_of(call: Callable, *arguments, rounds: int = 10, least: float = 0.1) -> float:
    """Median of a compiled function's calls, of so many that they fill `least` seconds.

    Of a short one the first few are slower: threads wake up, and memory has not been touched.
    """
    compiled = jax.jit(call)
    jax.block_until_ready(compiled(*arguments))
    taken = []
    while len(taken) < rounds or sum(taken) < least:
        begun = time.perf_counter()
        jax.block_until_ready(compiled(*arguments))
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


def peak(dtype: str = "float32", side: int = PEAK_SIDE) -> float:
    """FLOP/s of a product of two square matrices of this side."""
    square = jr.normal(jr.key(0), (side, side)).astype(dtype)
    return 2 * side**3 / seconds_of(jnp.matmul, square, square)


def flops(function: Callable, *arguments) -> float:
    """Of all products of a program."""
    return sum(product.count * product.flops for product in products(function, *arguments))


def print_share(name: str, best: float, function: Callable, *arguments, rounds: int = 10) -> tuple[float, float]:
    """Print a program's speed as a share of a matrix product's; its seconds and FLOPs."""
    whole = seconds_of(function, *arguments, rounds=rounds)
    count = flops(function, *arguments)
    share = f"{count / whole / best:.0%} of a matrix product's {best / 1e9:.0f} GF/s"
    print(f"{name}: {1e3 * whole:.1f} ms, {count / 1e9:.2f} GFLOP at {share}", flush=True)
    return whole, count


def print_layers(name: str, function: Callable, *arguments, rows: int = 12) -> None:
    """Print the dearest products of a program, and the rest."""
    best = peak()
    whole, _ = print_share(name, best, function, *arguments)
    timed = []
    for product in products(function, *arguments):
        keys = jr.split(jr.key(0))
        operands = [
            jr.normal(key, operand.shape, operand.dtype) for key, operand in zip(keys, product.operands, strict=True)
        ]
        timed.append((product.count * seconds_of(product.run, *operands), product))
    timed.sort(key=lambda pair: -pair[0])
    total = sum(seconds for seconds, _ in timed)
    print(f"  products alone {1e3 * total:.1f} ms ({total / whole:.0%}), all else {1e3 * (whole - total):.1f} ms")
    for seconds, product in timed[:rows]:
        speed = product.count * product.flops / seconds
        kind = "conv" if product.equation.primitive.name == "conv_general_dilated" else "matmul"
        print(
            f"  {1e3 * seconds:7.2f} ms {seconds / whole:5.1%} {product.count:3d} x {kind:6s} {product.shapes:44s} "
            f"{product.flops / 1e6:8.1f} MFLOP {speed / 1e9:6.1f} GF/s {speed / best:4.0%}"
        )
