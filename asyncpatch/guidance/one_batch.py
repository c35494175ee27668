"""All looks at an image, and those at all images of a batch, through a denoiser along one axis.

`jax.vmap` over images of a `jax.vmap` over looks would give every array of the network two leading axes, which XLA runs
some percent slower on a CPU than one axis of as many (`nox -s bench` prints what guidance costs). Here the axes become
one, however many `jax.vmap` stand around it.

Invariant: the same numbers as `jax.vmap` gives, up to rounding, and derivatives of them in both modes.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from asyncpatch.process import AbstractDenoiser, Prediction


def in_one_batch(
    denoiser: AbstractDenoiser,
    z: Float[Array, "looks height width channel"],
    t: Float[Array, "looks height width"],
    label: Int[Array, " looks"],
) -> Prediction:
    """The prediction at every look, on a leading axis."""
    arrays, rest = eqx.partition(denoiser, eqx.is_array)

    def plain(arrays: PyTree, *looks: Array) -> Prediction:
        return eqx.filter_vmap(eqx.combine(arrays, rest))(*looks)

    @jax.custom_batching.custom_vmap
    def flat(arrays: PyTree, *looks: Array) -> Prediction:
        return plain(arrays, *looks)

    @flat.def_vmap
    def of_all_images(images: int, mapped: list[PyTree], arrays: PyTree, *looks: Array) -> tuple[Prediction, PyTree]:
        own, shared = mapped[0], not any(jax.tree.leaves(mapped[0]))
        whole = [
            look if is_mapped else jnp.broadcast_to(look[None], (images, *look.shape))
            for look, is_mapped in zip(looks, mapped[1:], strict=True)
        ]
        if shared:
            told = flat(arrays, *(look.reshape(-1, *look.shape[2:]) for look in whole))
            told = jax.tree.map(lambda part: part.reshape(images, -1, *part.shape[1:]), told)
        else:  # a denoiser for each image has to keep its axis
            axes = jax.tree.map(lambda is_mapped: 0 if is_mapped else None, own)
            told = jax.vmap(plain, in_axes=(axes, *(0 for _ in whole)))(arrays, *whole)
        return told, jax.tree.map(lambda _: True, told)

    # `custom_vmap` alone has no reverse mode.
    @eqx.filter_custom_jvp
    def call(arrays: PyTree, *looks: Array) -> Prediction:
        return flat(arrays, *looks)

    @call.def_jvp
    def derivative(primals: tuple, tangents: tuple) -> tuple[Prediction, PyTree]:
        return eqx.filter_jvp(plain, primals, tangents)

    return call(arrays, z, t, label)
