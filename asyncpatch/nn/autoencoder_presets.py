"""Named shapes of autoencoders and of their discriminators. Parameter counts are tested from shapes alone.

None has attention in the encoder: what an encoder sees far away, its latents tell. Nor has it a block
at the last level, so that the known region of an image changes no latent that lies more than two sites from it.
"""

import dataclasses

from asyncpatch.nn.autoencoder import AutoencoderConfig
from asyncpatch.nn.discriminator import DiscriminatorConfig
from asyncpatch.nn.stages import Stages

AUTOENCODERS: dict[str, tuple[AutoencoderConfig, DiscriminatorConfig]] = {
    "photographs-64": (
        AutoencoderConfig(
            channels=3,
            encoder=Stages(widths=(16, 64, 128), blocks=(0, 1, 0)),
            decoder=Stages(widths=(16, 64, 128), blocks=(1, 1, 2), attention=1, head=32),
            codes=1024,
        ),
        DiscriminatorConfig(channels=3, widths=(32, 64, 128)),
    ),
    "paper-256": (
        AutoencoderConfig(
            channels=3,
            encoder=Stages(widths=(128, 256, 512), blocks=(1, 1, 0)),
            decoder=Stages(widths=(128, 256, 512), blocks=(3, 4, 10), attention=1),
            compute_dtype="bfloat16",
            rematerialise=True,
        ),
        DiscriminatorConfig(channels=3),
    ),
}
"""For 64x64 photographs on a small machine, and 256x256 pixels at the size of Latent Diffusion's VQ-f4 (arXiv
2112.10752), with 8192 codes of 3 channels."""


def autoencoder_preset(name: str, channels: int = 3) -> tuple[AutoencoderConfig, DiscriminatorConfig]:
    """The preset `name` for images of `channels` channels. Raises `ValueError` for an unknown name."""
    if name not in AUTOENCODERS:
        raise ValueError(f"no autoencoder is called {name!r}; choose one of {', '.join(AUTOENCODERS)}")
    autoencoder, discriminator = AUTOENCODERS[name]
    return dataclasses.replace(autoencoder, channels=channels), dataclasses.replace(discriminator, channels=channels)
