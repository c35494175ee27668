"""Gradients of an autoencoder and its discriminator on one microbatch, from one pass through each.

    autoencoder      reconstruction + perceptual + quantisation + w adversarial
    discriminator    its hinge loss, on the images and their reconstructions

`w` is the ratio of two gradients' norms at the decoder's last layer. Both are pulled back through this layer alone,
weighed, and then pulled back through the rest together.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PyTree

from asyncpatch.losses import (
    AutoencoderObjective,
    adversarial_weight,
    beside_hidden,
    fooling_loss,
    judging_loss,
    quantisation_loss,
    reconstruction_errors,
)
from asyncpatch.nn import Autoencoder, Discriminator
from asyncpatch.sharding import forgets_gathered

Images = Float[Array, "batch height width channel"]
Regions = Bool[Array, "batch height width"]

PerceptualDistance = Callable[[Images, Images], Float[Array, " batch"]]
"""How different two images look, for each pair of a batch, by a gradient of the first. It must be hashable."""


def no_distance(first: Images, second: Images) -> Float[Array, " batch"]:
    """All images look alike: training without a perceptual network."""
    return jnp.zeros(len(first))


class Gradients(eqx.Module):
    """Of the mean over images, with the losses that they are of, by name, and what the encoder made."""

    autoencoder: PyTree
    discriminator: PyTree
    numbers: dict[str, Float[Array, ""]]
    latents: Float[Array, "batch rows cols latent"]
    index: Int[Array, "batch rows cols"]


def adversarial_gradients(
    autoencoder: Autoencoder,
    discriminator: Discriminator,
    objective: AutoencoderObjective,
    perceptual: PerceptualDistance,
    images: Images,
    known: Regions,
    started: Bool[Array, ""],
) -> Gradients:
    """Of one microbatch; `started` says whether the discriminator counts."""
    trainable, rest = eqx.partition(autoencoder, eqx.is_inexact_array)

    def up_to_the_last_layer(trainable):
        model = eqx.combine(trainable, rest)
        latents = jax.vmap(lambda image, known: model.encode(image, known))(images, known)
        quantised = jax.vmap(lambda latents: model.quantise(latents))(latents)
        hidden = jax.vmap(lambda latents, known: model.before_last(latents, known))(quantised.latents, known)
        quantisation = jnp.mean(jax.vmap(quantisation_loss)(latents, quantised.codes))
        return (hidden, quantisation), (latents, quantised.index)

    def paint(last, hidden):
        return jax.vmap(lambda one: last(one))(hidden)

    def unlike(painted):
        """All that is asked of the image itself."""
        shown = jax.vmap(beside_hidden)(painted, images, known)
        reconstruction = jnp.mean(jax.vmap(reconstruction_errors)(painted, images, known))
        seen = jnp.mean(perceptual(shown, images))
        return reconstruction + objective.perceptual * seen, (reconstruction, seen)

    def judge(discriminator, images):
        return jax.vmap(lambda image: discriminator(image))(images)

    def fooling(judged):
        return jnp.mean(jax.vmap(fooling_loss)(judged))

    def judging(real, judged):
        return jnp.mean(jax.vmap(judging_loss)(real, judged))

    (hidden, quantisation), back, (latents, index) = jax.vjp(
        forgets_gathered(up_to_the_last_layer), trainable, has_aux=True
    )
    painted, last_back = jax.vjp(paint, autoencoder.decoder.last, hidden)
    (unlikeness, (reconstruction, seen)), slope = jax.value_and_grad(unlike, has_aux=True)(painted)

    fakes, fakes_back = jax.vjp(lambda painted: jax.vmap(beside_hidden)(painted, images, known), painted)
    judged, judged_back = jax.vjp(judge, discriminator, fakes)
    real, real_back = jax.vjp(lambda discriminator: judge(discriminator, images), discriminator)

    from_likeness = last_back(slope)
    from_fooling = last_back(*fakes_back(judged_back(jax.grad(fooling)(judged))[1]))
    norms = (optax.tree.norm(part[0].weight) for part in (from_likeness, from_fooling))
    weight = jnp.where(started, objective.adversarial * adversarial_weight(*norms), 0.0)
    at_last, at_hidden = jax.tree.map(lambda one, other: one + weight * other, from_likeness, from_fooling)
    (gradients,) = back((at_hidden, jnp.ones(())))
    gradients = eqx.tree_at(lambda model: model.decoder.last, gradients, at_last)

    on_real, on_fakes = jax.grad(judging, argnums=(0, 1))(real, judged)
    of_judge = jax.tree.map(jnp.add, judged_back(on_fakes)[0], real_back(on_real)[0])
    numbers = {
        "loss": unlikeness + quantisation,
        "reconstruction": reconstruction,
        "perceptual": seen,
        "quantisation": quantisation,
        "adversarial_weight": weight,
        "discriminator_loss": judging(real, judged),
    }
    return Gradients(gradients, of_judge, numbers, latents, index)
