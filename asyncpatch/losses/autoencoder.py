"""What an autoencoder is trained for: to give known pixels back, on codes, so that no discriminator tells them apart.

    reconstruction    |x - xhat|, the mean over known pixels; hidden ones are not asked for, as nothing is told of them
    quantisation      |sg(z) - q|^2 + COMMITMENT |z - sg(q)|^2, the first moves the codes q, the second the encoder
    adversarial       -D(xhat) for the decoder, and half of max(0, 1 - D(x)) + max(0, 1 + D(xhat)) for D

What looks at whole images, a perceptual distance or a discriminator, is shown `beside_hidden(xhat)`, in which hidden
pixels are the true ones: both images agree there, and neither is asked about it.

The adversarial loss is weighted by the ratio of the gradients' norms at the decoder's last layer, so that it matters as
much as all else does. Sources: arXiv 1711.00937 for quantisation (the commitment is the encoder's term; a well-known
implementation has the two the wrong way round), arXiv 2012.09841 for the rest.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from asyncpatch.shapes import Image, Known

COMMITMENT = 0.25
"""Of the encoder to its codes, beside the codes' move to the encoder."""

LARGEST_WEIGHT = 1e4
"""Of the adversarial loss, when its gradient nearly vanishes."""

NORM_FLOOR = 1e-4
"""Added to the norm of the adversarial gradient before the division by it."""

Judgement = Float[Array, "rows cols"]


def reconstruction_errors(painted: Image, image: Image, known: Known) -> Float[Array, "height width"]:
    """The absolute error of each pixel, 0 where hidden, weighted so that the mean over all is that over known ones."""
    errors = jnp.mean(jnp.abs(painted - image), axis=-1)
    seen = jnp.maximum(jnp.mean(known.astype(errors.dtype)), 1 / known.size)
    return jnp.where(known, errors, 0.0) / seen


def quantisation_loss(
    latents: Float[Array, "rows cols channel"], codes: Float[Array, "rows cols channel"]
) -> Float[Array, ""]:
    """Of latents before quantising, and the codes that they became, each with its own gradient."""
    moves_codes = jnp.mean(jnp.square(jax.lax.stop_gradient(latents) - codes))
    moves_encoder = jnp.mean(jnp.square(latents - jax.lax.stop_gradient(codes)))
    return moves_codes + COMMITMENT * moves_encoder


def beside_hidden(painted: Image, image: Image, known: Known) -> Image:
    """The reconstruction where pixels are known, the image where they are hidden."""
    return jnp.where(known[..., None], painted, image)


def fooling_loss(judged: Judgement) -> Float[Array, ""]:
    """The decoder's: low if the discriminator takes a reconstruction for real."""
    return -jnp.mean(judged)


def judging_loss(real: Judgement, fake: Judgement) -> Float[Array, ""]:
    """The discriminator's hinge loss; 1 if it says nothing."""
    return (jnp.mean(jax.nn.relu(1 - real)) + jnp.mean(jax.nn.relu(1 + fake))) / 2


def adversarial_weight(otherwise: Float[Array, ""], adversarial: Float[Array, ""]) -> Float[Array, ""]:
    """The weight of the adversarial loss, from norms of gradients at the last layer: of all other losses, and of it."""
    return jnp.clip(otherwise / (adversarial + NORM_FLOOR), 0.0, LARGEST_WEIGHT)
