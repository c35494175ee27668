"""The supervised inpainter: one time per image, and the known pixels beside the noisy ones, in channels of their own.

What ordinary diffusion models are trained to for filling holes, and what the paper compares with (Appendix G). The body
sees, channel by channel,

    the noisy image, 0 where known  |  the image where known, 0 elsewhere  |  1 where known, 0 elsewhere

at one time, that of the noisiest token. Tokens with `t_i = 0` are the known ones, so it is called as every network
here is, and trained under `asyncpatch.timesteps.Masked`. Where no token is clean it answers for the null image, with
all of the conditioning 0; guidance away from that answer is `asyncpatch.guidance.InputGuidance` with a region that is
as noisy as the noisiest token.

Invariant: apart from which tokens are clean, only the largest time matters.
"""

import dataclasses

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from asyncpatch.nn.base import AbstractFieldNetwork, AbstractNetwork, AbstractNetworkConfig
from asyncpatch.nn.layers import time_features
from asyncpatch.shapes import Image, Label, TimeField


@dataclasses.dataclass(frozen=True)
class SupervisedInpainterConfig(AbstractNetworkConfig):
    """The shape of a `SupervisedInpainter`, made by `supervised_inpainter`."""

    body: AbstractNetworkConfig
    """The shape of its body as if it took the image alone."""

    @property
    def multiple(self) -> int:
        """That of the body."""
        return self.body.multiple

    def check(self) -> None:
        """What is said twice must agree, and the body must take its input from channels."""
        if isinstance(self.body, SupervisedInpainterConfig):
            raise ValueError("the body of an inpainter is a network of a time field, got another inpainter")
        for field in dataclasses.fields(AbstractNetworkConfig):
            ours, bodys = getattr(self, field.name), getattr(self.body, field.name)
            if ours != bodys:
                raise ValueError(
                    f"the body's {field.name} is {bodys!r}, the inpainter's {ours!r}; make it with supervised_inpainter"
                )

    def build(self, key: PRNGKeyArray) -> "SupervisedInpainter":
        """A network with fresh weights."""
        body = dataclasses.replace(self.body, channels=2 * self.channels + 1).build(key)
        assert isinstance(body, AbstractFieldNetwork)
        return SupervisedInpainter(self, body)


def supervised_inpainter(body: AbstractNetworkConfig) -> SupervisedInpainterConfig:
    """The inpainter for the images that `body` was meant for."""
    shared = {field.name: getattr(body, field.name) for field in dataclasses.fields(AbstractNetworkConfig)}
    return SupervisedInpainterConfig(**shared, body=body)


class SupervisedInpainter(AbstractNetwork):
    """Velocity of the unknown pixels, given the known ones and one time."""

    config: SupervisedInpainterConfig = eqx.field(static=True)
    body: AbstractFieldNetwork

    def __call__(self, z: Image, t: TimeField, label: Label, key: PRNGKeyArray | None = None) -> Image:
        self.config.check_image(*z.shape)
        known = (t == 0)[..., None]
        told = jnp.concatenate([jnp.where(known, 0.0, z), jnp.where(known, z, 0.0), known.astype(z.dtype)], axis=-1)
        level = jnp.full((1, 1), jnp.max(t))
        return self.body.from_features(told, time_features(level), label, key)[..., : self.config.channels]
