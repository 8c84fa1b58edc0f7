"""What a hit from the memory of the process costs, and what a change costs then.

``python -m benchmarks.near`` prints ratios to the cache's own ``get`` on Valkey (or
``aget``, where it is awaited); what an invalidation takes with other processes that
hold copies; and how many hits a process makes with several threads.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

from benchmarks.hit import TYPICAL, VALUES
from benchmarks.measure import Batch, async_batch, batch, interleave, ratio
from benchmarks.places import LOCAL, VALKEY, places
from benchmarks.report import Report, parser
from tests.servers import SERVERS

VALUE = VALUES[TYPICAL]
ITEMS = list(range(100))
HOLDERS = (0, 1, 4, 16)
THREADS = (1, 2, 4)

#: A process that holds copies, until its input ends.
_HOLDER = """
import sys, tempfile, time
from pathlib import Path
from benchmarks import near
from benchmarks.places import configure
configure(Path(tempfile.gettempdir()))
f = near.functions()["near"]
while not near.holds(f(1)):
    time.sleep(0.01)
print("holds", flush=True)
sys.stdin.read()
"""


def value(post: int, limit: int = 10) -> Any:
    return VALUE


async def avalue(post: int, limit: int = 10) -> Any:
    return VALUE


def functions() -> dict[str, Any]:
    from cache_memoize import cache_memoize

    def memoized(name: str, function: Any, **options: Any) -> Any:
        return cache_memoize(3600, prefix=name, **options)(function)

    far = {"cache_alias": VALKEY.alias}
    return {
        "near": memoized("bench.near", value, **far, local="process"),
        "far": memoized("bench.far", value, **far),
        "anear": memoized("bench.anear", avalue, **far, local="process"),
        "local memory": memoized("bench.memory", value, cache_alias=LOCAL.alias),
    }


def holds(result: Any) -> bool:
    """Whether this process has a copy by now."""
    from cache_memoize.cache.near import copies_of

    return bool(copies_of(VALKEY.alias).by_place)


def by_hand() -> Callable[[int, int], Any]:
    """The nearest that Python has: lru_cache, and an object of one's own."""
    pickled = pickle.dumps(VALUE, pickle.HIGHEST_PROTOCOL)

    @functools.lru_cache
    def entry(post: int, limit: int) -> bytes:
        return pickled

    loads = pickle.loads
    return lambda post, limit: loads(entry(post, limit))


def hits(made: dict[str, Any], rounds: int) -> list[list[str]]:
    """The table of hits: ratios within the rounds, of medians, and of minima."""
    from django.core.cache import caches

    cache = caches[VALKEY.alias]
    cache.set("by hand", VALUE)
    names = {**{k.replace(" ", "_"): f for k, f in made.items()}, "caches": caches}
    names |= {"by_hand": by_hand(), "items": ITEMS, "alias": VALKEY.alias}
    for call in (made["far"], made["near"]):
        call.map(ITEMS)
        call.map(ITEMS)
    with asyncio.Runner() as runner:
        ours: dict[str, tuple[Batch, str]] = {
            "get": (batch("caches[alias].get('by hand')", names), "get"),
            "a hit": (batch("far(42, 10)", names), "get"),
            "a hit from memory": (batch("near(42, 10)", names), "get"),
            "lru_cache and unpickling": (batch("by_hand(42, 10)", names), "get"),
            "a hit in local memory": (batch("local_memory(42, 10)", names), "get"),
            "aget": (async_batch(runner, "caches[alias].aget('by hand')", names), ""),
            "an awaited hit from memory": (
                async_batch(runner, "anear(42, 10)", names),
                "aget",
            ),
            "map of 100": (batch("far.map(items)", names), ""),
            "100 hits from memory": (
                batch("[near(item) for item in items]", names),
                "map of 100",
            ),
            "map of 100 from memory": (batch("near.map(items)", names), "map of 100"),
        }
        batches = {name: run for name, (run, _) in ours.items()}
        seconds = interleave(batches, rounds=rounds, number=5)
    rows = [["", "µs", "ratio", "to"]]
    for name, (_, to) in ours.items():
        against = str(ratio(seconds[name], seconds[to])) if to else "1"
        rows.append([name, f"{median(seconds[name]) * 1e6:.1f}", against, to])
    near, hand = seconds["a hit from memory"], seconds["lru_cache and unpickling"]
    rows.append(["a hit from memory", "", str(ratio(near, hand)), "lru_cache"])
    return rows


@contextmanager
def holders(number: int) -> Iterator[None]:
    server = SERVERS["valkey"]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _HOLDER],
            env=os.environ | {server.variable: str(server.port)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(number)
    ]
    try:
        for each in processes:
            assert each.stdout and each.stdout.readline() == "holds\n"
        yield
    finally:
        for each in processes:
            each.communicate("")


def changes(made: dict[str, Any], rounds: int) -> list[list[str]]:
    """The table of invalidations: with so many other processes that hold copies."""
    rows = [["other processes", "µs (median)", "90 %", "ratio to a plain function"]]
    for number in HOLDERS:
        with holders(number):
            taken: dict[str, list[float]] = {"near": [], "far": []}
            for _ in range(rounds):
                for name, each in taken.items():
                    made[name](1)
                    began = time.perf_counter()
                    made[name].invalidate(1)
                    each.append(time.perf_counter() - began)
        near, far = sorted(taken["near"]), taken["far"]
        late = near[int(len(near) * 0.9)]
        rows.append(
            [
                str(number),
                f"{median(near) * 1e6:.0f}",
                f"{late * 1e6:.0f}",
                str(ratio(near, far)),
            ]
        )
    return rows


def throughput(made: dict[str, Any], seconds: float) -> list[list[str]]:
    """The table of hits per second of one process."""
    rows = [["threads", *(f"{name}, per second" for name in ("near", "local memory"))]]
    for number in THREADS:
        row = [str(number)]
        for name in ("near", "local memory"):
            row.append(f"{run_threads(made[name], number, seconds):,.0f}")
        rows.append(row)
    return rows


def run_threads(function: Any, number: int, seconds: float) -> float:
    counts, end = [0] * number, time.monotonic() + seconds

    def work(slot: int) -> None:
        while time.monotonic() < end:
            for _ in range(100):
                function(42, 10)
            counts[slot] += 100

    threads = [threading.Thread(target=work, args=[n]) for n in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / seconds


def main() -> None:
    options: argparse.Namespace = parser(__doc__).parse_args()
    rounds = 30 if options.quick else 400
    report = Report("Hits from the memory of the process", options)
    with places(report, LOCAL, VALKEY):
        made = functions()
        while not holds(made["near"](42, 10)):
            time.sleep(0.01)
        report.table("Hits", hits(made, rounds))
        report.table("An invalidation", changes(made, rounds // 2))
        report.table("Threads", throughput(made, 1 if options.quick else 5))


if __name__ == "__main__":
    main()
