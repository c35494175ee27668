"""What a checked statement is: a claim, where it comes from, what was measured, and a wrong twin that is rejected.

Each statement is one module of this package with

    CLAIM, SOURCE        the statement in a sentence, and where it is proved
    RIGHT, WRONG         what the claim is about, and a twin for which it is false
    check(size, subject) the rows of the table for one of the two, as a list of `Row`
    picture(path)        optional: a figure for the report, drawn at full size

The tests run every statement small, and require all rows to hold for RIGHT and one of them to fail for WRONG; the
report (`python -m proofs_check.report`) runs them at full size. To write one more: add such a module; it enrols itself.
"""

import dataclasses
import enum
import math


class Size(enum.Enum):
    """How much work a check does."""

    QUICK = enum.auto()
    """Seconds, for the tests."""
    FULL = enum.auto()
    """Up to minutes, for the report."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One comparison: it holds if `measured` is within `tolerance` of `expected`.

    `basis` says where the tolerance comes from: rounding, a quadrature error, or a false-alarm rate.
    """

    what: str
    measured: float
    expected: float
    tolerance: float
    basis: str

    @property
    def holds(self) -> bool:
        """Whether the two agree; NaN never does."""
        return math.isfinite(self.measured) and abs(self.measured - self.expected) <= self.tolerance
