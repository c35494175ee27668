"""What a law of known regions is, and a mixture of several."""

import abc

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, PRNGKeyArray


class AbstractMaskLaw(eqx.Module):
    """A law of known regions.

    To write one more: implement `__call__` so that it runs inside `jit` and `vmap` (`height` and `width` are static),
    True where a token is observed, and enrol the class in `tests/test_masks.py`.
    """

    @abc.abstractmethod
    def __call__(self, key: PRNGKeyArray, height: int, width: int) -> Bool[Array, "{height} {width}"]:
        """A random known region of a grid of `height x width` tokens."""


class OneOf(AbstractMaskLaw):
    """Each time one of several laws, all equally likely. Costs as much as all of them: a batch draws from each.

    Raises `ValueError` if there is no law.
    """

    laws: tuple[AbstractMaskLaw, ...]

    def __check_init__(self):
        if not self.laws:
            raise ValueError("a mixture of mask laws needs a law, got none; give at least one")

    def __call__(self, key: PRNGKeyArray, height: int, width: int) -> Bool[Array, "{height} {width}"]:
        choice_key, mask_key = jr.split(key)
        # One key for all, as only one of them is kept.
        drawn = jnp.stack([law(jr.clone(mask_key), height, width) for law in self.laws])
        return drawn[jr.randint(choice_key, (), 0, len(self.laws))]


def check_grid(height: int, width: int) -> None:
    """Raise `ValueError` for a grid too small to hold a known and an unknown token in each direction."""
    if height < 2 or width < 2:
        raise ValueError(f"a grid of {height}x{width} cannot be split into known and unknown; give at least 2x2")
