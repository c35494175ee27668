"""Settings that check themselves: every number of a config is finite and in its range, or it cannot be built.

Numbers are judged as the float32 that they become: 1e300 is infinite there, and 1e-60 is 0.
"""

import math
from collections.abc import Callable

import numpy as np


def check_number(name: str, value: int | float, holds: Callable[[float], bool], wanted: str) -> None:
    """Raise `ValueError` unless a setting is finite and `holds` is true of it; `wanted` says the range in words."""
    number = value
    if isinstance(value, float):
        with np.errstate(over="ignore", under="ignore"):
            number = float(np.float32(value))
    finite = isinstance(number, int) or math.isfinite(number)
    if not finite or not holds(number):
        raise ValueError(f"{name} must be {'' if finite else 'finite and '}{wanted}, got {value}; give another {name}")


def check_counts(**counts: int) -> None:
    """Raise `ValueError` unless every one of these settings is at least 1."""
    for name, value in counts.items():
        check_number(name, value, lambda count: count >= 1, "at least 1")


def check_share(name: str, value: float) -> None:
    """Raise `ValueError` unless a setting is in [0, 1]."""
    check_number(name, value, lambda share: 0 <= share <= 1, "in [0, 1]")


def check_seed(value: int) -> None:
    """Raise `ValueError` unless JAX can make a key of a seed."""
    check_number("seed", value, lambda seed: 0 <= seed < 2**32, "in [0, 2^32)")


def check_guidance(value: float, name: str = "guidance", off: float = 1.0) -> None:
    """Raise `ValueError` unless a weight of guidance, which is off at `off`, leaves float32 images finite."""
    check_number(name, value, lambda weight: abs(weight) <= 1e4, f"between -10,000 and 10,000; {off:g} is off")
