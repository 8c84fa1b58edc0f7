"""What does an awaited hit on Valkey cost?

``python -m benchmarks.awaited`` times hits and Django's own ``aget`` of the same value
on Valkey: one after another, and 200 at once (``asyncio.gather``). In every round each
takes its turn once, in another order each time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from statistics import median
from time import perf_counter
from typing import Any

from django.core.cache import caches

from benchmarks.hit import TYPICAL, VALUES
from benchmarks.measure import Batch, interleave, ratio
from benchmarks.places import VALKEY, places
from benchmarks.report import Bar, Report, parser
from cache_memoize import cache_memoize

AGET, HIT, TAGGED = "Django's aget", "a hit", "a tagged hit"
AT_ONCE = 200
#: By number of hits at once: the hits of a batch, the rounds, those of a quick look,
#: and the ratio to aget that a hit is to have.
HOW = {1: (100, 100, 10, 0.3), AT_ONCE: (AT_ONCE, 60, 5, 0.15)}


def make_reads(runner: asyncio.Runner) -> dict[str, Callable[[], Awaitable[Any]]]:
    """Return what reads the same value in three ways; each has read it once."""
    value, cache = VALUES[TYPICAL], caches[VALKEY.alias]

    def hit(**options: Any) -> Callable[[], Awaitable[Any]]:
        @cache_memoize(
            3600, prefix=f"awaited{options}", cache_alias="valkey", **options
        )
        async def function() -> Any:
            return value

        return function

    reads = {AGET: lambda: cache.aget("raw"), HIT: hit(), TAGGED: hit(tags="tag")}
    cache.set("raw", value, 3600)
    for read in reads.values():
        for _ in range(5):  # the first commands of a loop go through a thread
            assert runner.run(_await(read)) == value
    return reads


async def _await(read: Callable[[], Awaitable[Any]]) -> Any:
    return await read()


def make_batch(
    runner: asyncio.Runner, read: Callable[[], Awaitable[Any]], at_once: int
) -> Batch:
    async def run(number: int) -> float:
        started = perf_counter()
        if at_once == 1:
            for _ in range(number):
                await read()
        else:
            await asyncio.gather(*[read() for _ in range(number)])
        return perf_counter() - started

    return lambda number: runner.run(run(number))


def main() -> None:
    options = parser(__doc__).parse_args()
    report = Report("Awaited hits", options)
    with places(report, VALKEY) as there, asyncio.Runner() as runner:
        reads = make_reads(runner) if there else {}
        for at_once, (number, *rounds, goal) in HOW.items() if there else ():
            batches = {name: make_batch(runner, reads[name], at_once) for name in reads}
            seconds = interleave(batches, rounds=rounds[options.quick], number=number)
            tell(report, at_once, seconds, goal)
    report.finish()


def tell(
    report: Report, at_once: int, seconds: dict[str, list[float]], goal: float
) -> None:
    title = "Valkey, " + ("one by one" if at_once == 1 else f"{at_once} at once")
    report.raw.append([title, seconds])
    ratios = {name: ratio(found, seconds[AGET]) for name, found in seconds.items()}
    rows = [[title, "µs per read", "compared with aget"]]
    for name, found in seconds.items():
        rows.append([name, f"{median(found) * 1e6:.3g}", str(ratios[name])])
    report.table(title, rows)
    report.goal(f"{title}: a hit, compared with aget", ratios[HIT], most=goal)
    bars = [Bar(n, found.within_rounds, n != AGET) for n, found in ratios.items()]
    report.group(f"{title}, compared with aget", bars, goal)


if __name__ == "__main__":
    main()
