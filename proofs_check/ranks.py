"""Rows for whole distributions (ranks of draws, which are uniform if the draws have the distribution they should)."""

import math

import numpy as np
from jaxtyping import Array, Float
from scipy import stats

from proofs_check.evidence import FALSE_ALARM
from proofs_check.statement import Row

REACH = float(stats.norm.isf(FALSE_ALARM / 2))
"""Standard errors that a normal variable exceeds at the false-alarm rate."""


def distribution_row(what: str, ranks: Float[Array | np.ndarray, " draws"]) -> Row:
    """Values of a distribution function at draws, which are U(0, 1) if the draws have that distribution.

    The largest gap between the two distribution functions (Kolmogorov-Smirnov), with the bound of Dvoretzky, Kiefer and
    Wolfowitz, which holds for every number of draws.
    """
    ordered = np.sort(np.asarray(ranks, np.float64))
    count = len(ordered)
    gap = max(np.max(np.arange(1, count + 1) / count - ordered), np.max(ordered - np.arange(count) / count))
    tolerance = math.sqrt(math.log(2 / FALSE_ALARM) / (2 * count))
    return Row(what, float(gap), 0.0, tolerance, f"{count} draws, false alarm {FALSE_ALARM:g}")
