"""Peers of the benchmark in torch: our own UNet written there, and diffusers' UNet of the same shape.

Imported by `experiments.bench` where torch and diffusers are installed; nothing else needs them.
"""

import math
from collections.abc import Callable

import diffusers
import torch
from torch import nn
from torch.nn import functional

from asyncpatch.nn import UNetConfig
from asyncpatch.nn.layers import TIME_FEATURES


class Block(nn.Module):
    """The residual block of `asyncpatch.nn.blocks`, channels first."""

    def __init__(self, inputs: int, outputs: int, scale: float = 1.0):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(inputs, 1, 1))
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.film = nn.Conv2d(TIME_FEATURES, 2 * outputs, 1)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.scale = scale

    def resample(self, x):
        if self.scale == 0.5:
            return functional.avg_pool2d(x, 2)
        return functional.interpolate(x, scale_factor=2.0) if self.scale == 2.0 else x

    def forward(self, x, pyramid):
        hidden = self.first(self.resample(functional.silu(rms(x) * self.gain)))
        scale, shift = self.film(pyramid[hidden.shape[-1]]).chunk(2, dim=1)
        hidden = functional.silu(rms(hidden) * (1 + scale) + shift)
        return self.skip(self.resample(x)) + self.second(hidden)


def rms(x):
    """Unit root mean square over channels."""
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-6)


class Twin(nn.Module):
    """The UNet of `asyncpatch.nn.unet` without attention and labels."""

    def __init__(self, config: UNetConfig):
        super().__init__()
        widths = [config.base * multiplier for multiplier in config.multipliers]
        self.stem = nn.Conv2d(config.channels, config.base, 3, padding=1)
        self.levels = len(widths)
        down, skips, width = [], [config.base], config.base
        for level, outputs in enumerate(widths):
            for _ in range(config.blocks):
                down.append(Block(width, outputs))
                width = outputs
                skips.append(width)
            if level < len(widths) - 1:
                down.append(Block(width, width, 0.5))
                skips.append(width)
        middle = [Block(width, width) for _ in range(config.middle_blocks)]
        up = []
        for level, outputs in reversed(list(enumerate(widths))):
            for _ in range(config.blocks + 1):
                up.append(Block(width + skips.pop(), outputs))
                width = outputs
            if level > 0:
                up.append(Block(width, width, 2.0))
        self.down, self.middle, self.up = nn.ModuleList(down), nn.ModuleList(middle), nn.ModuleList(up)
        self.head = nn.Conv2d(config.base, config.channels, 3, padding=1)

    def forward(self, z, t):
        modes = torch.arange(TIME_FEATURES, dtype=t.dtype, device=t.device)[None, :, None, None]
        features = torch.cos(math.pi * modes * t[:, None])
        pyramid = {
            features.shape[-1] >> level: functional.avg_pool2d(features, 1 << level) for level in range(self.levels)
        }
        x = self.stem(z)
        skips = [x]
        for block in self.down:
            x = block(x, pyramid)
            skips.append(x)
        for block in self.middle:
            x = block(x, pyramid)
        for block in self.up:
            x = block(x if block.scale == 2.0 else torch.cat([x, skips.pop()], 1), pyramid)
        return self.head(functional.silu(rms(x)))


class DiffusersUNet(nn.Module):
    """diffusers' `UNet2DModel` of the same widths and blocks; it knows one time an image and normalises by groups."""

    def __init__(self, config: UNetConfig):
        super().__init__()
        levels = len(config.multipliers)
        self.net = diffusers.UNet2DModel(
            in_channels=config.channels,
            out_channels=config.channels,
            layers_per_block=config.blocks,
            block_out_channels=tuple(config.base * multiplier for multiplier in config.multipliers),
            down_block_types=("DownBlock2D",) * levels,
            up_block_types=("UpBlock2D",) * levels,
            add_attention=False,
        )

    def forward(self, z, t):
        return self.net(z, 1000 * t[:, 0, 0]).sample


def train_step_of(net: nn.Module, config: UNetConfig, batch: int, size: int) -> Callable[[], None]:
    """An Adam step on the velocity of random images at one time each: on the card if torch sees one, in the config's
    type.
    """
    torch.manual_seed(0)
    device, layout = ("cuda", torch.channels_last) if torch.cuda.is_available() else ("cpu", torch.contiguous_format)
    net = net.to(device=device, memory_format=layout)
    images = torch.randn(batch, config.channels, size, size, device=device).to(memory_format=layout)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-4, fused=device == "cuda")
    torch.backends.cudnn.benchmark = True
    autocast = torch.autocast(device, torch.bfloat16, enabled=config.compute_dtype == "bfloat16")

    def once() -> None:
        noise, time = torch.randn_like(images), torch.rand(batch, 1, 1, device=device)
        t = time.expand(batch, size, size)
        z = (1 - t)[:, None] * images + t[:, None] * noise
        with autocast:
            velocity = net(z, t)
        loss = (velocity.float() - (noise - images)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()

    return once
