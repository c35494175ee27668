"""What a network is to the rest of the package: its config, and a velocity from an image, time features and a label.

A network is written for one image and returns a raw velocity; `asyncpatch.nn.denoiser` makes it a denoiser. It
starts at zero velocity. Everything that networks of a time field share is here: the checks, the working type, the
label, and the last layer, whose input others may look at (`asyncpatch.nn.difficulty`).
"""

import abc
import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from asyncpatch.nn.layers import Conv, time_features
from asyncpatch.ranges import check_counts, check_number
from asyncpatch.shapes import Image, Label, TimeField
from asyncpatch.sharding import gathered


@dataclasses.dataclass(frozen=True)
class AbstractNetworkConfig(abc.ABC):
    """The shape of a network, from which the network is built."""

    channels: int
    """Channels of the image, 1 for grey and 3 for colour."""
    num_classes: int
    """Labels are `0 .. num_classes - 1`, or `NULL_LABEL`; 0 for a network without classes."""
    dropout: float = dataclasses.field(default=0.0, kw_only=True)
    """Share of activations dropped inside blocks in training."""
    compute_dtype: str = dataclasses.field(default="float32", kw_only=True)
    """Type of activations and of the weights' working copies: `float32` or `bfloat16`."""
    rematerialise: bool = dataclasses.field(default=False, kw_only=True)
    """Recompute blocks in the backward pass instead of storing their activations."""

    def __post_init__(self):
        if self.compute_dtype not in ("float32", "bfloat16"):
            raise ValueError(f"compute_dtype is float32 or bfloat16, got {self.compute_dtype!r}")
        check_number("dropout", self.dropout, lambda share: 0 <= share < 1, "a share in [0, 1)")
        check_number("num_classes", self.num_classes, lambda count: 0 <= count <= MOST, f"in 0 to {MOST:,}")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if type(value) is int and field.name != "num_classes":
                check_number(field.name, value, lambda count: 0 <= count <= MOST, f"in 0 to {MOST:,}")
        check_counts(channels=self.channels)
        self.check()

    @property
    @abc.abstractmethod
    def multiple(self) -> int:
        """Height and width of an image must be multiples of this many pixels."""

    @abc.abstractmethod
    def check(self) -> None:
        """Raises `ValueError` if no network has this shape."""

    @abc.abstractmethod
    def build(self, key: PRNGKeyArray) -> "AbstractNetwork":
        """A network of this shape with fresh weights."""

    def check_image(self, height: int, width: int, channels: int) -> None:
        """Raises `ValueError` if the network cannot take images of this shape."""
        if channels != self.channels:
            raise ValueError(f"the network takes images of {self.channels} channels, got {channels}")
        if height % self.multiple or width % self.multiple:
            raise ValueError(
                f"the network cannot divide an image of {height}x{width} pixels into its blocks of "
                f"{self.multiple}x{self.multiple}; pad or resize it to multiples of {self.multiple}"
            )


MOST = 2**20
"""Of whatever a network's shape counts: classes, channels, blocks."""


class AbstractNetwork(eqx.Module):
    """Velocity of every pixel from a noisy image, a time field and a label: all that a denoiser asks of a network."""

    config: eqx.AbstractVar[AbstractNetworkConfig]

    @abc.abstractmethod
    def __call__(self, z: Image, t: TimeField, label: Label, key: PRNGKeyArray | None = None) -> Image:
        """The velocity; `key` draws dropout in training, and `None` turns it off.

        Raises `ValueError` before any compute if the image's shape does not fit the network.
        """


class AbstractFieldNetwork(AbstractNetwork):
    """A network that takes every token's time to heart.

    To write one more: a config that builds it, `labels` with one row a class and a last one for `NULL_LABEL`, a `last`
    layer that starts at zero, and the `activations` that it reads, all of which depend on every token and every time,
    also on which pixel of a patch has which time. Enrol a small config in `CONFIGS` of `tests/test_nn.py`.
    """

    labels: eqx.AbstractVar[Float[Array, "rows embedding"]]

    @property
    @abc.abstractmethod
    def last(self) -> Conv:
        """The layer that makes the velocity of every pixel."""

    @abc.abstractmethod
    def activations(
        self,
        z: Image,
        features: Float[Array, "rows cols features"],
        embedding: Float[Array, " embedding"],
        key: PRNGKeyArray | None,
    ) -> Float[Array, "height width hidden"]:
        """What the last layer reads, in the working type, from what `with_activations` has checked and cast."""

    def __call__(self, z: Image, t: TimeField, label: Label, key: PRNGKeyArray | None = None) -> Image:
        return self.from_features(z, time_features(t), label, key)

    def from_features(
        self,
        z: Image,
        features: Float[Array, "rows cols features"],
        label: Label,
        key: PRNGKeyArray | None = None,
    ) -> Image:
        """The velocity from time features of every pixel, or of one row and column: one time for the image."""
        return self.with_activations(z, features, label, key)[0]

    def with_activations(
        self,
        z: Image,
        features: Float[Array, "rows cols features"],
        label: Label,
        key: PRNGKeyArray | None = None,
    ) -> tuple[Image, Float[Array, "height width hidden"]]:
        """The same, and beside it what the last layer read."""
        self.config.check_image(*z.shape)
        dtype = jnp.dtype(self.config.compute_dtype)
        net, z, features = jax.tree.map(
            lambda leaf: leaf.astype(dtype) if eqx.is_inexact_array(leaf) else leaf, (self, z, features)
        )
        # The SiLU of all rows: XLA would move one row's reshape through it, a round of its passes an operation.
        embedding = jax.nn.silu(gathered(net.labels))[jnp.where(label < 0, self.config.num_classes, label)]
        hidden = net.activations(z, features, embedding, key)
        return net.last(hidden).astype(jnp.float32), hidden.astype(jnp.float32)
