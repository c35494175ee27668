"""A network that predicts velocity, as a denoiser."""

from jaxtyping import PRNGKeyArray

from asyncpatch.nn.base import AbstractNetwork
from asyncpatch.noise_schedule import AbstractNoiseSchedule
from asyncpatch.process import AbstractDenoiser, Prediction
from asyncpatch.shapes import Image, Label, TimeField


class NetworkDenoiser(AbstractDenoiser):
    """The denoiser of a velocity network under a noise schedule."""

    network: AbstractNetwork
    schedule: AbstractNoiseSchedule

    @property
    def num_classes(self) -> int:
        return self.network.config.num_classes

    def __call__(self, z: Image, t: TimeField, label: Label) -> Prediction:
        return Prediction.from_velocity(self.schedule, z, t, self.network(z, t, label))


class DroppingDenoiser(AbstractDenoiser):
    """The same denoiser with dropout on: the form that training runs, with a fresh key per image."""

    denoiser: NetworkDenoiser
    key: PRNGKeyArray

    @property
    def schedule(self) -> AbstractNoiseSchedule:
        return self.denoiser.schedule

    @property
    def num_classes(self) -> int:
        return self.denoiser.num_classes

    def __call__(self, z: Image, t: TimeField, label: Label) -> Prediction:
        velocity = self.denoiser.network(z, t, label, self.key)
        return Prediction.from_velocity(self.denoiser.schedule, z, t, velocity)
