"""Networks: the UNet with spatial FiLM, the transformer with a time for every token, their presets, the denoiser, how
wrong it expects to be; the VQ autoencoder and its discriminator."""

from asyncpatch.nn.autoencoder import Autoencoder as Autoencoder
from asyncpatch.nn.autoencoder import AutoencoderConfig as AutoencoderConfig
from asyncpatch.nn.autoencoder import known_sites as known_sites
from asyncpatch.nn.autoencoder_presets import AUTOENCODERS as AUTOENCODERS
from asyncpatch.nn.autoencoder_presets import autoencoder_preset as autoencoder_preset
from asyncpatch.nn.base import AbstractFieldNetwork as AbstractFieldNetwork
from asyncpatch.nn.base import AbstractNetwork as AbstractNetwork
from asyncpatch.nn.base import AbstractNetworkConfig as AbstractNetworkConfig
from asyncpatch.nn.codebook import Codebook as Codebook
from asyncpatch.nn.codebook import CodeUse as CodeUse
from asyncpatch.nn.codebook import Quantised as Quantised
from asyncpatch.nn.denoiser import DroppingDenoiser as DroppingDenoiser
from asyncpatch.nn.denoiser import NetworkDenoiser as NetworkDenoiser
from asyncpatch.nn.difficulty import DifficultyHead as DifficultyHead
from asyncpatch.nn.difficulty import SelfAssessingDenoiser as SelfAssessingDenoiser
from asyncpatch.nn.difficulty import field_network as field_network
from asyncpatch.nn.difficulty import fingerprint as fingerprint
from asyncpatch.nn.discriminator import Discriminator as Discriminator
from asyncpatch.nn.discriminator import DiscriminatorConfig as DiscriminatorConfig
from asyncpatch.nn.identity import fingerprint_of as fingerprint_of
from asyncpatch.nn.inpainter import SupervisedInpainter as SupervisedInpainter
from asyncpatch.nn.inpainter import SupervisedInpainterConfig as SupervisedInpainterConfig
from asyncpatch.nn.inpainter import supervised_inpainter as supervised_inpainter
from asyncpatch.nn.lean_unet import LeanUNet as LeanUNet
from asyncpatch.nn.lean_unet import LeanUNetConfig as LeanUNetConfig
from asyncpatch.nn.presets import PRESETS as PRESETS
from asyncpatch.nn.presets import preset as preset
from asyncpatch.nn.stages import Stages as Stages
from asyncpatch.nn.transformer import Transformer as Transformer
from asyncpatch.nn.transformer import TransformerConfig as TransformerConfig
from asyncpatch.nn.unet import UNet as UNet
from asyncpatch.nn.unet import UNetConfig as UNetConfig
