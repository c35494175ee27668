"""Weights drawn by name, and photographs: the inputs that the feature networks and their peers share in tests."""

import zlib

import numpy as np
from skimage import data


def random_arrays(shapes):
    """Weights that keep activations of unit scale, each drawn from a stream that its name seeds.

    `RandomState`, as numpy promises never to change its streams.
    """
    return {name: _draw(name, shape) for name, shape in shapes.items()}


def _draw(name, shape):
    stream = np.random.RandomState(zlib.crc32(name.encode()))
    kind = name.rsplit(".", 1)[-1]
    if name.startswith("lin"):
        return stream.uniform(0, 1, shape).astype(np.float32)
    if len(shape) == 4:
        return (stream.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))).astype(np.float32)
    if kind in ("running_var", "weight"):
        return stream.uniform(0.5, 1.5, shape).astype(np.float32)
    return (0.1 * stream.standard_normal(shape)).astype(np.float32)


def photos():
    """Three photographs of 80 by 96 pixels, in [-1, 1]."""
    shrunk = [data.astronaut()[:320:4, 64:448:4], data.chelsea()[40:280:3, 60:348:3], data.coffee()[:320:4, 100:484:4]]
    return np.stack(shrunk).astype(np.float32) / 127.5 - 1


def pairs():
    """Each photograph beside one like it: shifted by a pixel, with noise, and mirrored."""
    first = photos()
    noise = np.random.RandomState(0).standard_normal(first[1].shape).astype(np.float32)
    second = np.stack([np.roll(first[0], 1, axis=1), np.clip(first[1] + 0.2 * noise, -1, 1), first[2][:, ::-1]])
    return first, second
