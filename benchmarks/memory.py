"""Does the memory of a process stay flat? A part of scale.py.

One thread makes hits, misses and invalidations, of calls and of tags, for some time.
The arguments are few that come often, and ever new ones.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.core.cache import caches

from benchmarks.hit import TYPICAL, VALUES
from benchmarks.peers import TIMEOUT
from benchmarks.places import Backend
from benchmarks.report import Report
from cache_memoize import cache_memoize, invalidate_tags

#: Memory may grow by so much of what it was after the first third.
GROWTH = 1.05
#: Of the memory, in the whole time.
SAMPLES = 30


def resident() -> int | None:
    """Bytes of this process in memory."""
    try:
        pages = Path("/proc/self/statm").read_text().split()[1]
    except OSError:
        return None
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def traffic(backend: Backend) -> Callable[[], None]:
    """Return a function that makes one more call: a hit, a miss, or an invalidation."""
    rng, alias = random.Random(0), backend.alias

    @cache_memoize(TIMEOUT, cache_alias=alias, tags=lambda n: [f"soak{n % 100}"])
    def soaked(n: int) -> Any:
        return [n, *VALUES[TYPICAL]]

    def step() -> None:
        n, chance = int(rng.paretovariate(0.5)), rng.random()
        if chance < 0.02:
            soaked.invalidate(n)
        elif chance < 0.03:
            invalidate_tags(f"soak{n % 100}", cache_alias=alias)
        else:
            soaked(n)

    return step


def measure_growth(report: Report, backends: list[Backend], seconds: float) -> None:
    rows = [["memory", "calls", "after a third", "at the end", "growth"]]
    for backend in backends:
        step, samples, calls = traffic(backend), list[int | None](), 0
        began = time.monotonic()
        with report.progress(int(seconds)) as bar:
            bar.set_description(f"memory, {backend.title}", False)
            while (past := time.monotonic() - began) < seconds:
                if past * SAMPLES >= len(samples) * seconds:
                    samples.append(resident())
                    bar.update(int(past) - bar.n)
                for _ in range(100):
                    step()
                calls += 100
        samples.append(resident())
        caches[backend.alias].clear()
        report.raw.append(["memory", backend.title, samples])
        early, late = samples[len(samples) // 3], samples[-1]
        if early is None or late is None:
            report.without("memory", "read from /proc, which is not here", "a number")
            continue
        grown = late / early
        sizes = [f"{size / 2**20:.1f} MiB" for size in (early, late)]
        rows.append([backend.title, f"{calls:,}", *sizes, f"{grown - 1:+.1%}"])
        report.goal(f"memory, {backend.title}: at the end", [grown], most=GROWTH)
    report.table(f"Memory after {seconds:g} s", rows)
