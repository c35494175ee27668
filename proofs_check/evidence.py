"""Rows from samples and from series: how far chance may carry a mean or a table of counts, and how fast errors fall."""

import math

import numpy as np
from jaxtyping import Float
from scipy import stats

from proofs_check.statement import Row

FALSE_ALARM = 1e-6
"""How often one statistical row of a true claim would fail, were its seed drawn anew."""

FEWEST = 5.0
"""Expected counts below this are not compared: Pearson's statistic is far from its limit there."""


def mean_row(what: str, samples: Float[np.ndarray, " draws"], expected: float) -> Row:
    """Independent draws have the mean that is expected of them."""
    deviation = float(np.std(samples, ddof=1) / math.sqrt(len(samples)))
    tolerance = float(stats.norm.isf(FALSE_ALARM / 2)) * deviation
    return Row(what, float(np.mean(samples)), expected, tolerance, f"{len(samples)} draws, {_rate()}")


def counts_row(what: str, counts: np.ndarray, expected: np.ndarray) -> Row:
    """Pearson's chi-square of tables of counts, one table per row, against their expectation at the same totals.

    Categories that are expected to be empty count as impossible: one draw there and the row fails.
    """
    possible = expected > 0
    kept = possible.any(axis=1) & (np.where(possible, expected, np.inf).min(axis=1) >= FEWEST)
    if not kept.any():
        raise ValueError(f"every table has an expected count below {FEWEST}; draw more than {counts.sum()} times")
    impossible = counts[~possible].sum()
    gap = np.where(possible, (counts - expected) ** 2 / np.where(possible, expected, 1.0), 0.0)[kept].sum()
    freedom = int((possible.sum(axis=1) - 1)[kept].sum())
    reach = float(stats.chi2.isf(FALSE_ALARM, freedom)) - freedom
    measured = math.inf if impossible else float(gap)
    return Row(what, measured, freedom, reach, f"chi-square of {int(counts[kept].sum())} draws, {_rate()}")


def pool_rare(counts: np.ndarray, expected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tables of one row from arrays of any shape; the possible but rare categories are taken together, as the last."""
    rare = (expected > 0) & (expected < 2 * FEWEST)
    pooled, pooled_expected = (np.append(v[~rare], v[rare].sum())[None] for v in (counts, expected))
    return pooled, pooled_expected


def slope(sizes: list[int], errors: list[float]) -> float:
    """The exponent of the power law that fits errors best; NaN unless all are positive."""
    if min(errors) <= 0:
        return math.nan
    return float(np.polyfit(np.log(sizes), np.log(errors), 1)[0])


def _rate() -> str:
    return f"false alarm {FALSE_ALARM:g}"
