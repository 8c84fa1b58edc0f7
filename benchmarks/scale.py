"""Does a hit or an invalidation cost more as entries, functions, tags and hours grow?

``python -m benchmarks.scale`` fills Valkey with 10 to 1,000,000 entries of a tagged
function (copies of a real one, through a pipeline) and compares a hit with the raw
``get``, and an invalidation of a tag with the raw ``set``, at each size; then a hit
among 1 to 1,000 memoized functions that are called in turn, and one with 0 to 50 tags.
A cost is *flat* if its ratio at the greatest size is at most 1.25 times the smallest.

``--soak SECONDS`` is how long hits, misses and invalidations then go on; the memory of
the process (Linux only) is compared between the end of the first third and the end.
"""

from __future__ import annotations

import itertools
import os
import pickle
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.core.cache import caches

from benchmarks.hit import POSITIONAL, TYPICAL, VALUES
from benchmarks.measure import Ratio, batch, interleave, ratio
from benchmarks.peers import TIMEOUT, Case, Style, ours, subject
from benchmarks.places import LOCAL, VALKEY, Backend, places
from benchmarks.report import Bar, Report, parser
from cache_memoize import cache_memoize, invalidate_tags

ENTRIES = [10, 1_000, 10_000, 100_000, 1_000_000]
FUNCTIONS = [1, 10, 100, 1000]
TAGS = [0, 1, 5, 10, 50]
FLAT = 1.25
#: Commands in one pipeline.
CHUNK = 5000
#: In a soak, memory may grow by so much of what it was, after the first third.
GROWTH = 1.05

VALUE = VALUES[TYPICAL]
TAG = "scale"


def flat(report: Report, what: str, found: list[Ratio]) -> None:
    grown = [last / first for first, last in zip(found[0], found[-1], strict=True)]
    report.goal(f"{what}: the last ratio to the first", grown, most=FLAT)


def tell(
    report: Report, title: str, sizes: list[int], rows: dict[str, list[Ratio]]
) -> None:
    cells = [[name, *map(str, found)] for name, found in rows.items()]
    report.table(title, [[title, *(f"{size:,}" for size in sizes)], *cells])
    for name, found in rows.items():
        flat(report, f"{title}, {name}", found)
        pairs = zip(sizes, found, strict=True)
        bars = [Bar(f"{size:,}", each.within_rounds, True) for size, each in pairs]
        report.group(f"{title}: {name}", bars)


# --- entries -------------------------------------------------------------------------


def client(cache: Any) -> Any:
    return cache._cache.get_client(None, write=True)


