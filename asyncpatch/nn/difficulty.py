"""How wrong a trained network expects to be: a small head on its last activations, and the denoiser that says so.

The network is frozen. Its last layer reads activations from which the velocity of a token is one linear map; a head on
the same activations and the token's own time gives the logarithm of the squared velocity error that is to be expected
there, `E[|v - vhat|^2]` as the mean over channels, trained by `asyncpatch.losses.difficulty_errors`. The network is
called once for both. Source: paper §5.5; the shape of the head is ours.

Invariant: a head is used with the network that it was trained on, and with no other.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float, PRNGKeyArray

from asyncpatch.nn.base import AbstractFieldNetwork
from asyncpatch.nn.denoiser import NetworkDenoiser
from asyncpatch.nn.identity import fingerprint_of
from asyncpatch.nn.layers import TIME_FEATURES, Conv, draw_weights, time_features
from asyncpatch.noise_schedule import AbstractNoiseSchedule
from asyncpatch.process import AbstractDenoiser, Prediction
from asyncpatch.shapes import Image, Label, TimeField


def fingerprint(denoiser: NetworkDenoiser) -> str:
    """SHA-256 of the kinds of a denoiser's network and schedule and of all their numbers (`fingerprint_of`)."""
    return fingerprint_of(denoiser.network, denoiser.schedule)


def field_network(denoiser: NetworkDenoiser) -> AbstractFieldNetwork:
    """The network whose activations a head reads. Raises `ValueError` for one that shows none."""
    if not isinstance(denoiser.network, AbstractFieldNetwork):
        raise ValueError(
            f"a head reads the activations of a network of a time field, got {type(denoiser.network).__name__}; give "
            "a UNet or a transformer"
        )
    return denoiser.network


class DifficultyHead(eqx.Module):
    """Two layers on the last activations of a network and the times: one number per token, 0 at the start."""

    first: Conv
    last: Conv
    network: str = eqx.field(static=True)
    """The fingerprint of the denoiser that it belongs to."""

    def __init__(self, width: int, hidden: int, network: str, key: PRNGKeyArray):
        """For a network whose last layer reads `width` channels."""
        layers = Conv(1, width + TIME_FEATURES, hidden), Conv(3, hidden, 1, gain=0.0)
        self.first, self.last = draw_weights(layers, key)
        self.network = network

    def __call__(
        self, activations: Float[Array, "height width channel"], features: Float[Array, "height width features"]
    ) -> TimeField:
        hidden = self.first(jnp.concatenate([activations, features], axis=-1))
        return self.last(jax.nn.silu(hidden))[..., 0]


class SelfAssessingDenoiser(AbstractDenoiser):
    """The same denoiser, whose predictions also say how wrong they expect to be.

    Raises `ValueError` for a head of another network.
    """

    denoiser: NetworkDenoiser
    head: DifficultyHead

    def __check_init__(self):
        leaves = jax.tree.leaves(self.denoiser)
        if any(isinstance(leaf, Tracer | jax.ShapeDtypeStruct) for leaf in leaves):
            return
        found = fingerprint(self.denoiser)
        if found != self.head.network:
            raise ValueError(
                f"the head was trained on the network {self.head.network[:12]}, and this one is {found[:12]}; open the "
                "run that it was trained on, or train a head for this one: python -m experiments.train_difficulty"
            )

    @property
    def schedule(self) -> AbstractNoiseSchedule:
        return self.denoiser.schedule

    @property
    def num_classes(self) -> int:
        return self.denoiser.num_classes

    def __call__(self, z: Image, t: TimeField, label: Label) -> Prediction:
        features = time_features(t)
        velocity, activations = field_network(self.denoiser).with_activations(z, features, label)
        prediction = Prediction.from_velocity(self.schedule, z, t, velocity)
        # Nothing that the head learns moves the network.
        return Prediction(prediction.data, prediction.noise, self.head(jax.lax.stop_gradient(activations), features))
