"""Feature networks, and what a distance on their features may be called.

Every distance and score of this folder compares features, and a number means something only beside numbers on the
same features. So a network carries its name, the hash of its weights and its preprocessing wherever it goes, and
the name of a Frechet distance is computed from it, never typed by hand.

Invariant: two networks with equal name, hash and preprocessing give equal features for equal images.
"""

import abc

import equinox as eqx
from jaxtyping import Array, Float

INCEPTION_FID = "InceptionV3-FID"
"""The name reserved for the Inception network of the FID, with its published weights and its own resize."""


class AbstractFeatureNetwork(eqx.Module):
    """Turns a batch of images into one feature vector each.

    To write one more: give the four fields (or properties) and `__call__`, all static but the weights, and enrol
    the class in the tests. `name` says architecture and form and must not be `INCEPTION_FID` for any other weights
    or preprocessing, random weights included; `hash` is the sha256 of the weights in hexadecimal; `preprocessing`
    states in one line how images of [-1, 1] are resized and scaled; `size` is the number of features.
    Images of one channel are the network's affair: it repeats them or refuses them.
    """

    name: eqx.AbstractVar[str]
    hash: eqx.AbstractVar[str]
    preprocessing: eqx.AbstractVar[str]
    size: eqx.AbstractVar[int]

    @abc.abstractmethod
    def __call__(self, images: Float[Array, "batch height width channel"]) -> Float[Array, "batch features"]:
        """The features of images with values in [-1, 1]; no image's features depend on another image."""


def frechet_name(network: AbstractFeatureNetwork) -> str:
    """What a Frechet distance on this network's features is called: `FID` for Inception alone, else `FD-<name>`."""
    return "FID" if network.name == INCEPTION_FID else f"FD-{network.name}"
