"""A run that has been opened: its denoiser, and whatever a user must know about it."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from asyncpatch.nn import NetworkDenoiser
from asyncpatch.noise_schedule import AbstractNoiseSchedule
from asyncpatch.runs.experiment import Experiment
from asyncpatch.timesteps import AbstractTimestepSampler


@dataclasses.dataclass(frozen=True)
class Examples:
    """A few held-out images that came with a file, as the network takes them, and their classes."""

    image: Float[Array, "examples height width channel"]
    label: Int[Array, " examples"]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Run:
    """What `open_run` gives."""

    name: str
    """What was opened: a folder, a file, or a model that comes with the package."""
    experiment: Experiment
    """The whole config that it was trained under."""
    denoiser: NetworkDenoiser
    """With the moving average of the weights: what samples are drawn from."""
    step: int
    """Updates made."""
    validation_loss: float | None
    """The training loss on held-out images; None if it was not measured at this step."""
    release: str
    """The release of asyncpatch that wrote it."""
    commit: str
    """The commit of the code that wrote it, or `unknown`."""
    class_names: tuple[str, ...]
    """A name a class, of a file that has them; else the numbers."""
    examples: Examples
    """Held-out images to try it on: those that a file brings along, none from a folder."""
    measured: dict[str, float] = dataclasses.field(default_factory=dict)
    """What its file says of what it generates and completes, by name; empty where no file says anything."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of the images."""
        height, width, channels = self.experiment.data.shape
        return height, width, channels

    @property
    def num_classes(self) -> int:
        """Labels are `0 .. num_classes - 1`, or `NULL_LABEL`; 0 if it was trained without."""
        return self.experiment.network.num_classes

    @property
    def schedule(self) -> AbstractNoiseSchedule:
        """The noise schedule that it was trained under."""
        return self.experiment.schedule

    @property
    def timesteps(self) -> AbstractTimestepSampler:
        """The law of times that it was trained on."""
        return self.experiment.timesteps

    @property
    def images_seen(self) -> int:
        """Images that it was trained on, each as often as it was seen."""
        return self.step * self.experiment.data.batch_size

    def __repr__(self) -> str:
        height, width, channels = self.image_shape
        loss = "not measured" if self.validation_loss is None else f"{self.validation_loss:.4f}"
        names = f" ({', '.join(self.class_names)})" if self.num_classes else ""
        return (
            f"Run {self.name}\n"
            f"  images           {height}x{width}, {channels} channel{'s' if channels > 1 else ''}\n"
            f"  classes          {self.num_classes}{names}\n"
            f"  noise schedule   {_one_line(self.schedule)}\n"
            f"  training times   {_one_line(self.timesteps)}\n"
            f"  trained for      {self.step:,} steps, {self.images_seen:,} images\n"
            f"  validation loss  {loss}\n"
            + "".join(f"  measured         {name}: {value:.4g}\n" for name, value in self.measured.items())
            + f"  written by       asyncpatch {self.release}, commit {self.commit}"
        )


def no_examples(shape: tuple[int, int, int]) -> Examples:
    """The examples of a run that has none."""
    return Examples(jnp.zeros((0, *shape)), jnp.zeros(0, jnp.int32))


def _one_line(thing: object) -> str:
    """The representation of a config without line breaks."""
    return " ".join(repr(thing).split()).replace("( ", "(").replace(" )", ")")


def numbered(num_classes: int) -> tuple[str, ...]:
    """The names of classes that have none."""
    return tuple(str(label) for label in range(num_classes))
