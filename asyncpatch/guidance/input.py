"""Input guidance: away from what the image looks like where a region says less, towards what it looks like now.

For a region whose tokens are noised further in a second look, from `z` at `t` to `z'` at `t' >= t`,

    s~(z, t) = s(z, t) + g (s(z, t) - s(z', t'))                                                   (paper eqs. 7-8)

so that what is made agrees more with the region: with the known pixels of an inpainting, with a texture's exemplar. It
needs no label and no training beside: one network knows every time field. Here with any number of regions, and with the
first look noised further too if that is asked for:

    s~ = s + sum_r g_r (s(z^c_r, c_r) - s(z^n_r, n_r)),       t <= c_r <= n_r,  both equal to t outside of region r.

On a token whose time is `t` in a look, data, noise and velocity are the same linear map of the score, and mix as it
does. On the others the score is that of the noisier token, `-noise / sigma` at its own time.

Invariants: a weight of 0 is the identity to the bit; equal looks are taken once, and all in one batch.
"""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray, UInt32

from asyncpatch.guidance.one_batch import in_one_batch
from asyncpatch.guidance.region import GuidingRegion, Look, equal_looks
from asyncpatch.guidance.strength import ALWAYS, Weight, as_floats, check_interval, excess
from asyncpatch.noise_schedule import AbstractNoiseSchedule, safe_divide
from asyncpatch.process import AbstractDenoiser, Prediction, noise_further, per_channel
from asyncpatch.shapes import Image, Label, TimeField


class InputGuidance(AbstractDenoiser):
    """Another denoiser, guided by regions of its own input.

    `noise` is what the regions are noised with: an array (height width channel) is the same at every step; a key draws
    it afresh, from the key and the bits of image and times, so that equal calls give equal answers. Guidance acts on
    the tokens whose time is in `interval`. Wrap it around classifier-free guidance, or the other way round: all looks
    and all labels go through the network as one batch. Raises `ValueError` for no region, an interval that is none, and
    noise of another shape.

    Source: paper §3.3 and Appendix G.
    """

    denoiser: AbstractDenoiser
    looks: tuple[Look, ...]
    weights: tuple[Weight, ...]
    noise: Float[Array, "height width channel"] | PRNGKeyArray
    interval: Float[Array, "2"]
    pairs: tuple[tuple[int, int], ...] = eqx.field(static=True)
    """For every region the look to go towards and the one to get away from; look 0 is the input as it is."""

    def __init__(
        self,
        denoiser: AbstractDenoiser,
        regions: Sequence[GuidingRegion],
        noise: Float[Array, "height width channel"] | PRNGKeyArray,
        interval: ArrayLike | tuple[float, float] = ALWAYS,
    ):
        if not regions:
            raise ValueError("input guidance needs a guiding region, got none; leave the wrapper out")
        looks: list[Look] = []

        def number(look: Look) -> int:
            for index, other in enumerate(looks):
                if equal_looks(look, other):
                    return index + 1
            looks.append(look)
            return len(looks)

        self.pairs = tuple(
            (
                0 if one.cleaner is None else number(Look(one.region, one.cleaner)),
                number(Look(one.region, one.noisier)),
            )
            for one in regions
        )
        self.denoiser, self.noise, self.interval = denoiser, noise, as_floats(interval)
        self.looks, self.weights = tuple(looks), tuple(one.weight for one in regions)
        check_interval(self.interval)

    @property
    def schedule(self) -> AbstractNoiseSchedule:
        return self.denoiser.schedule

    @property
    def num_classes(self) -> int | None:
        return self.denoiser.num_classes

    def __call__(self, z: Image, t: TimeField, label: Label) -> Prediction:
        schedule = self.schedule
        strengths = [excess(weight, 0.0, self.interval, t)[..., None] for weight in self.weights]
        times = jnp.stack([t, *(look.times(t) for look in self.looks)])
        noise = self._noise(z, t)
        further = jax.vmap(lambda time: noise_further(schedule, z, t, time, noise))(times[1:])
        seen = jnp.concatenate([z[None], further])
        told = in_one_batch(self.denoiser, seen, times, jnp.broadcast_to(label, len(seen)))
        data, noise = jax.vmap(lambda time, *told: _at_times_of_input(schedule, z, t, time, *told))(
            times, told.data, told.noise
        )
        guided_data, guided_noise = told.data[0], told.noise[0]
        for strength, (towards, away) in zip(strengths, self.pairs, strict=True):
            guided_data = guided_data + strength * (data[towards] - data[away])
            guided_noise = guided_noise + strength * (noise[towards] - noise[away])
        return Prediction(guided_data, guided_noise, None if told.log_error is None else told.log_error[0])

    def _noise(self, z: Image, t: TimeField) -> Image:
        if jnp.issubdtype(self.noise.dtype, jax.dtypes.prng_key):
            return jr.normal(jr.fold_in(jr.fold_in(self.noise, _bits(z)), _bits(t)), z.shape, z.dtype)
        if self.noise.shape != z.shape:
            raise ValueError(f"the noise of input guidance has the image's shape {z.shape}, got {self.noise.shape}")
        return self.noise


def _at_times_of_input(
    schedule: AbstractNoiseSchedule, z: Image, t: TimeField, time: TimeField, data: Image, noise: Image
) -> tuple[Image, Image]:
    """Data and noise at `(z, t)` that have the score which a look at another time told."""
    same = (time == t)[..., None]
    alpha, sigma, sigma_there = (
        per_channel(of, z) for of in (schedule.alpha(t), schedule.sigma(t), schedule.sigma(time))
    )
    scaled = jnp.where(same, noise, safe_divide(sigma, sigma_there) * noise)
    return jnp.where(same, data, safe_divide(z - sigma * scaled, alpha)), scaled


def _bits(values: Float[Array, "..."]) -> UInt32[Array, ""]:
    """A number that differs whenever the values do, nearly surely."""
    words = jax.lax.bitcast_convert_type(values.ravel(), jnp.uint32)
    places = jnp.arange(words.size, dtype=jnp.uint32) * jnp.uint32(2654435761) + jnp.uint32(1)
    return jnp.sum(words * places, dtype=jnp.uint32)
