"""A transformer on patches in which every pixel has its own noise time.

The DiT family (arXiv 2212.09748): equal blocks of self-attention and an MLP, each normalised, scaled and shifted
before it and gated after it. Here scale, shift and gate are those of a *token*: one 1x1 map of the time features
pooled over its patch (see `asyncpatch.nn.layers`), plus one map of the label's embedding. All blocks share the two
maps and each adds constants of its own (adaLN-single, arXiv 2310.00426). A map for every block costs another 4% of a
train step of the smallest preset. Every gate starts at zero, so a fresh block is the identity.

**Which pixel of a patch has which time** is lost by pooling. The ends at full resolution (`asyncpatch.nn.ends`) keep
it: the stem sees each pixel beside its time, the head mixes pixels, each scaled by its own time, with the tokens.

**Position.** Queries and keys are turned by angles proportional to the token's row and column (rotary embedding,
arXiv 2104.09864), so that attention knows displacements alone and a canvas may be larger than those of training.

**One block is compiled**, whatever the depth: the blocks' weights are stacked and `jax.lax.scan` runs over them. On a
CPU, where a loop makes convolutions slow, these matrix products are as fast in the loop as out of it.

**The backward pass keeps what products make** and computes all else again. A loop keeps every intermediate value in an
array of all blocks, each written and read once more: for the 60M network these were 28 GiB at a batch of 128, most of
them attention weights, and most of the step went into moving them.

The MLP is gated by SiLU (arXiv 2002.05202); queries and keys have unit RMS with a learned gain (arXiv 2010.04245).
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, PRNGKeyArray

from asyncpatch.nn.base import AbstractFieldNetwork, AbstractNetworkConfig
from asyncpatch.nn.blocks import attend
from asyncpatch.nn.ends import PatchEnds
from asyncpatch.nn.layers import TIME_FEATURES, Conv, draw_weights, unit_rms
from asyncpatch.nn.products import product
from asyncpatch.sharding import gathered
from asyncpatch.tokens import pool

ROTARY_BASE = 100.0
"""One token further, the fastest pair of channels turns by 1 radian and the slowest, with heads of 32 or more, by less
than 1/50: displacements of up to 300 tokens look different."""

MODULATIONS = 6
"""Scale, shift and gate of the attention and of the MLP."""

PRODUCT = "product"
"""The name of what the backward pass keeps of a block, unless all is computed again."""


@dataclasses.dataclass(frozen=True)
class TransformerConfig(AbstractNetworkConfig):
    """The shape of a `Transformer`; dropout is inside its MLPs."""

    width: int
    """Channels of a token."""
    depth: int
    """Blocks, each of self-attention and an MLP."""
    hidden: int
    """Channels inside an MLP; with 8/3 of `width` it has the weights of an ungated one of four times `width`."""
    head: int = 64
    """Channels of one attention head: a row and a column turn two pairs of channels, so a multiple of 4."""
    patch: int = 4
    """A token is a patch of `patch x patch` pixels."""
    pixel_channels: int = 32
    """Channels of the full-resolution ends."""

    @property
    def multiple(self) -> int:
        """A patch."""
        return self.patch

    def check(self) -> None:
        """Positive sizes, and heads that fill the tokens and can be turned."""
        for name in ("width", "depth", "hidden", "patch", "pixel_channels"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.head < 4 or self.head % 4 or self.width % self.head:
            raise ValueError(
                f"{self.width} channels cannot be split into heads of {self.head} that rows and columns turn; give a "
                "head that divides width and is a multiple of 4"
            )

    def build(self, key: PRNGKeyArray) -> "Transformer":
        """A transformer with fresh weights."""
        return Transformer(self, key)


class Turns(eqx.Module):
    """The angles by which each token's queries and keys are turned."""

    cos: Float[Array, "tokens 1 pairs"]
    sin: Float[Array, "tokens 1 pairs"]

    @classmethod
    def of_grid(cls, rows: int, cols: int, head: int, dtype: jnp.dtype) -> "Turns":
        """Half of the pairs are turned by the row and half by the column."""
        rates = ROTARY_BASE ** -jnp.linspace(0, 1, head // 4, endpoint=False)
        by_row, by_col = (jnp.arange(count, dtype=rates.dtype)[:, None] * rates[None] for count in (rows, cols))
        both = jnp.concatenate([jnp.repeat(by_row, cols, axis=0), jnp.tile(by_col, (rows, 1))], axis=-1)
        return cls(jnp.cos(both)[:, None].astype(dtype), jnp.sin(both)[:, None].astype(dtype))

    def __call__(self, x: Float[Array, "tokens heads head"]) -> Float[Array, "tokens heads head"]:
        first, second = jnp.split(x, 2, axis=-1)
        return jnp.concatenate([first * self.cos - second * self.sin, first * self.sin + second * self.cos], axis=-1)


class Block(eqx.Module):
    """Self-attention and an MLP, modulated token by token; the identity at the start."""

    constants: Float[Array, " modulations"]
    query_key_value: Conv
    query_gain: Float[Array, " head"]
    key_gain: Float[Array, " head"]
    output: Conv
    expand: Conv
    contract: Conv
    dropout: float = eqx.field(static=True)

    def __init__(self, config: TransformerConfig):
        width = config.width
        self.constants = jnp.zeros(MODULATIONS * width)
        self.query_key_value = Conv(1, width, 3 * width)
        self.query_gain = jnp.ones(config.head)
        self.key_gain = jnp.ones(config.head)
        self.output = Conv(1, width, width)
        self.expand = Conv(1, width, 2 * config.hidden)
        self.contract = Conv(1, config.hidden, width)
        self.dropout = config.dropout

    def __call__(
        self,
        x: Float[Array, "rows cols channel"],
        modulation: Float[Array, "modulation_rows modulation_cols modulations"],
        turns: Turns,
        key: PRNGKeyArray | None,
    ) -> Float[Array, "rows cols channel"]:
        """The modulation has a row and column for each token, or one for all; `key = None` turns dropout off."""
        parts = jnp.split(modulation + self.constants[None, None], MODULATIONS, axis=-1)
        scale, shift, gate, mlp_scale, mlp_shift, mlp_gate = parts
        x = x + gate * self._look_around(unit_rms(x) * (1 + scale) + shift, turns)
        return x + mlp_gate * self._think(unit_rms(x) * (1 + mlp_scale) + mlp_shift, key)

    def _look_around(self, x, turns):
        tokens = x.shape[0] * x.shape[1]
        projected = _product(self.query_key_value, x).reshape(tokens, 3, -1, self.query_gain.size)
        query, key, value = projected[:, 0], projected[:, 1], projected[:, 2]
        query = turns(unit_rms(query) * self.query_gain[None, None])
        key = turns(unit_rms(key) * self.key_gain[None, None])
        return _product(self.output, attend(query, key, value).reshape(x.shape))

    def _think(self, x, key):
        hidden, gate = jnp.split(_product(self.expand, x), 2, axis=-1)
        hidden = hidden * jax.nn.silu(gate)
        if key is not None and self.dropout > 0:
            kept = jr.bernoulli(key, 1 - self.dropout, hidden.shape)
            hidden = jnp.where(kept, hidden / (1 - self.dropout), 0.0)
        return _product(self.contract, hidden)


def _product(layer: Conv, x: Float[Array, "rows cols inputs"]) -> Float[Array, "rows cols outputs"]:
    return checkpoint_name(layer(x), PRODUCT)


class Transformer(AbstractFieldNetwork):
    """Velocity of every pixel from a noisy image, a time field and a label."""

    config: TransformerConfig = eqx.field(static=True)
    ends: PatchEnds
    labels: Float[Array, "rows width"]
    from_time: Float[Array, "features modulations"]
    from_label: Float[Array, "width modulations"]
    blocks: Block

    def __init__(self, config: TransformerConfig, key: PRNGKeyArray):
        ends_key, blocks_key = jr.split(key)
        ends = PatchEnds(config.channels, config.width, config.patch, config.pixel_channels)
        labels = jnp.ones((config.num_classes + 1, config.width))
        self.config = config
        self.ends, self.labels = draw_weights((ends, labels), ends_key)
        self.from_time = jnp.zeros((TIME_FEATURES, MODULATIONS * config.width))
        self.from_label = jnp.zeros((config.width, MODULATIONS * config.width))
        # Block by block: once stacked, gains have two axes like weights.
        self.blocks = eqx.filter_vmap(lambda key: draw_weights(Block(config), key))(jr.split(blocks_key, config.depth))

    @property
    def last(self) -> Conv:
        return self.ends.head

    def activations(self, z, features, embedding, key):
        """Gather tokens, run all blocks, and go back to pixels."""
        config = self.config
        x, pixels = self.ends.enter(z, features, embedding)
        pooled = features if features.shape[:2] == (1, 1) else pool(features, config.patch)
        from_label = embedding @ gathered(self.from_label)
        modulation = product(pooled, gathered(self.from_time)) + from_label[None, None]
        turns = Turns.of_grid(*x.shape[:2], config.head, x.dtype)

        def run(x, block_and_key):
            block, block_key = block_and_key
            return block(x, modulation, turns, block_key), None

        # A loop's two passes are never merged, so what is recomputed needs no protection from that.
        kept = None if config.rematerialise else jax.checkpoint_policies.save_only_these_names(PRODUCT)
        step = jax.checkpoint(run, prevent_cse=False, policy=kept)
        keys = None if key is None else jr.split(key, config.depth)
        x, _ = jax.lax.scan(step, x, (self.blocks, keys))
        return self.ends.leave(x, pixels, features, embedding)
