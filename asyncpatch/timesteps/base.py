"""Laws of time fields for training: which combinations of noise times the network gets to see.

A law is stated by its *mean* (how noisy whole images are), its *spread* (how far tokens of one image differ) and its
*spatial scale* (how large the regions of one time are). Each law's docstring gives all three.

Invariants: values in [0, 1]; the same key gives the same field; one compiled program for all patch sizes.
"""

import abc

import equinox as eqx
from jaxtyping import Array, Float, PRNGKeyArray


class AbstractTimestepSampler(eqx.Module):
    """A law of random time fields.

    To write one more: implement `__call__` so that it runs inside `jit` and `vmap` (`height` and `width` are static),
    check parameters in `__check_init__` and the grid in `__call__`, state mean, spread and scale, and enrol the
    class, with a wrong twin, in `tests/test_timesteps.py`.
    """

    @abc.abstractmethod
    def __call__(self, key: PRNGKeyArray, height: int, width: int) -> Float[Array, "{height} {width}"]:
        """A random time field for one image of `height x width` tokens."""
