"""A program's working memory is kept from one call to the next."""

import os
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource
import statistics
import jax
import jax.numpy as jnp
import asyncpatch

@jax.jit
def program(x):
    return jnp.sum(jnp.outer(x, x) @ jnp.outer(x + 1, x))

x = jnp.arange(3000.0)
given = []
for _ in range(30):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    jax.block_until_ready(program(x))
    given.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(statistics.median(given[15:]))
"""
"""Prints how many pages the system gives to the usual call of a program that works in about 100 MB."""


def pages(switch: str) -> float:
    environment = {**os.environ, "ASYNCPATCH_MEMORY": switch}
    del environment["JAX_DISABLE_MOST_OPTIMIZATIONS"]  # a program without fusion runs in the calling thread anyway
    ended = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True)
    return float(ended.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only GNU's allocator is told to keep memory")
def test_the_system_gives_no_new_pages_to_later_calls():
    assert pages("") < 2_000
    assert pages("off") > 10_000