class Filled:
    """Valkey with many entries of one tagged function."""

    def __init__(self) -> None:
        self.cache: Any = caches[VALKEY.alias]
        self.cache.clear()
        function, self.computed = subject(VALUE, POSITIONAL)
        style = Style("", tags=(TAG,))
        self.f: Any = ours(Case(VALKEY, style, None))(function)
        self.f(0)
        self.client = client(self.cache)
        self.entry = self.client.get(self.name(0))
        self.size = 1

    def name(self, n: int) -> str:
        """The whole key, as the server knows it."""
        key: str = self.cache.make_key(self.f.get_cache_key(n))
        return key

    def fill(self, size: int) -> None:
        while self.size < size:
            end = min(self.size + CHUNK, size)
            with self.client.pipeline(transaction=False) as pipeline:
                for n in range(self.size, end):
                    pipeline.set(self.name(n), self.entry, ex=TIMEOUT)
                pipeline.execute()
            self.size = end

    def hits(self, rounds: int) -> Ratio:
        """Spread over the entries, to the raw get."""
        step = max(self.size // 100, 1)
        names = {"f": self.f, "numbers": itertools.cycle(range(0, self.size, step))}
        found = against_get(VALKEY, "f(next(numbers))", names, [self.f], rounds)
        assert len(self.computed) == 1, "not only hits"
        return found

    def invalidations(self, rounds: int) -> Ratio:
        """Of the tag that all entries have, to the raw set of a value like theirs."""
        names = {"caches": caches, "invalidate_tags": invalidate_tags, "value": VALUE}
        forget = f"invalidate_tags({TAG!r}, cache_alias={VALKEY.alias!r})"
        put = f"caches[{VALKEY.alias!r}].set('plain', value, {TIMEOUT})"
        batches = {"invalidate": batch(forget, names), "set": batch(put, names)}
        seconds = interleave(batches, rounds=rounds, number=VALKEY.number)
        before = len(self.computed)
        chosen = random.Random(0).sample(range(self.size), k=5)
        for n in chosen:
            self.f(n)
        assert len(self.computed) == before + 5, "an entry outlived its tag"
        return ratio(seconds["invalidate"], seconds["set"])

    def used(self) -> int:
        return int(self.client.info("memory")["used_memory"])

    def bytes(self) -> tuple[int, int]:
        """What the server needs for an entry, and for the value stored plainly."""
        name, plain = self.name(0), self.name(0)[:-1] + "x"
        value = pickle.dumps(VALUE, pickle.HIGHEST_PROTOCOL)
        self.client.set(plain, value, ex=TIMEOUT)
        entry, bare = (int(self.client.memory_usage(n)) for n in (name, plain))
        self.client.delete(plain)
        return entry, bare


def against_get(
    backend: Backend,
    statement: str,
    names: dict[str, Any],
    made: list[Any],
    rounds: int,
) -> Ratio:
    """Hits of memoized functions to the raw get of as many values."""
    keys = [f.get_cache_key(0)[:-1] + "x" for f in made]
    for key in keys:
        caches[backend.alias].set(key, VALUE, TIMEOUT)
    scope = {"caches": caches, "keys": itertools.cycle(keys)}
    get = batch(f"caches[{backend.alias!r}].get(next(keys))", scope)
    batches = {"get": get, "hit": batch(statement, names)}
    seconds = interleave(batches, rounds=rounds, number=backend.number)
    return ratio(seconds["hit"], seconds["get"])


def entries(report: Report, sizes: list[int], rounds: int) -> None:
    hits, forgotten, memory = [], [], []
    with report.progress(len(sizes)) as bar:
        for size in sizes:
            bar.set_description(f"{size:,} entries", False)
            filled = Filled()
            empty = filled.used()
            filled.fill(size)
            memory.append((filled.used() - empty) / max(size - 1, 1))
            entry, bare = filled.bytes()
            hits.append(filled.hits(rounds))
            forgotten.append(filled.invalidations(rounds))
            bar.update()
    rows = {"a hit, to get": hits, "all forgotten by a tag, to set": forgotten}
    tell(report, "entries in Valkey", sizes, rows)
    report.note(
        f"MEMORY USAGE of an entry: {entry} bytes; of the pickled value under a key of "
        f"the same length: {bare}. With {sizes[-1]:,} entries, the server uses "
        f"{memory[-1]:.0f} bytes for each."
    )
    report.raw.append({"memory per entry": memory, "entry": entry, "bare": bare})
    caches[VALKEY.alias].clear()


# --- functions and tags --------------------------------------------------------------


def functions(report: Report, rounds: int) -> None:
    """Called in turn, so that none is warmer than in a site that has so many."""
    found = []
    for size in FUNCTIONS:
        made = [ours(Case(LOCAL, POSITIONAL, None))(_function()) for _ in range(size)]
        for f in made:
            f(42)
        names = {"turn": itertools.cycle(made)}
        found.append(against_get(LOCAL, "next(turn)(42)", names, made, rounds))
        caches[LOCAL.alias].clear()
    tell(
        report, "memoized functions, local memory", FUNCTIONS, {"a hit, to get": found}
    )


def _function() -> Any:
    return subject(VALUE, POSITIONAL)[0]


def tags(report: Report, backend: Backend, rounds: int) -> None:
    found = []
    for size in TAGS:
        names = tuple(f"tag{n}" for n in range(size)) or None
        f = ours(Case(backend, Style("", tags=names), None))(_function())
        f(42)
        found.append(against_get(backend, "f(42)", {"f": f}, [f], rounds))
        caches[backend.alias].clear()
    tell(report, f"tags, {backend.title}", TAGS, {"a hit, to get": found})


# --- a soak --------------------------------------------------------------------------


def resident() -> int | None:
    """Bytes of this process in memory."""
    try:
        pages = Path("/proc/self/statm").read_text().split()[1]
    except OSError:
        return None
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def traffic(backend: Backend) -> Callable[[], None]:
    """One more call: a hit, a miss, an invalidation, or a tag's."""
    rng, alias = random.Random(0), backend.alias

    @cache_memoize(TIMEOUT, cache_alias=alias, tags=lambda n: [f"soak{n % 100}"])
    def soaked(n: int) -> Any:
        return [n, *VALUE]

    def step() -> None:
        n, chance = int(rng.paretovariate(0.5)), rng.random()
        if chance < 0.02:
            soaked.invalidate(n)
        elif chance < 0.03:
            invalidate_tags(f"soak{n % 100}", cache_alias=alias)
        else:
            soaked(n)

    return step


def soak(report: Report, backends: list[Backend], seconds: float) -> None:
    rows = [["a soak", "calls", "after a third", "at the end", "growth"]]
    for backend in backends:
        step, samples, calls = traffic(backend), list[int | None](), 0
        began = time.monotonic()
        with report.progress(int(seconds)) as bar:
            bar.set_description(f"soak, {backend.title}", False)
            while (past := time.monotonic() - began) < seconds:
                if past * 30 >= len(samples) * seconds:  # thirty of them
                    samples.append(resident())
                    bar.update(int(past) - bar.n)
                for _ in range(100):
                    step()
                calls += 100
        samples.append(resident())
        caches[backend.alias].clear()
        report.raw.append(["soak", backend.title, samples])
        early, late = samples[len(samples) // 3], samples[-1]
        if early is None or late is None:
            report.without("memory", "read from /proc, which is not here", "a soak")
            continue
        grown = late / early
        sizes = [f"{size / 2**20:.1f} MiB" for size in (early, late)]
        rows.append([backend.title, f"{calls:,}", *sizes, f"{grown - 1:+.1%}"])
        report.goal(f"soak, {backend.title}: memory at the end", [grown], most=GROWTH)
    report.table(f"Memory in a soak of {seconds:g} s", rows)


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--soak", type=float, default=30, metavar="SECONDS")
    options = arguments.parse_args()
    report = Report("Scale", options)
    rounds = 50 if options.quick else 1000
    sizes = [size for size in ENTRIES if size <= 10_000 or not options.quick]
    with places(report, LOCAL, VALKEY, MAX_ENTRIES=5000) as there:
        if VALKEY in there and report.wanted("entries"):
            entries(report, sizes, rounds)
        if report.wanted("functions"):
            functions(report, rounds)
        if report.wanted("tags"):
            for backend in there:
                tags(report, backend, rounds)
        if report.wanted("soak"):
            soak(report, there, min(options.soak, 4) if options.quick else options.soak)
    report.finish()


if __name__ == "__main__":
    main()
