"""Between an opened autoencoder and the runs on its latents: encoding its data once, and seeing what such runs make.

A run is on the encoder's latents before they are quantised; the decoder quantises (Latent Diffusion, arXiv 2112.10752,
whose VQ models are used in this way). So a network is asked for real numbers of unit variance and never for a code, and
what it makes beside a code is brought to it.
"""

import dataclasses
from pathlib import Path
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.experimental import multihost_utils
from jaxtyping import Array, Float

from asyncpatch.data import (
    AbstractView,
    Encoder,
    LatentColours,
    Latents,
    LatentView,
    PixelView,
    latents_in,
    latents_of,
    write_latents,
)
from asyncpatch.data.latents import DIGITS_SHOWN
from asyncpatch.nn import Autoencoder
from asyncpatch.runs.autoencoder_opened import OpenedAutoencoder
from asyncpatch.runs.experiment import Experiment
from asyncpatch.shapes import Image

TRAINING, HELD_OUT = "train", "held_out"
"""Folders of latents, of the images that the autoencoder was trained on and of those that it was not."""


class Decoding(eqx.Module):
    """The image of the latents of all its sites, known or made."""

    autoencoder: Autoencoder

    def __call__(self, latents: Float[Array, "rows cols features"]) -> Image:
        factor = self.autoencoder.config.factor
        rows, cols, _ = latents.shape
        everything = jnp.ones((rows * factor, cols * factor), bool)
        return self.autoencoder.decode(self.autoencoder.quantise(latents).latents, everything)


def encode_data(
    folder: Path, opened: OpenedAutoencoder, stored: Literal["float16", "float32"] = "float16"
) -> tuple[Latents, Latents]:
    """The latents of the images that an autoencoder was trained on, and of those that it was not, from `folder`.

    What `folder` does not hold is encoded first, by one process: whole images without flips. Held-out latents are
    scaled as the others are. Raises `ValueError` if those that it holds are of another autoencoder, and if its images
    are transformed.
    """
    data = opened.experiment.data
    if data.transforms:
        raise ValueError(
            f"the autoencoder's images are changed by {data.transforms}, and images are encoded as they are stored; "
            "store them changed, and train it on those"
        )

    def encode(image: Image) -> Float[Array, "rows cols features"]:
        return opened.autoencoder.encode(image, jnp.ones(image.shape[:2], bool))

    for name, source in ((TRAINING, data.source), (HELD_OUT, data.held_out)):
        if jax.process_index() == 0 and not (folder / name).exists():
            print(f"encoding images for {folder / name}", flush=True)
            write_latents(source, Encoder(encode, opened.fingerprint), folder / name, stored)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("the first process has encoded the images")
    training = latents_in(folder / TRAINING, opened.fingerprint)
    held_out = dataclasses.replace(training, folder=str(folder / HELD_OUT))
    held_out.open()
    return training, held_out


def usual_view(experiment: Experiment) -> AbstractView:
    """How a run is seen with nothing else at hand: its pixels, or its latents as colours."""
    return PixelView() if latents_of(experiment.data.source) is None else LatentColours()


def latent_view(opened: OpenedAutoencoder, experiment: Experiment) -> LatentView:
    """How a run on latents of this autoencoder is seen. Raises `ValueError` for one on pixels, or on other latents."""
    latents = latents_of(experiment.data.source)
    if latents is None:
        raise ValueError("the run makes pixels, which no autoencoder decodes; leave the autoencoder out")
    if latents.autoencoder != opened.fingerprint:
        raise ValueError(
            f"the run is on latents of the autoencoder {latents.autoencoder[:DIGITS_SHOWN]}..., got "
            f"{opened.fingerprint[:DIGITS_SHOWN]}...; give the one that they were made by: the folder and its step, or "
            "the file (one in float16 is another autoencoder than the folder that it was exported from)"
        )
    return LatentView(latents.scale, Decoding(opened.autoencoder))
