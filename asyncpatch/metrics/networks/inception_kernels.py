"""The convolutions of InceptionV3 by name, and the shapes of the weights that pytorch-fid stores for them."""

from collections.abc import Iterator

from asyncpatch.metrics.networks.layers import normalized_shapes

_Kernels = Iterator[tuple[str, tuple[int, int, int, int]]]


def inception_kernels() -> _Kernels:
    """Every convolution: name, then outputs, inputs, rows and columns of its kernel."""
    yield "Conv2d_1a_3x3", (32, 3, 3, 3)
    yield "Conv2d_2a_3x3", (32, 32, 3, 3)
    yield "Conv2d_2b_3x3", (64, 32, 3, 3)
    yield "Conv2d_3b_1x1", (80, 64, 1, 1)
    yield "Conv2d_4a_3x3", (192, 80, 3, 3)
    for block, inputs, pooled in (("Mixed_5b", 192, 32), ("Mixed_5c", 256, 64), ("Mixed_5d", 288, 64)):
        yield from _kernels_35(block, inputs, pooled)
    yield "Mixed_6a.branch3x3", (384, 288, 3, 3)
    yield from _chain("Mixed_6a.branch3x3dbl_", 288, "123", ((64, 1, 1), (96, 3, 3), (96, 3, 3)))
    for block, inner in (("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)):
        yield from _kernels_17(block, inner)
    yield from _chain("Mixed_7a.branch3x3_", 768, "12", ((192, 1, 1), (320, 3, 3)))
    yield from _chain("Mixed_7a.branch7x7x3_", 768, "1234", ((192, 1, 1), (192, 1, 7), (192, 7, 1), (192, 3, 3)))
    for block, inputs in (("Mixed_7b", 1280), ("Mixed_7c", 2048)):
        yield from _kernels_8(block, inputs)


def _chain(prefix: str, inputs: int, labels: str, sizes: tuple[tuple[int, int, int], ...]) -> _Kernels:
    """Convolutions that follow one another; each size is outputs, rows and columns."""
    for label, (outputs, rows, cols) in zip(labels, sizes, strict=True):
        yield f"{prefix}{label}", (outputs, inputs, rows, cols)
        inputs = outputs


def _kernels_35(block: str, inputs: int, pooled: int) -> _Kernels:
    yield f"{block}.branch1x1", (64, inputs, 1, 1)
    yield from _chain(f"{block}.branch5x5_", inputs, "12", ((48, 1, 1), (64, 5, 5)))
    yield from _chain(f"{block}.branch3x3dbl_", inputs, "123", ((64, 1, 1), (96, 3, 3), (96, 3, 3)))
    yield f"{block}.branch_pool", (pooled, inputs, 1, 1)


def _kernels_17(block: str, inner: int) -> _Kernels:
    yield f"{block}.branch1x1", (192, 768, 1, 1)
    yield from _chain(f"{block}.branch7x7_", 768, "123", ((inner, 1, 1), (inner, 1, 7), (192, 7, 1)))
    tall_and_wide = ((inner, 1, 1), (inner, 7, 1), (inner, 1, 7), (inner, 7, 1), (192, 1, 7))
    yield from _chain(f"{block}.branch7x7dbl_", 768, "12345", tall_and_wide)
    yield f"{block}.branch_pool", (192, 768, 1, 1)


def _kernels_8(block: str, inputs: int) -> _Kernels:
    yield f"{block}.branch1x1", (320, inputs, 1, 1)
    yield f"{block}.branch3x3_1", (384, inputs, 1, 1)
    yield from _chain(f"{block}.branch3x3dbl_", inputs, "12", ((448, 1, 1), (384, 3, 3)))
    for branch in ("branch3x3_2", "branch3x3dbl_3"):
        yield f"{block}.{branch}a", (384, 384, 1, 3)
        yield f"{block}.{branch}b", (384, 384, 3, 1)
    yield f"{block}.branch_pool", (192, inputs, 1, 1)


INCEPTION_SHAPES = {
    key: shape
    for name, kernel in inception_kernels()
    for key, shape in normalized_shapes(f"{name}.conv", f"{name}.bn", kernel).items()
}
