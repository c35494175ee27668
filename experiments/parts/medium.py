"""What lies between a run and the pixels that it is judged by: nothing, or an autoencoder.

A run of latents is judged as one of pixels: by the images that its autoencoder held out, in sizes and under known
regions of pixels. What a network is given of an image is encoded *with* its known region, so that known sites tell
nothing of hidden pixels; a site is known when all of its pixels are; hidden sites are made, from noise, also where some
of their pixels are known; and the whole is decoded as an image whose pixels are all known. Latents are not quantised on
the way in: the network was trained on latents as the encoder gives them, and the decoder quantises.
"""

import abc
import dataclasses
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from asyncpatch.data import AbstractView, LatentView, PixelView, give_back, latents_of, open_once
from asyncpatch.nn import Autoencoder, known_sites
from asyncpatch.runs import AutoencoderExperiment, Experiment, OpenedAutoencoder, latent_view
from experiments.parts.judges import Images, in_batches

Known = Bool[np.ndarray, "images height width"]
Tokens = Float[Array, "images rows cols features"]


@dataclasses.dataclass(frozen=True, eq=False)
class AbstractMedium(abc.ABC):
    """The tokens that a run's denoiser makes, and their way to images and back.

    To write one more: a frozen dataclass with these six. No image may depend on another one.
    """

    experiment: Experiment
    """Of the run."""

    @property
    @abc.abstractmethod
    def pixels(self) -> Experiment | AutoencoderExperiment:
        """Whose data the images are that it is judged by."""

    @property
    @abc.abstractmethod
    def side(self) -> int:
        """Of a token, in pixels."""

    @property
    @abc.abstractmethod
    def view(self) -> AbstractView:
        """From tokens to images."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of the images that the denoiser's tokens stand for."""
        rows, cols, _ = self.experiment.data.shape
        return rows * self.side, cols * self.side, self.pixels.data.shape[2]

    @abc.abstractmethod
    def given(self, images: Images, known: Known) -> tuple[Tokens, Bool[Array, "images rows cols"]]:
        """What a denoiser is given of images, and which tokens of it are known. Hidden pixels are not read."""

    @abc.abstractmethod
    def forms(self, made: Images, images: Images, known: Known) -> dict[str, Images]:
        """The forms that completed images are judged in, by what is added to the names of their scores."""

    @abc.abstractmethod
    def settings(self) -> dict:
        """What rows say of it."""


@dataclasses.dataclass(frozen=True, eq=False)
class PixelMedium(AbstractMedium):
    """A token is a pixel."""

    @property
    def pixels(self) -> Experiment:
        return self.experiment

    @property
    def side(self) -> int:
        return 1

    @property
    def view(self) -> PixelView:
        return PixelView()

    def given(self, images: Images, known: Known) -> tuple[Tokens, Bool[Array, "images rows cols"]]:
        return jnp.where(known[..., None], images, 0.0), jnp.asarray(known)

    def forms(self, made: Images, images: Images, known: Known) -> dict[str, Images]:
        return {"": made}

    def settings(self) -> dict:
        return {}


AS_DECODED = ", as decoded"
"""Added to the names of scores of images whose known pixels were not given back."""


@dataclasses.dataclass(frozen=True, eq=False)
class LatentMedium(AbstractMedium):
    """A token is a latent site of an autoencoder."""

    opened: OpenedAutoencoder
    decoder: LatentView

    @property
    def pixels(self) -> AutoencoderExperiment:
        return self.opened.experiment

    @property
    def side(self) -> int:
        return self.opened.autoencoder.config.factor

    @property
    def view(self) -> LatentView:
        return self.decoder

    def given(self, images: Images, known: Known) -> tuple[Tokens, Bool[Array, "images rows cols"]]:
        region = jnp.asarray(known)
        latents = _encode_all(self.opened.autoencoder, jnp.asarray(images), region, self.decoder.at_once)
        sites = jax.vmap(partial(known_sites, factor=self.opened.autoencoder.config.factor))(region)
        return jnp.where(sites[..., None], self.decoder.scale.to_unit(latents), 0.0), sites

    def forms(self, made: Images, images: Images, known: Known) -> dict[str, Images]:
        """With the known pixels of the images given back, to the bit, and as the decoder gives them."""
        parts = zip(*(in_batches(part) for part in (made, images, known)), strict=True)
        given_back = [np.asarray(give_back(*map(jnp.asarray, part))) for part in parts]
        return {"": np.concatenate(given_back), AS_DECODED: made}

    def settings(self) -> dict:
        return {"autoencoder": self.opened.fingerprint}


@eqx.filter_jit
def _encode_all(autoencoder: Autoencoder, images: Tokens, known: Bool[Array, "images height width"], at_once: int):
    return jax.lax.map(lambda one: autoencoder.encode(*one), (images, known), batch_size=min(at_once, len(images)))


def medium_of(experiment: Experiment, autoencoder: OpenedAutoencoder | None) -> AbstractMedium:
    """The medium of a run that is judged by the images that its autoencoder held out.

    Raises as `medium_for` does, and `ValueError` if the autoencoder's images are not as many as the run's latents.
    """
    medium = medium_for(experiment, autoencoder)
    if autoencoder is None:
        return medium
    for name in ("source", "held_out"):
        ours, theirs = (len(open_once(getattr(data, name))) for data in (experiment.data, autoencoder.experiment.data))
        if ours != theirs:
            raise ValueError(
                f"the run has {ours} latents in its data's {name}, the autoencoder {theirs} images: they are not of "
                "the same images; train on latents of the autoencoder's own images (encode_data)"
            )
    return medium


def medium_for(experiment: Experiment, autoencoder: OpenedAutoencoder | None) -> AbstractMedium:
    """The medium of a run, whose data need not be at hand.

    Raises `ValueError` for latents without the autoencoder that made them, and for pixels with one.
    """
    if autoencoder is not None:
        return LatentMedium(experiment, autoencoder, latent_view(autoencoder, experiment))
    if latents_of(experiment.data.source) is not None:
        raise ValueError(
            "the run is on latents, and images are pixels; give the folder of the autoencoder that made the latents, "
            "or its file"
        )
    return PixelMedium(experiment)
