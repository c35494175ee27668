"""An autoencoder that has been opened, and whatever a user must know about it."""

import dataclasses

from asyncpatch.data import AbstractSource, open_once
from asyncpatch.nn import Autoencoder, fingerprint_of
from asyncpatch.runs.autoencoder import AutoencoderExperiment
from asyncpatch.train import Saved


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class OpenedAutoencoder:
    """What `open_autoencoder` gives."""

    experiment: AutoencoderExperiment
    """The whole config. Its data are the images that latents are made of."""
    autoencoder: Autoencoder
    """With the moving average of the weights."""
    saved: Saved
    measured: dict[str, float] = dataclasses.field(default_factory=dict)
    """What its file says of whole held-out images there and back; empty where no file says anything."""
    rounded_from: str | None = None
    """The fingerprint of the weights as they were trained, if a file rounded them."""

    @property
    def fingerprint(self) -> str:
        """What latents that it made are marked with: a digest of these weights, rounded ones if a file rounded them."""
        return fingerprint_of(self.autoencoder)

    def on(self, source: AbstractSource, held_out: AbstractSource) -> "OpenedAutoencoder":
        """The same weights, and so the same fingerprint, for images that lie elsewhere, or are others.

        The config says from then on whose latents are made, and not what the weights were trained on. Raises
        `ValueError` for images that the autoencoder cannot take.
        """
        records = open_once(source)
        self.experiment.autoencoder.check_image(*records.shape)
        data = dataclasses.replace(self.experiment.data, source=source, held_out=held_out, shape=records.shape)
        training = dataclasses.replace(self.experiment.training, num_classes=len(records.class_names))
        experiment = dataclasses.replace(self.experiment, data=data, training=training)
        saved = dataclasses.replace(self.saved, experiment=experiment)
        return dataclasses.replace(self, experiment=experiment, saved=saved, measured={})

    def __repr__(self) -> str:
        height, width, channels = self.experiment.data.shape
        config, saved = self.experiment.autoencoder, self.saved
        loss = "not measured" if saved.validation_loss is None else f"{saved.validation_loss:.4f}"
        masked = 1 - self.experiment.objective.whole
        lines = {
            "images": f"{height}x{width}, {channels} channel{'s' if channels > 1 else ''}",
            "latents": f"{height // config.factor}x{width // config.factor}, {config.latent_channels} channels",
            "codes": f"{config.codes:,}",
            "trained for": f"{saved.step:,} steps, {masked:.0%} of images masked",
            "validation loss": loss,
            **{name: f"{value:.4g}" for name, value in self.measured.items()},
            "fingerprint": self.fingerprint,
            **({} if self.rounded_from is None else {"rounded from": self.rounded_from}),
            "written by": f"asyncpatch {saved.release}, commit {saved.commit}",
        }
        return "Autoencoder" + "".join(f"\n  {name:16} {value}" for name, value in lines.items())
