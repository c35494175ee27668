"""Sets of masks to evaluate on: a law, a size, a count and a seed, and the hash that names what they gave.

The i-th mask of a set depends on the law, the size, the seed and `i` alone: a longer set begins with the shorter one.
`PUBLISHED` holds the hashes of the standard sets. A number measured on one of them says so by law and side; on any
other set it states the hash.
"""

import hashlib

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, PRNGKeyArray

from asyncpatch.masks.base import AbstractMaskLaw
from asyncpatch.masks.boxes import Extrema, Square
from asyncpatch.masks.lama import Thin, Wide

STANDARD_COUNT = 1000
STANDARD_SEED = 0
GENERATOR = "threefry2x32"
"""The random numbers of sets, whatever JAX's default is set to."""

PUBLISHED: dict[tuple[AbstractMaskLaw, int], str] = {
    (Square(), 32): "4b47f4a34a51b1991d4438870da9e0d91201c4a1cde2d3372b02a6dc176bd748",
    (Square(), 64): "4849e5cb2c7efd9e2b2bfdecbebfe142fe21871bd69036854380e80b459d4d24",
    (Square(), 256): "e2593b23c2d3475520684cbfbee63277498d59c42ffa2e3d27c7d224db4cd2b8",
    (Extrema(), 32): "3ef7ccef042d5b65b9e9ece16a5c75411d6cf2fa2c3b01454cebcd4c9ebdd6af",
    (Extrema(), 64): "1bb1676b9d30c793830e6ce5a611af277ec26b83eea29119186ae970bcb41979",
    (Extrema(), 256): "39cb6776e28ad26b7d1b956caf2ad03b397f4ea572f47b70bcf76938af816563",
    (Thin(), 32): "a44acbaf594e0412a77e5e64f03f024f688f98f9f76334d03532c4a9d7a26f23",
    (Thin(), 64): "bd346900b7ac65ca4eaa8de5fb6bddd3880e2ee90dc7038e22520c4d872f21a0",
    (Thin(), 256): "94952392c69b159cb49afacfdce9d4a7378189d0a1460fb8abe800a25f6f01eb",
    (Wide(), 32): "def9dfa296d2352651b248a851092a8410bbe8b70e1fe7f286bf8b38f708e45a",
    (Wide(), 64): "38a883998fa20af63377d989217ae7ff63916870421f9a1147d5347c056d0a58",
    (Wide(), 256): "fc1b2122d7a7c11aae08861314e23062dacd12f6104effb1e66aed2f2fa60146",
}
"""`mask_hash` of the standard sets, by law and by the side of a square grid."""


def mask_set(
    law: AbstractMaskLaw, count: int, height: int, width: int, seed: int
) -> Bool[np.ndarray, "{count} {height} {width}"]:
    """`count` known regions of a law, True where observed. Raises `ValueError` for a count below one."""
    if count < 1:
        raise ValueError(f"a set has at least one mask, got a count of {count}")
    return np.asarray(_draw(law, count, height, width, jr.key(seed, impl=GENERATOR)))


def published_set(law: AbstractMaskLaw, side: int) -> Bool[np.ndarray, "count {side} {side}"]:
    """The standard set of a law on a square grid, drawn and checked against its published hash.

    Raises `ValueError` if none is published, and `RuntimeError` if this installation draws another.
    """
    if (law, side) not in PUBLISHED:
        published = ", ".join(f"{known_law}: {known_side}" for known_law, known_side in PUBLISHED)
        raise ValueError(
            f"no set of {law} on {side}x{side} is published ({published}); draw one with mask_set and state its hash"
        )
    known = mask_set(law, STANDARD_COUNT, side, side, STANDARD_SEED)
    if mask_hash(known) != PUBLISHED[law, side]:
        raise RuntimeError(
            f"the set of {law} on {side}x{side} drawn here has hash {mask_hash(known)}, not the published "
            f"{PUBLISHED[law, side]}: JAX {jax.__version__} draws other random numbers, or the law was changed; "
            "numbers measured on it cannot be compared with published ones"
        )
    return known


def mask_hash(known: Bool[Array | np.ndarray, "batch height width"]) -> str:
    """SHA-256, in hexadecimal, of a set of known regions: of its shape and its bits, in their order."""
    values = np.asarray(known)
    shape = np.asarray(values.shape, "<i8").tobytes()
    return hashlib.sha256(shape + np.packbits(values).tobytes()).hexdigest()


@eqx.filter_jit
def _draw(law: AbstractMaskLaw, count: int, height: int, width: int, key: PRNGKeyArray) -> Bool[Array, "..."]:
    """One mask after another, so that each is drawn as long as it needs and memory holds one at work."""
    return jax.lax.map(lambda index: law(jr.fold_in(key, index), height, width), jnp.arange(count))
