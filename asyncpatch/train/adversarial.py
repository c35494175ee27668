"""The learner of an autoencoder with its discriminator: two optimisers, two losses, one step.

What is trained is the autoencoder; its memory holds its optimiser's moments, the discriminator with its own, and how
often each code is used. The discriminator stays as it is until `objective.start`, its optimiser too. After each update,
dead codes take the places of latents of the batch: which latents is drawn from the step's key, so that neither
microbatches nor devices matter.
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from asyncpatch.losses import AutoencoderObjective
from asyncpatch.nn import Autoencoder, AutoencoderConfig, CodeUse, Discriminator, DiscriminatorConfig
from asyncpatch.train.adversarial_gradients import Gradients, PerceptualDistance, adversarial_gradients, no_distance
from asyncpatch.train.batch import Batch
from asyncpatch.train.learner import AbstractLearner, Moved, Turn, descend
from asyncpatch.train.microbatches import image_keys, summed
from asyncpatch.train.optimizers import AbstractOptimizerConfig
from asyncpatch.train.packed import packed_like
from asyncpatch.train.settings import TrainConfig

NUMBERS = ("loss", "reconstruction", "perceptual", "quantisation", "adversarial_weight", "discriminator_loss")


class AdversarialMemory(eqx.Module):
    """What goes on beside the autoencoder."""

    moments: PyTree
    discriminator: Discriminator
    discriminator_moments: PyTree
    use: CodeUse


class Asked(eqx.Module):
    """A latent of the batch for each code, by the image's position in the batch and the number of the site."""

    image: Int[Array, " codes"]
    site: Int[Array, " codes"]

    def found(
        self, latents: Float[Array, "batch rows cols latent"], index: Int[Array, " batch"]
    ) -> Float[Array, "codes latent"]:
        """The latents among these images, whose positions are `index`; 0 for those of other microbatches."""
        sites = latents.reshape(len(latents), -1, latents.shape[-1])[:, self.site]
        here = self.image[None] == index[:, None]
        return jnp.sum(jnp.where(here[..., None], sites, 0.0), axis=0)


@dataclasses.dataclass(frozen=True)
class Adversarial(AbstractLearner):
    """Trains an autoencoder against a discriminator."""

    autoencoder: AutoencoderConfig
    discriminator: DiscriminatorConfig
    objective: AutoencoderObjective
    discriminator_optimizer: AbstractOptimizerConfig
    perceptual: PerceptualDistance = no_distance

    def build(self, key: PRNGKeyArray, config: TrainConfig) -> tuple[Autoencoder, AdversarialMemory]:
        autoencoder_key, discriminator_key = jr.split(key)
        autoencoder = self.autoencoder.build(autoencoder_key)
        discriminator = self.discriminator.build(discriminator_key)
        moments, discriminator_moments = (
            optimizer.build().init(eqx.filter(weights, eqx.is_inexact_array))
            for optimizer, weights in (
                (config.optimizer, autoencoder),
                (self.discriminator_optimizer, discriminator),
            )
        )
        use = CodeUse.none_yet(self.autoencoder.codes)
        return autoencoder, AdversarialMemory(moments, discriminator, discriminator_moments, use)

    def update(self, trained: Autoencoder, memory: AdversarialMemory, turn: Turn) -> Moved:
        parts, started = turn.config.accumulation, turn.step >= self.objective.start
        image_key, place_key = jr.split(turn.key)
        asked = self._ask(place_key, turn.batch)

        def part(batch: Batch) -> tuple:
            found = self._gradients(trained, memory.discriminator, batch, image_key, started)
            use = jnp.zeros(self.autoencoder.codes).at[found.index.ravel()].add(1.0)
            sums = found.autoencoder, found.discriminator, found.numbers
            return sums, use, asked.found(found.latents, batch.index)

        weights = eqx.filter(trained, eqx.is_inexact_array), memory.discriminator
        none = *jax.tree.map(jnp.zeros_like, weights), {name: jnp.zeros(()) for name in NUMBERS}
        codes = trained.codebook.codes
        zeros = none, jnp.zeros(len(codes)), jnp.zeros_like(codes)
        sums, counts, latents = summed(part, zeros, turn.batch, parts, turn.mesh)
        gradients, of_judge, numbers = jax.tree.map(lambda sums: sums / parts, sums)
        gradients = packed_like(memory.moments, gradients)

        autoencoder, moments = descend(turn, turn.config.optimizer, trained, gradients, memory.moments)
        judge = descend(
            turn, self.discriminator_optimizer, memory.discriminator, of_judge, memory.discriminator_moments
        )
        before = memory.discriminator, memory.discriminator_moments
        judge = jax.tree.map(lambda new, old: jnp.where(started, new, old), judge, before)
        use = memory.use.after(counts)
        revived, still = use.revive(autoencoder.codebook, latents)
        details = {name: value for name, value in numbers.items() if name != "loss"}
        details |= {"codes_in_use": jnp.mean(~use.dead(), dtype=jnp.float32), "code_perplexity": use.perplexity()}
        return Moved(
            trained=eqx.tree_at(lambda model: model.codebook, autoencoder, revived),
            memory=AdversarialMemory(moments, *judge, still),
            loss=numbers["loss"],
            gradient_norm=optax.tree.norm((gradients, of_judge)),
            details=details,
        )

    def packs(self, config: TrainConfig) -> bool:
        return config.optimizer.elementwise

    def _gradients(
        self, trained: Autoencoder, judge: Discriminator, batch: Batch, key: PRNGKeyArray, started: Array
    ) -> Gradients:
        keys, (height, width) = image_keys(key, batch.index), batch.image.shape[1:3]
        known = jax.vmap(lambda key: self.objective.draw_known(key, height, width))(keys)
        return adversarial_gradients(trained, judge, self.objective, self.perceptual, batch.image, known, started)

    def _ask(self, key: PRNGKeyArray, batch: Batch) -> Asked:
        image_key, site_key = jr.split(key)
        count, height, width, _ = batch.image.shape
        sites, codes = height * width // self.autoencoder.factor**2, (self.autoencoder.codes,)
        return Asked(jr.randint(image_key, codes, 0, count), jr.randint(site_key, codes, 0, sites))
