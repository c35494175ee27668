"""Regions of an image that guide, and the looks that a denoiser takes for their sake.

Invariant: a region's tokens are never made cleaner, and no token outside of it changes its time.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, PyTree, Shaped

from asyncpatch.guidance.strength import Weight, as_floats, check_weight
from asyncpatch.shapes import TimeField


def _as_region(region: ArrayLike | None) -> Shaped[Array, "*any"] | None:
    return None if region is None else jnp.asarray(region)


def _as_time(time: ArrayLike | None) -> Float[Array, "*any"] | None:
    return None if time is None else as_floats(time)


class GuidingRegion(eqx.Module):
    """A region that guides, and how much.

    `weight` is one number or a map of them: 0 is off. `region` is True where a token guides; not given, it is wherever
    a token is clean, as the known ones of an image are unless they trail the others: those that do are not clean, and
    guide if they are given as the region. Its tokens are noised to time `noisier` in the look to get away
    from (one time, or a map), unless they are noisier already; `None` is the time of the noisiest token, for networks
    that know one time per image. In the look to go towards they are left as they are, or noised to time `cleaner`.

    Raises `ValueError` for weights that are not finite, times out of [0, 1], a noisier time below the cleaner one, and
    a region without tokens, `TypeError` for one that is not boolean.
    """

    weight: Weight = eqx.field(converter=as_floats)
    region: Bool[Array, "height width"] | None = eqx.field(converter=_as_region, default=None)
    noisier: Weight | None = eqx.field(converter=_as_time, default=1.0)
    cleaner: Weight | None = eqx.field(converter=_as_time, default=None)

    def __check_init__(self):
        check_weight(self.weight)
        _check_time("noisier", self.noisier)
        _check_time("cleaner", self.cleaner)
        _check_order(self.cleaner, self.noisier)
        if self.region is None:
            return
        if self.region.dtype != bool:
            raise TypeError(f"a guiding region is boolean, True where it guides, got dtype {self.region.dtype}")
        if not isinstance(self.region, Tracer) and not bool(self.region.any()):
            raise ValueError("the guiding region has no token; leave it out to be guided by the clean tokens")


def _check_time(name: str, time: Array | None) -> None:
    if time is None or isinstance(time, Tracer):
        return
    if time.ndim not in (0, 2):
        raise ValueError(f"the {name} time of a guiding region is one time or a map of them, got shape {time.shape}")
    values = np.asarray(time)
    wrong = values[~((values >= 0) & (values <= 1))]
    if wrong.size:
        raise ValueError(
            f"the {name} time of a guiding region is in [0, 1], got {wrong[0]:g}; 0 is clean and 1 is noise"
        )


def _check_order(cleaner: Array | None, noisier: Array | None) -> None:
    if cleaner is None or noisier is None or isinstance(cleaner, Tracer) or isinstance(noisier, Tracer):
        return
    if {cleaner.ndim, noisier.ndim} == {2} and cleaner.shape != noisier.shape:
        raise ValueError(f"maps of a guiding region's times have one shape, got {cleaner.shape} and {noisier.shape}")
    low, high = np.broadcast_arrays(np.asarray(cleaner), np.asarray(noisier))
    wrong = np.argwhere(high < low)
    if len(wrong):
        at = tuple(wrong[0])
        raise ValueError(
            f"a guiding region's noisier time, {high[at]:g}, is below the cleaner one, {low[at]:g}; exchange them"
        )


class Look(eqx.Module):
    """A region and the time that it is noised to; `None` as in `GuidingRegion`."""

    region: Bool[Array, "height width"] | None
    time: Weight | None

    def times(self, t: TimeField) -> TimeField:
        """Of every token. Raises `ValueError` for arrays of another shape than the image."""
        for name, array in (("region", self.region), ("time", self.time)):
            if array is not None and array.ndim and array.shape != t.shape:
                raise ValueError(
                    f"the {name} of a guiding region is of the image's size, {t.shape}, got {array.shape}; it lies "
                    "outside of the image"
                )
        region = (t == 0) if self.region is None else self.region
        time = jnp.max(t) if self.time is None else self.time
        return jnp.where(region, jnp.maximum(t, time), t)


def equal_looks(one: PyTree, other: PyTree) -> bool:
    """Whether two looks are known to be equal; under `jax.jit` only if they are the same object."""
    if jax.tree.structure(one) != jax.tree.structure(other):
        return False
    return all(
        a is b
        or (not isinstance(a, Tracer) and not isinstance(b, Tracer) and np.array_equal(np.asarray(a), np.asarray(b)))
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    )
