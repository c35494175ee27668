"""What a law of known regions is."""

import abc

import equinox as eqx
from jaxtyping import Array, Bool, PRNGKeyArray


class AbstractMaskLaw(eqx.Module):
    """A law of known regions.

    To write one more: implement `__call__` so that it runs inside `jit` and `vmap` (`height` and `width` are static),
    True where a token is observed, and enrol the class in `tests/test_masks.py`.
    """

    @abc.abstractmethod
    def __call__(self, key: PRNGKeyArray, height: int, width: int) -> Bool[Array, "{height} {width}"]:
        """A random known region of a grid of `height x width` tokens."""


def check_grid(height: int, width: int) -> None:
    """Raise `ValueError` for a grid too small to hold a known and an unknown token in each direction."""
    if height < 2 or width < 2:
        raise ValueError(f"a grid of {height}x{width} cannot be split into known and unknown; give at least 2x2")
