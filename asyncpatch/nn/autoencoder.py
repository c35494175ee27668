"""The VQ autoencoder, whose known latents carry nothing of what is hidden.

Latent inpainting is fooled by its own autoencoder: each latent sees many pixels, so that known latents tell of hidden
pixels, or of the grey in their place. Here the known region goes in with the image. Hidden pixels are replaced before
the encoder sees them, the encoder and the decoder are told by FiLM which pixels are known, and both are trained on
whole and on masked images (`asyncpatch.losses.autoencoder`). Source: paper §5.2.

Invariant: latents, known or not, are functions of the known pixels and the known region alone: what a hidden pixel
holds, even NaN, changes no bit of them. A latent site is known when all of its pixels are (`known_sites`). A whole
image is one whose pixels are all known.
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from asyncpatch.nn.codebook import Codebook, Quantised
from asyncpatch.nn.layers import draw_weights, time_features
from asyncpatch.nn.stages import MOST, Decoder, Encoder, Latents, Stages
from asyncpatch.ranges import check_number
from asyncpatch.shapes import Image, Known


@dataclasses.dataclass(frozen=True)
class AutoencoderConfig:
    """The shape of an `Autoencoder`."""

    channels: int
    """Channels of the image, 1 for grey and 3 for colour."""
    encoder: Stages
    decoder: Stages
    latent_channels: int = 3
    codes: int = 8192
    """The size of the codebook."""
    compute_dtype: str = "float32"
    """Type of activations and of the weights' working copies: `float32` or `bfloat16`. Codes stay float32."""
    rematerialise: bool = False
    """Recompute blocks in the backward pass instead of storing their activations."""

    def __post_init__(self):
        if self.compute_dtype not in ("float32", "bfloat16"):
            raise ValueError(f"compute_dtype is float32 or bfloat16, got {self.compute_dtype!r}")
        for name in ("channels", "latent_channels"):
            check_number(name, getattr(self, name), lambda count: 1 <= count <= MOST, f"in 1 to {MOST:,}")
        check_number("codes", self.codes, lambda count: 2 <= count <= MOST, f"in 2 to {MOST:,} (one code says nothing)")
        if self.encoder.factor != self.decoder.factor:
            raise ValueError(
                f"the encoder shrinks an image by {self.encoder.factor} and the decoder enlarges it by "
                f"{self.decoder.factor}; give both as many levels"
            )

    @property
    def factor(self) -> int:
        """Pixels of a side of a latent site."""
        return self.encoder.factor

    def build(self, key: PRNGKeyArray) -> "Autoencoder":
        """An autoencoder with fresh weights."""
        return Autoencoder(self, key)

    def check_image(self, height: int, width: int, channels: int) -> None:
        """Raises `ValueError` if images of this shape cannot be encoded."""
        if channels != self.channels:
            raise ValueError(f"the autoencoder takes images of {self.channels} channels, got {channels}")
        if height % self.factor or width % self.factor:
            raise ValueError(
                f"the autoencoder cannot divide an image of {height}x{width} pixels into its latent sites of "
                f"{self.factor}x{self.factor}; pad or resize it to multiples of {self.factor}"
            )


class Autoencoder(eqx.Module):
    """An image with its known region to latents, latents to codes, and latents with the known region to an image."""

    config: AutoencoderConfig = eqx.field(static=True)
    encoder: Encoder
    codebook: Codebook
    decoder: Decoder

    def __init__(self, config: AutoencoderConfig, key: PRNGKeyArray):
        encoder = Encoder(config.encoder, config.channels, config.latent_channels)
        decoder = Decoder(config.decoder, config.channels, config.latent_channels)
        codebook = Codebook(config.codes, config.latent_channels)
        self.config = config
        self.encoder, self.codebook, self.decoder = draw_weights((encoder, codebook, decoder), key)

    def encode(self, image: Image, known: Array) -> Latents:
        """Latents before they are quantised; `known` is True where a pixel is observed.

        Raises `ValueError` before any compute if the image, or the known region of its pixels, has another shape.
        """
        self.config.check_image(*image.shape)
        check_region(image, known)
        seen = jnp.concatenate([jnp.where(known[..., None], image, 0.0), known[..., None]], axis=-1, dtype=image.dtype)
        encoder, seen, features = self._cast(self.encoder, seen, known_features(known))
        return encoder(seen, features, self.config.rematerialise).astype(jnp.float32)

    def quantise(self, latents: Latents) -> Quantised:
        """Each latent site as its nearest code."""
        return self.codebook(latents)

    def decode(self, latents: Latents, known: Known) -> Image:
        """The image of quantised latents. `known` are the pixels that the latents were encoded from; all of them, once
        the latents of hidden sites were generated. Raises as `encode` does."""
        return self.paint(self.before_last(latents, known))

    def before_last(self, latents: Latents, known: Known) -> Float[Array, "height width hidden"]:
        """What the decoder's last layer reads. Raises as `encode` does."""
        rows, cols = (side // self.config.factor for side in known.shape)
        self.config.check_image(*known.shape, self.config.channels)
        if latents.shape != (rows, cols, self.config.latent_channels):
            raise ValueError(
                f"latents of {known.shape[0]}x{known.shape[1]} pixels have shape "
                f"{(rows, cols, self.config.latent_channels)}, got {latents.shape}; give latents of this autoencoder, "
                "and the known region of pixels, not of sites"
            )
        decoder, latents, features = self._cast(self.decoder, latents, known_features(known))
        return decoder(latents, features, self.config.rematerialise).astype(jnp.float32)

    def paint(self, hidden: Float[Array, "height width hidden"]) -> Image:
        """The decoder's last layer: what it reads to an image, whose values may stray a little from [-1, 1]."""
        return self.decoder.last(hidden)

    def __call__(self, image: Image, known: Array) -> Image:
        """An image there and back. Raises as `encode` does."""
        return self.decode(self.quantise(self.encode(image, known)).latents, known)

    def _cast(self, *trees):
        dtype = jnp.dtype(self.config.compute_dtype)
        return jax.tree.map(lambda leaf: leaf.astype(dtype) if eqx.is_inexact_array(leaf) else leaf, trees)


def known_features(known: Known) -> Float[Array, "height width features"]:
    """Features of a field that is 0 where a pixel is known and 1 where it is hidden, as those of a time field."""
    return time_features(jnp.where(known, 0.0, 1.0))


def known_sites(known: Known, factor: int) -> Bool[Array, "rows cols"]:
    """The latent sites all of whose pixels are known. Raises `ValueError` if `factor` does not divide the sides."""
    height, width = known.shape
    if factor < 1 or height % factor or width % factor:
        raise ValueError(
            f"latent sites of {factor}x{factor} pixels do not tile a region of {height}x{width}; pad or resize it to "
            f"multiples of {factor}"
        )
    return known.reshape(height // factor, factor, width // factor, factor).all((1, 3))


def check_region(image: Image, known: Array) -> None:
    """Raises `TypeError` unless a known region is boolean, and `ValueError` unless it has the size of its image."""
    if known.dtype != bool:
        raise TypeError(f"a known region must be boolean, True where a pixel is observed, got {known.dtype}")
    height, width, _ = image.shape
    if known.shape != (height, width):
        raise ValueError(
            f"the known region of an image of {height}x{width} pixels has a value for each of them, got one of "
            f"shape {known.shape}; resize it with nearest neighbours"
        )
