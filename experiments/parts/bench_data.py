"""Speed of the preparation of images, measured on photographs of ImageNet's usual size."""

import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from asyncpatch.data.prepare import Collection, FileOriginal, prepare

HEIGHT, WIDTH = 375, 500
"""The most frequent size of an image of ImageNet."""


def bench_preparation(images: int = 200, rounds: int = 5, workers: int = 0) -> None:
    """Print images a second at 64x64 and 256x256, and which part of the time JPEG decoding alone takes."""
    with tempfile.TemporaryDirectory() as folder:
        originals = _write_photographs(Path(folder), images)
        decoding = [_seconds(lambda: _decode_all(originals)) for _ in range(rounds)]
        print(f"JPEG decoding alone, {WIDTH}x{HEIGHT}: {images / statistics.median(decoding):.0f} images/s")
        for size in (64, 256):
            seconds = [
                _seconds(
                    lambda size=size, turn=turn: prepare(
                        Collection("bench", ("photo",), {"train": originals}),
                        size,
                        Path(folder) / f"{size}-{turn}",
                        workers=workers,
                        images_per_shard=max(1, images // max(1, 2 * workers)),
                    )
                )
                for turn in range(rounds)
            ]
            share = statistics.median(decoding) / statistics.median(seconds)
            rate = images / statistics.median(seconds)
            print(f"preparation to {size}x{size}: {rate:.0f} images/s, decoding is {100 * share:.0f}% of it")


def _write_photographs(folder: Path, count: int) -> tuple[FileOriginal, ...]:
    """Crops of two photographs at random places, as JPEG of quality 90."""
    rng = np.random.default_rng(0)
    photographs = load_sample_images().images
    originals = []
    for i in range(count):
        photograph = photographs[i % len(photographs)]
        top, left = (rng.integers(0, photograph.shape[axis] - part) for axis, part in enumerate((HEIGHT, WIDTH)))
        path = folder / f"{i:05d}.JPEG"
        Image.fromarray(photograph[top : top + HEIGHT, left : left + WIDTH]).save(path, quality=90)
        originals.append(FileOriginal(path.name, 0, str(path)))
    return tuple(originals)


def _decode_all(originals: tuple[FileOriginal, ...]) -> None:
    for original in originals:
        Image.open(io.BytesIO(original.read())).load()


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
