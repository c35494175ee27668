"""Networks: the UNet with spatial FiLM, its presets, and the denoiser made of it."""

from asyncpatch.nn.denoiser import DroppingDenoiser as DroppingDenoiser
from asyncpatch.nn.denoiser import NetworkDenoiser as NetworkDenoiser
from asyncpatch.nn.presets import PRESETS as PRESETS
from asyncpatch.nn.presets import preset as preset
from asyncpatch.nn.unet import UNet as UNet
from asyncpatch.nn.unet import UNetConfig as UNetConfig
