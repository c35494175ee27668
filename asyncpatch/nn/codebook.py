"""A codebook: every latent site becomes the nearest of a finite number of codes.

The nearest code is found through a product, `argmin |c|^2 / 2 - z . c`, one row of sites after the other: all
products of a large grid with a large codebook would not fit in memory. Gradients pass straight through, as if
quantising were the identity. Source: van den Oord et al. 2017 (arXiv 1711.00937).

A code that no site has chosen for long is dead: nothing moves it. `CodeUse` keeps a moving average of how often each
is chosen, and gives dead codes the place of a random latent of the present batch. All codes are dead at the start, so
that the first batch fills the codebook.

Invariant: what `Codebook` returns are codes to the bit.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

Latents = Float[Array, "rows cols channel"]

USE_DECAY = 0.99
"""Of the moving average of use: a window of a hundred batches."""

DEAD = 0.1
"""A code is dead once it is chosen this many times less often than if all were chosen alike."""


class Quantised(eqx.Module):
    """Latents as codes."""

    latents: Latents
    """The codes, with the gradient of what was quantised."""
    codes: Latents
    """The same numbers, with the gradient of the codebook."""
    index: Int[Array, "rows cols"]


class Codebook(eqx.Module):
    """All codes."""

    codes: Float[Array, "codes channel"]

    def __init__(self, codes: int, channels: int):
        """To be drawn by `asyncpatch.nn.layers.draw_weights`."""
        self.codes = jnp.ones((codes, channels))

    def nearest(self, latents: Latents) -> Int[Array, "rows cols"]:
        """The number of each site's nearest code; of equally near ones the first."""
        codes = self.codes.astype(jnp.float32)
        half_square = jnp.sum(jnp.square(codes), axis=-1) / 2

        def of_row(row: Float[Array, "cols channel"]) -> Int[Array, " cols"]:
            # Rounded to bfloat16, as an accelerator multiplies by default, near codes could not be told apart.
            products = jnp.matmul(row, codes.T, precision=jax.lax.Precision.HIGHEST)
            return jnp.argmin(half_square[None] - products, axis=-1)

        return jax.lax.map(of_row, jax.lax.stop_gradient(latents.astype(jnp.float32)))

    def __call__(self, latents: Latents) -> Quantised:
        """Each site's nearest code."""
        index = self.nearest(latents)
        codes = self.codes[index]
        # The difference is exactly 0; `latents + (codes - latents)` would be rounded.
        through = jax.lax.stop_gradient(codes) + (latents - jax.lax.stop_gradient(latents))
        return Quantised(through, codes, index)


class CodeUse(eqx.Module):
    """How often each code is chosen: a moving average of its share of all sites."""

    share: Float[Array, " codes"]

    @classmethod
    def none_yet(cls, codes: int) -> "CodeUse":
        """All codes are dead."""
        return cls(jnp.zeros(codes))

    def after(self, counts: Float[Array, " codes"]) -> "CodeUse":
        """The average with one more batch, in which codes were chosen so often."""
        return CodeUse(USE_DECAY * self.share + (1 - USE_DECAY) * counts / jnp.sum(counts))

    def dead(self) -> Bool[Array, " codes"]:
        """Which codes nothing moves."""
        return self.share < DEAD / len(self.share)

    def revive(self, codebook: Codebook, latents: Float[Array, "codes channel"]) -> tuple[Codebook, "CodeUse"]:
        """Each dead code takes the place of its latent, and is given time before it is judged again."""
        dead = self.dead()
        codes = jnp.where(dead[:, None], latents, codebook.codes)
        share = jnp.where(dead, 1 / len(dead), self.share)
        return eqx.tree_at(lambda book: book.codes, codebook, codes), CodeUse(share)

    def perplexity(self) -> Float[Array, ""]:
        """The number of codes, all chosen alike, that would be as hard to guess."""
        share = self.share / jnp.maximum(jnp.sum(self.share), jnp.finfo(jnp.float32).tiny)
        return jnp.exp(-jnp.sum(jax.scipy.special.xlogy(share, share)))
