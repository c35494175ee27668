"""Canvases of any size through a denoiser of small images: overlapping windows, averaged.

    xhat(z, t)_i = sum_k w_k(i) xhat_k(z, t)_i / sum_k w_k(i)        window k sees the crop of (z, t) below it

A network that was trained on small images meets more tokens than it knows on a large canvas, and its memory grows with
them. A window shows it an image of its own size. Windows that overlap agree by averaging at every step, and what one
of them knows reaches the next (MultiDiffusion, arXiv 2302.08113). The weight of a window falls smoothly from its middle
to its edges, where it cannot see what lies beyond:

    w(row, col) = s(row) s(col),      s(i) = sin^2(pi (i + 1/2) / window)

Invariants: every token lies in a window; the weights of a token sum to 1, so that `alpha data + sigma noise = z` holds
of the average as of its parts; a single window is the denoiser itself, to the bit.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from asyncpatch.noise_schedule import AbstractNoiseSchedule
from asyncpatch.process.base import AbstractDenoiser, Prediction
from asyncpatch.ranges import check_counts
from asyncpatch.shapes import Image, Label, TimeField


class Windowed(AbstractDenoiser):
    """A denoiser of canvases of `window` pixels a side or more, by one of images of that size.

    Windows begin every `stride` pixels, and at the last place where one fits. All of them go through the denoiser as
    one batch. Raises `ValueError` unless `1 <= stride <= window`, and, when called, for a canvas smaller than a window.
    """

    denoiser: AbstractDenoiser
    window: int = eqx.field(static=True)
    stride: int = eqx.field(static=True)

    def __check_init__(self):
        check_counts(window=self.window, stride=self.stride)
        if self.stride > self.window:
            raise ValueError(
                f"windows of {self.window} pixels that begin every {self.stride} leave pixels uncovered; give a stride "
                f"of at most {self.window}, of half a window for instance"
            )

    @property
    def schedule(self) -> AbstractNoiseSchedule:
        return self.denoiser.schedule

    @property
    def num_classes(self) -> int | None:
        return self.denoiser.num_classes

    def __call__(self, z: Image, t: TimeField, label: Label) -> Prediction:
        height, width, _ = z.shape
        rows, cols = self._places(height), self._places(width)
        row, col = np.repeat(rows, len(cols), axis=0)[:, :, None], np.tile(cols, (len(rows), 1))[:, None, :]
        weight = self._weights(row, col, height, width)
        seen = eqx.filter_vmap(self.denoiser, in_axes=(0, 0, None))(z[row, col], t[row, col], label)

        def average(parts: Float[Array, "windows window window *channel"]) -> Float[Array, "..."]:
            weighted = parts * weight.reshape(weight.shape + (1,) * (parts.ndim - weight.ndim))
            return jnp.zeros((height, width, *parts.shape[3:]), parts.dtype).at[row, col].add(weighted)

        return jax.tree.map(average, seen)

    def _places(self, length: int) -> Int[np.ndarray, "places window"]:
        """The pixels of each window along one side."""
        last = length - self.window
        if last < 0:
            raise ValueError(
                f"windows of {self.window} pixels do not fit on a canvas with a side of {length}; give a larger "
                "canvas, or call the denoiser itself"
            )
        starts = np.minimum(np.arange(0, last + self.stride, self.stride), last)
        return starts[:, None] + np.arange(self.window)[None]

    def _weights(
        self,
        row: Int[np.ndarray, "windows window 1"],
        col: Int[np.ndarray, "windows 1 window"],
        height: int,
        width: int,
    ) -> Float[np.ndarray, "windows window window"]:
        """Of every pixel of every window; those of one pixel of the canvas sum to 1."""
        side = np.sin(np.pi * (np.arange(self.window) + 0.5) / self.window) ** 2
        weight = np.broadcast_to(side[:, None] * side[None, :], (len(row), self.window, self.window))
        total = np.zeros((height, width))
        np.add.at(total, (row, col), weight)
        return (weight / total[row, col]).astype(np.float32)
