"""Which network it is: what was made with one is not used with another."""

import hashlib

import jax
import numpy as np
from jaxtyping import PyTree


def fingerprint_of(*parts: PyTree) -> str:
    """SHA-256 of the kinds of some parts and of all their numbers.

    A copy in another precision, as an export to float16 is, has another fingerprint.
    """
    digest = hashlib.sha256(" ".join(type(part).__name__ for part in parts).encode())
    for leaf in jax.tree.leaves(parts):
        array = np.ascontiguousarray(leaf)
        digest.update(f"{array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
