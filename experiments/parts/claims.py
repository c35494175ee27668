"""What rows of evaluation say about a claim: measured seed by seed; the verdict may be that they cannot tell."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from experiments.report import LOWER_IS_BETTER, Finding, line_names, task_name

DOUBT = 0.05
"""Chance that a verdict is wrong in one direction, if seeds scatter normally."""

HOW_JUDGED = (
    "Networks of one seed are compared with each other. A verdict other than 'cannot tell' is wrong in "
    f"{DOUBT:.0%} of cases, if seeds scatter normally (one-sided t-test)."
)


@dataclasses.dataclass(frozen=True)
class Claim:
    """That line `better` of a task's table is better than line `worse`, by a metric.

    For distances the ratio better / worse is compared with `limit`; for all other metrics the difference with 0.
    """

    task: str
    metric: str
    better: str
    worse: str
    limit: float = 1.0

    @property
    def is_ratio(self) -> bool:
        """Whether the two are divided rather than subtracted."""
        return self.metric.startswith(LOWER_IS_BETTER)

    @property
    def statement(self) -> str:
        """The claim in words, whatever the task."""
        return (
            f"{self.metric} of {self.better} / {self.worse} is below {self.limit:g}"
            if self.is_ratio
            else f"{self.metric} of {self.better} - {self.worse} is above 0"
        )


@dataclasses.dataclass(frozen=True)
class Judged:
    """What was measured of a claim over the seeds that both sides have, and whether it holds."""

    claim: Claim
    seeds: int
    value: float | None
    """The mean ratio or difference, if it was measured."""
    measured: str
    holds: str


def judge_claims(rows: list[dict], claims: Sequence[Claim], names: list[str] | None = None) -> list[Judged]:
    """Judge each claim by rows, whose lines are called `names`: `line_names` if not given."""
    values = {
        (name, task_name(row), metric, row["experiment"]["training"]["seed"]): estimate["value"]
        for row, name in zip(rows, names or line_names(rows), strict=True)
        for metric, estimate in row["values"].items()
    }
    judged = []
    for claim in claims:
        sides = [
            {seed: value for (*key, seed), value in values.items() if key == [name, claim.task, claim.metric]}
            for name in (claim.better, claim.worse)
        ]
        seeds = sorted(sides[0].keys() & sides[1].keys())
        pairs = np.asarray([[side[seed] for side in sides] for seed in seeds]).reshape(-1, 2)
        judged.append(Judged(claim, len(seeds), *_verdict(claim, pairs)))
    return judged


def show_claims(title: str, judged: Sequence[Judged]) -> Finding:
    """A line a statement, a column a task."""
    tasks = list(dict.fromkeys(one.claim.task for one in judged))
    lines: dict[str, dict[str, Judged]] = {}
    for one in judged:
        lines.setdefault(one.claim.statement, {})[one.claim.task] = one
    return Finding(
        title,
        ("claim", "seeds", *tasks),
        [
            (
                statement,
                str(max(one.seeds for one in found.values())),
                *(f"{found[task].measured}: {found[task].holds}" if task in found else "" for task in tasks),
            )
            for statement, found in lines.items()
        ],
        HOW_JUDGED,
    )


def _verdict(claim: Claim, pairs: np.ndarray) -> tuple[float | None, str, str]:
    """What was measured, as it is shown, and yes, no or that nothing can be said."""
    if not len(pairs):
        return None, "-", "not measured"
    better, worse = pairs.T
    excess = np.log(better / worse / claim.limit) if claim.is_ratio else worse - better
    middle, count = float(np.mean(excess)), len(excess)
    shown = claim.limit * math.exp(middle) if claim.is_ratio else -middle
    if count == 1:
        return shown, f"{shown:.3f}", "cannot tell (one seed)"
    error = float(np.std(excess, ddof=1)) / math.sqrt(count)
    reach = error * float(stats.t.ppf(1 - DOUBT, count - 1))
    verdict = "yes" if middle + reach < 0 else "no" if middle - reach > 0 else "cannot tell"
    return shown, f"{shown:.3f} ± {error * (shown if claim.is_ratio else 1.0):.3f}", verdict
