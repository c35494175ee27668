"""A small image classifier: the judge of digits and garments, for which ImageNet features are a poor ruler.

It is trained on the real training images in a minute (see `train_classifier`), and serves twice: its class
probabilities say whether a sample shows what it should (`classifier_scores`), and its last hidden layer is a feature
network, named by its own weights' hash, on which the Frechet distance is `FD-classifier`.

Convolutions of stride 2 halve the image until a side is at most 4 sites, each with twice the channels of the one
before; one hidden layer and one map to class scores follow.
"""

import hashlib
import math
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from asyncpatch.metrics.archive import DamagedFileError, read_archive, write_archive
from asyncpatch.metrics.base import AbstractFeatureNetwork

KIND = "image classifier of asyncpatch, version 1"
FIRST_CHANNELS = 16
LAST_SIDE = 4
"""Images are halved until no side is longer than this."""
HIDDEN = 128
"""Features before the class scores; few enough that a thousand images give a covariance of full rank."""


class Layer(eqx.Module):
    """Weights with the outputs last, and a bias for each output."""

    weight: Float[Array, "*inputs outputs"]
    bias: Float[Array, " outputs"]

    @classmethod
    def draw(cls, key: PRNGKeyArray, *shape: int) -> "Layer":
        """Weights that keep the scale of what a ReLU hands on (He et al. 2015), and no bias."""
        deviation = math.sqrt(2 / math.prod(shape[:-1]))
        return cls(deviation * jr.normal(key, shape), jnp.zeros(shape[-1]))


class Classifier(AbstractFeatureNetwork):
    """Images of one shape to features, and to log-probabilities of classes."""

    image_shape: tuple[int, int, int] = eqx.field(static=True)
    convolutions: tuple[Layer, ...]
    hidden: Layer
    scores: Layer

    @classmethod
    def create(cls, image_shape: tuple[int, int, int], num_classes: int, key: PRNGKeyArray) -> "Classifier":
        """A classifier that knows nothing yet. Raises `ValueError` for no image or fewer than two classes."""
        if min(image_shape) < 1 or num_classes < 2:
            raise ValueError(
                f"a classifier needs images with pixels and at least 2 classes, got image_shape={image_shape} and "
                f"num_classes={num_classes}"
            )
        height, width, channels = image_shape
        halvings = max(math.ceil(math.log2(max(height, width) / LAST_SIDE)), 1)
        hidden_key, *keys = jr.split(key, halvings + 1)
        convolutions = []
        for level, kernel_key in enumerate(keys):
            outputs = FIRST_CHANNELS * 2**level
            convolutions.append(Layer.draw(kernel_key, 3, 3, channels, outputs))
            height, width, channels = math.ceil(height / 2), math.ceil(width / 2), outputs
        # Class scores begin at zero: every class as likely as any other.
        scores = Layer(jnp.zeros((HIDDEN, num_classes)), jnp.zeros(num_classes))
        hidden = Layer.draw(hidden_key, height * width * channels, HIDDEN)
        return cls(image_shape, tuple(convolutions), hidden, scores)

    @property
    def name(self) -> str:
        return "classifier"

    @property
    def hash(self) -> str:
        digest = hashlib.sha256()
        for weights in jax.tree.leaves(self):
            digest.update(np.asarray(weights.shape, "<i8").tobytes() + np.asarray(weights, "<f4").tobytes())
        return digest.hexdigest()

    @property
    def preprocessing(self) -> str:
        return "none: pixels of {}x{}x{} in [-1, 1]".format(*self.image_shape)

    @property
    def size(self) -> int:
        return HIDDEN

    @property
    def num_classes(self) -> int:
        return len(self.scores.bias)

    def __call__(self, images: Float[Array, "batch height width channel"]) -> Float[Array, "batch features"]:
        if images.shape[1:] != self.image_shape:
            raise ValueError(
                f"this classifier takes images of (height, width, channel) = {self.image_shape}, got "
                f"{images.shape[1:]}; use one that was trained on images of this shape"
            )
        sites = images
        for layer in self.convolutions:
            sites = jax.lax.conv_general_dilated(
                sites, layer.weight, window_strides=(2, 2), padding="SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            sites = jax.nn.relu(sites + layer.bias.reshape(1, 1, 1, -1))
        return jax.nn.relu(sites.reshape(len(images), -1) @ self.hidden.weight + self.hidden.bias[None])

    def log_probabilities(self, images: Float[Array, "batch height width channel"]) -> Float[Array, "batch classes"]:
        """The logarithm of each class's probability, given the image."""
        return jax.nn.log_softmax(self(images) @ self.scores.weight + self.scores.bias[None], axis=-1)


def save_classifier(path: Path, classifier: Classifier) -> None:
    """Write the file, or replace it whole."""
    description = {
        "image_shape": list(classifier.image_shape),
        "num_classes": classifier.num_classes,
        "hash": classifier.hash,
    }
    leaves = jax.tree.leaves(classifier)
    write_archive(path, KIND, description, {str(index): np.asarray(leaf) for index, leaf in enumerate(leaves)})


def load_classifier(path: Path) -> Classifier:
    """The classifier in a file. Raises `DamagedFileError` unless its weights have the hash that the file states."""
    description, arrays = read_archive(path, KIND)
    try:
        image_shape, num_classes = tuple(description["image_shape"]), description["num_classes"]
        template = eqx.filter_eval_shape(Classifier.create, image_shape, num_classes, jr.key(0))
        leaves, tree = jax.tree.flatten(template)
        read = [jnp.asarray(arrays[str(index)]) for index in range(len(leaves))]
        stated = description["hash"]
    except (KeyError, TypeError) as error:
        raise DamagedFileError(f"{path} lacks a part ({error!r}); train the classifier again") from error
    shapes = [(leaf.shape, leaf.dtype) for leaf in leaves], [(array.shape, array.dtype) for array in read]
    if shapes[0] != shapes[1]:
        raise DamagedFileError(f"{path} holds weights of other shapes than its description asks; train it again")
    classifier = jax.tree.unflatten(tree, read)
    if classifier.hash != stated:
        raise DamagedFileError(f"{path} states hash {stated} but holds {classifier.hash}; train the classifier again")
    return classifier
