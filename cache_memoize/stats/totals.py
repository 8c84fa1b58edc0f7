"""The counts of a memoized function, and sums of them. Pure.

Costs of computations are counted in buckets whose bounds grow by a fifth, so that the
counts of many processes add up to percentiles, which percentiles themselves would not.
DDSketch (Masson, Rim, Lee, VLDB 2019) is the same idea, with proofs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["Totals", "bucket"]

#: Buckets per doubling of the cost: percentiles have an error of 9 % at most.
PER_DOUBLING = 4
#: Seconds of the smallest bucket.
LEAST = 1e-6

_NO_COSTS: Mapping[int, int] = {}


def bucket(cost: float) -> int:
    """Return the bucket of a computation of ``cost`` seconds."""
    return round(PER_DOUBLING * math.log2(max(cost, LEAST)))


class Totals(NamedTuple):
    """The counts of one function, of one process or of many."""

    hits: int = 0
    misses: int = 0
    #: Hits that were past their timeout.
    stale: int = 0
    #: Callers that began to wait for the computation of another one.
    waits: int = 0
    #: Failed operations of the cache.
    errors: int = 0
    #: Refreshes that stored nothing, while callers go on getting the old value.
    failed: int = 0
    #: Hits whose entry was a copy in the memory of the process.
    near: int = 0
    #: Runs of the function, also in the background.
    computations: int = 0
    #: Entries stored, and their bytes.
    stored: int = 0
    stored_bytes: int = 0
    #: Results that were not stored because of ``max_bytes=``.
    too_large: int = 0
    #: Invalidations: of a call, or of all.
    invalidations: int = 0
    #: Hits that were audited, and those of them whose value was wrong.
    audited: int = 0
    wrong: int = 0
    #: Seconds of all runs.
    spent: float = 0.0
    #: Seconds of computation that hits made unnecessary.
    saved: float = 0.0
    #: Numbers of computations, by :func:`bucket` of their cost.
    costs: Mapping[int, int] = _NO_COSTS

    def plus(self, other: Totals, sign: int = 1) -> Totals:
        costs = dict(self.costs)
        for key, number in other.costs.items():
            costs[key] = costs.get(key, 0) + sign * number
            if not costs[key]:
                del costs[key]
        counts = zip(self[:-1], other[:-1], strict=True)
        return Totals._make([*(a + sign * b for a, b in counts), costs])

    def minus(self, other: Totals) -> Totals:
        return self.plus(other, -1)

    @property
    def is_nothing(self) -> bool:
        return not any(self[:-1])

    @property
    def is_whole(self) -> bool:
        """Whether these can be the counts since some moment. They cannot if they were
        read in the middle of a call, or if an increment got lost."""
        return min(self.hits - self.stale, *self[:-1]) >= 0

    @property
    def calls(self) -> int:
        return self.hits + self.misses

    @property
    def hit_rate(self) -> float | None:
        """From 0 to 1; None without calls."""
        return self.hits / self.calls if self.calls else None

    @property
    def mean(self) -> float:
        """Mean seconds of a computation; 0.0 without any."""
        return self.spent / self.computations if self.computations else 0.0

    @property
    def size(self) -> int:
        """Mean bytes of a stored entry; 0 without any."""
        return round(self.stored_bytes / self.stored) if self.stored else 0

    @property
    def p95(self) -> float:
        """Seconds within which 95 % of the computations ended, 9 % more or less."""
        left = sum(self.costs.values()) * 0.95
        for key in sorted(self.costs):
            left -= self.costs[key]
            if left <= 0:
                return float(2 ** (key / PER_DOUBLING))
        return 0.0
