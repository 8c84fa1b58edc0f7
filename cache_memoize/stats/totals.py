"""What is counted of a memoized function, and how counts are added up. Pure.

Costs of computations are counted in buckets whose bounds grow by a fifth, so that
counts of many processes add up to one percentile. DDSketch (Masson, Rim, Lee, VLDB
2019) is the same idea, with proofs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["Totals", "bucket"]

#: So many buckets for a doubling of the cost: a percentile is right within 9 %.
PER_DOUBLING = 4
#: Nothing takes less than this many seconds.
LEAST = 1e-6

_NO_COSTS: Mapping[int, int] = {}


def bucket(cost: float) -> int:
    """The bucket of a computation that took ``cost`` seconds."""
    return round(PER_DOUBLING * math.log2(max(cost, LEAST)))


class Totals(NamedTuple):
    """Counts of one function, of one process or of many."""

    hits: int = 0
    misses: int = 0
    #: Those of the hits that were past their timeout.
    stale: int = 0
    #: How often a caller began to wait for another's computation.
    waits: int = 0
    #: How often the cache failed the function.
    errors: int = 0
    #: How often the function ran, in the background too.
    computations: int = 0
    #: Seconds that it ran.
    spent: float = 0.0
    #: Seconds of computation that hits made unnecessary.
    saved: float = 0.0
    #: How many computations there were, by :func:`bucket` of their cost.
    costs: Mapping[int, int] = _NO_COSTS

    def plus(self, other: Totals, sign: int = 1) -> Totals:
        costs = dict(self.costs)
        for place, number in other.costs.items():
            costs[place] = costs.get(place, 0) + sign * number
            if not costs[place]:
                del costs[place]
        counts = zip(self[:-1], other[:-1], strict=True)
        return Totals._make([*(a + sign * b for a, b in counts), costs])

    def minus(self, other: Totals) -> Totals:
        return self.plus(other, -1)

    @property
    def is_nothing(self) -> bool:
        return not any(self[:-1])

    @property
    def is_whole(self) -> bool:
        """Whether, as what has come since a moment, it can be true. Counts that are
        read in the middle of a call, or an increment that got lost, are not."""
        return min(self.hits - self.stale, *self[:-1]) >= 0

    @property
    def calls(self) -> int:
        return self.hits + self.misses

    @property
    def hit_rate(self) -> float | None:
        """From 0 to 1; None where nothing was called."""
        return self.hits / self.calls if self.calls else None

    @property
    def mean(self) -> float:
        """Seconds of a computation, on average; 0.0 if there was none."""
        return self.spent / self.computations if self.computations else 0.0

    @property
    def p95(self) -> float:
        """Seconds within which 95 % of the computations ended, within 9 %."""
        left = sum(self.costs.values()) * 0.95
        for place in sorted(self.costs):
            left -= self.costs[place]
            if left <= 0:
                return float(2 ** (place / PER_DOUBLING))
        return 0.0
