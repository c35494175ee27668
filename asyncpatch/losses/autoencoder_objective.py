"""How much of each loss an autoencoder is trained on, and on which known regions."""

import dataclasses

import jax.random as jr
from jaxtyping import PRNGKeyArray

from asyncpatch.masks import AbstractMaskLaw, Extrema, OneOf, Square, Thin, Wide
from asyncpatch.ranges import check_number, check_share
from asyncpatch.shapes import Known


@dataclasses.dataclass(frozen=True)
class AutoencoderObjective:
    """The weights of losses beside the absolute error and quantisation, which count once."""

    masks: AbstractMaskLaw = dataclasses.field(default_factory=lambda: OneOf((Square(), Extrema(), Thin(), Wide())))
    """Known regions of the images that are masked."""
    whole: float = 0.5
    """The share of images that are not masked; 1 trains an autoencoder that knows of no masks."""
    perceptual: float = 1.0
    adversarial: float = 0.2
    """Times the ratio of gradients; VQGAN has 0.75 (arXiv 2012.09841)."""
    start: int = 10_000
    """The step from which the discriminator learns and counts: before, any reconstruction is easily told apart."""

    def __post_init__(self):
        check_share("whole", self.whole)
        check_number("perceptual", self.perceptual, lambda weight: weight >= 0, "at least 0")
        check_number("adversarial", self.adversarial, lambda weight: weight >= 0, "at least 0")
        check_number("start", self.start, lambda step: step >= 0, "at least 0")

    def draw_known(self, key: PRNGKeyArray, height: int, width: int) -> Known:
        """What is known of one training image."""
        whole_key, mask_key = jr.split(key)
        return self.masks(mask_key, height, width) | jr.bernoulli(whole_key, self.whole)
