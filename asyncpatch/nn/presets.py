"""Named shapes of the networks. Parameter counts are tested from shapes alone."""

import dataclasses

from asyncpatch.nn.base import AbstractNetworkConfig
from asyncpatch.nn.lean_unet import LeanUNetConfig
from asyncpatch.nn.transformer import TransformerConfig
from asyncpatch.nn.unet import UNetConfig

PRESETS: dict[str, AbstractNetworkConfig] = {
    "digits": UNetConfig(
        channels=1, num_classes=10, base=32, multipliers=(1, 2), blocks=1, attention=(False, True), head=32
    ),
    "fashion": LeanUNetConfig(channels=1, num_classes=10, widths=(16, 64, 128), blocks=(1, 1)),
    "fashion-small": LeanUNetConfig(channels=1, num_classes=10, widths=(32, 32, 64), blocks=(1, 1)),
    "miniature": UNetConfig(
        channels=1,
        num_classes=10,
        base=32,
        multipliers=(1, 2),
        blocks=1,
        attention=(False, True),
        head=32,
        patch=4,
        pixel_channels=16,
    ),
    "60m": UNetConfig(
        channels=3,
        num_classes=1000,
        base=128,
        multipliers=(1, 2, 2, 3),
        blocks=2,
        attention=(False, False, True, True),
        middle_blocks=3,
    ),
    "600m": UNetConfig(
        channels=3,
        num_classes=1000,
        base=256,
        multipliers=(1, 2, 3, 4),
        blocks=4,
        attention=(False, False, True, True),
        middle_blocks=3,
        dropout=0.1,
        compute_dtype="bfloat16",
        rematerialise=True,
    ),
    "miniature-transformer": TransformerConfig(
        channels=1, num_classes=10, width=128, depth=5, hidden=384, head=32, pixel_channels=16
    ),
    "60m-transformer": TransformerConfig(channels=3, num_classes=1000, width=640, depth=12, hidden=1664),
    "600m-transformer": TransformerConfig(
        channels=3,
        num_classes=1000,
        width=1280,
        depth=30,
        hidden=3456,
        dropout=0.1,
        compute_dtype="bfloat16",
        rematerialise=True,
    ),
}


def preset(name: str, channels: int, num_classes: int) -> AbstractNetworkConfig:
    """The preset `name` for images of `channels` channels and `num_classes` classes.

    Raises `ValueError` for an unknown name.
    """
    if name not in PRESETS:
        raise ValueError(f"no preset is called {name!r}; choose one of {', '.join(PRESETS)}")
    return dataclasses.replace(PRESETS[name], channels=channels, num_classes=num_classes)
