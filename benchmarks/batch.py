"""What does ``f.map`` of many calls save over a loop of calls?

``python -m benchmarks.batch`` times 1 to 1,000 calls of which none, half or all are
hits, on local memory and on Valkey: one by one, by ``f.map``, and by ``f.map`` with a
bulk function (``f.many``) for what is missing. The function itself gives its value at
once. The ratios are to the loop: 0.10 is ten times as fast. In every round each takes
its turn once, in another order each time; the hits are spread over the misses.
"""

from __future__ import annotations

import itertools
import random
import sys
from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Any

from django.core.cache import caches

from benchmarks.hit import POSITIONAL, TYPICAL, VALUES
from benchmarks.measure import Batch, Ratio, interleave, ratio
from benchmarks.peers import OURS, Case, ours, subject
from benchmarks.places import LOCAL, VALKEY, Backend, places
from benchmarks.report import Bar, Report, parser

SIZES = [1, 10, 100, 1000]
SHARES = [0, 50, 100]
#: Fewer for more calls, so that none takes minutes; and those of a quick look.
ROUNDS = [
    {1: 300, 10: 200, 100: 80, 1000: 20},
    {1: 20, 10: 10, 100: 5, 1000: 3},
]
LOOP, MAP, MANY = "a loop of calls", "f.map", "f.map with f.many"
#: So many times faster than a loop is ``map`` with so many hits, on Valkey.
GOAL, GOAL_SIZE = 15, 100


class Function:
    """One memoized function, and a way to call it many times."""

    def __init__(self, backend: Backend, size: int, share: int, way: str) -> None:
        self.value = VALUES[TYPICAL]
        function, self.computed = subject(self.value, POSITIONAL)
        self.f: Any = ours(Case(backend, POSITIONAL, None))(function)
        self.call: Callable[[list[int]], Any] = self.loop
        if way != LOOP:
            self.call = self.f.map
        if way == MANY:
            self.f.many(self.bulk)
        self.size, self.hits = size, size * share // 100
        self.fresh, self.order = itertools.count(size), random.Random(0)
        for n in range(self.hits):
            self.f(n)

    def loop(self, items: list[int]) -> list[Any]:
        f = self.f
        return [f(item) for item in items]

    def bulk(self, items: list[Any]) -> list[Any]:
        self.computed.extend(items)
        return [self.value] * len(items)

    def run(self, number: int) -> float:
        """The seconds of ``number`` times all of the calls, each checked."""
        seconds = 0.0
        for _ in range(number):
            misses = self.size - self.hits
            items = [*range(self.hits), *itertools.islice(self.fresh, misses)]
            self.order.shuffle(items)
            before = len(self.computed)
            started = perf_counter()
            found = self.call(items)
            seconds += perf_counter() - started
            assert len(self.computed) - before == misses, "other hits than expected"
            assert found == [self.value] * self.size
        return seconds


def measure(
    backend: Backend, size: int, share: int, rounds: int
) -> dict[str, list[float]]:
    ways = [LOOP, MAP] + [MANY] * (share < 100)
    batches: dict[str, Batch] = {
        way: Function(backend, size, share, way).run for way in ways
    }
    seconds = interleave(batches, rounds=rounds, number=1)
    caches[backend.alias].clear()
    return seconds


def main() -> None:
    options = parser(__doc__).parse_args()
    report = Report("Many calls at once", options)
    with places(report, LOCAL, VALKEY, MAX_ENTRIES=10**7) as there:
        case = Case(LOCAL, POSITIONAL, None)
        if not hasattr(ours(case)(subject(None, POSITIONAL)[0]), "map"):
            sys.exit("this version of the library has no f.map")
        cells = [
            (backend, share)
            for backend in there
            for share in SHARES
            if report.wanted(backend.title, f"{share} %")
        ]
        with report.progress(len(cells) * len(SIZES)) as bar:
            for backend, share in cells:
                columns = {}
                for size in SIZES:
                    title = f"{backend.title}, {share} % hits"
                    bar.set_description(f"{title}, {size} calls", False)
                    rounds = ROUNDS[options.quick][size]
                    columns[size] = measure(backend, size, share, rounds)
                    report.raw.append([title, size, columns[size]])
                    bar.update()
                tell(report, backend, share, columns)
    report.finish()


def tell(
    report: Report,
    backend: Backend,
    share: int,
    columns: dict[int, dict[str, list[float]]],
) -> None:
    title = f"{backend.title}, {share} % hits"
    rows = [[title, *(f"{size:,} calls" for size in columns)]]
    loops = [median(seconds[LOOP]) * 1e3 for seconds in columns.values()]
    rows.append([LOOP, *(f"{loop:.3g} ms" for loop in loops)])
    for way in (MAP, MANY):
        if all(way in seconds for seconds in columns.values()):
            found = [ratio(seconds[way], seconds[LOOP]) for seconds in columns.values()]
            rows.append([way, *map(str, found)])
    report.table(title, rows)
    if (backend, share) == (VALKEY, 100):
        seconds = columns[GOAL_SIZE]
        faster: Ratio = ratio(seconds[LOOP], seconds[MAP])
        report.goal(
            f"Valkey: map of {GOAL_SIZE} hits, times as fast", faster, least=GOAL
        )
    bars = [
        Bar(f"{size:,} calls", ratio(s[LOOP], s[MAP]).within_rounds, True)
        for size, s in columns.items()
    ]
    goal = GOAL if (backend, share) == (VALKEY, 100) else None
    report.group(f"{title}: {OURS}'s map, times as fast as a loop", bars, goal)


if __name__ == "__main__":
    main()
