"""Does a hit or an invalidation cost more as entries, functions, tags and hours grow?

``python -m benchmarks.scale`` fills Valkey with 10 to 1,000,000 entries of a tagged
function (copies of a real one, through a pipeline) and compares a hit with the raw
``get``, and an invalidation of a tag with the raw ``set``, at each size; then a hit
among 1 to 1,000 memoized functions that are called in turn, and one with 0 to 50 tags.
A cost is *flat* if its ratio at the greatest size is at most 1.25 times the smallest.

``--memory SECONDS`` is how long hits, misses and invalidations then go on; the memory
of the process (Linux only) is compared between the end of the first third and the end.
"""

from __future__ import annotations

import itertools
import pickle
import random
from typing import Any

from django.core.cache import caches

from benchmarks.hit import POSITIONAL, TYPICAL, VALUES
from benchmarks.measure import Ratio, batch, interleave, ratio
from benchmarks.memory import measure_growth
from benchmarks.peers import (
    BY_HAND,
    OURS,
    TIMEOUT,
    Case,
    Style,
    by_hand,
    ours,
    subject,
)
from benchmarks.places import LOCAL, VALKEY, Backend, places
from benchmarks.report import Bar, Report, parser
from cache_memoize import invalidate_tags

ENTRIES = [10, 1_000, 10_000, 100_000, 1_000_000]
FUNCTIONS = [1, 10, 100, 1000]
TAGS = [0, 1, 5, 10, 50]
FLAT = 1.25
#: Of all timings, and of those of a quick look.
ROUNDS = [1000, 50]
#: Commands in one pipeline.
CHUNK = 5000

VALUE = VALUES[TYPICAL]
TAG = "scale"


def tell(
    report: Report, title: str, sizes: list[int], rows: dict[str, list[Ratio]]
) -> None:
    cells = [[name, *map(str, found)] for name, found in rows.items()]
    report.table(title, [[title, *(f"{size:,}" for size in sizes)], *cells])
    for name, found in rows.items():
        grown = [last / first for first, last in zip(found[0], found[-1], strict=True)]
        if BY_HAND not in name:
            what = f"{title}, {name}: the last ratio to the first"
            report.goal(what, grown, most=FLAT)
        pairs = zip(sizes, found, strict=True)
        bars = [
            Bar(f"{size:,}", each.within_rounds, BY_HAND not in name)
            for size, each in pairs
        ]
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

    def hits(self, report: Report) -> Ratio:
        """Spread over the entries, to the raw get."""
        step = max(self.size // 100, 1)
        names = {"f": self.f, "numbers": itertools.cycle(range(0, self.size, step))}
        found = against_get(
            report,
            (VALKEY, "entries", self.size),
            ("f(next(numbers))", names),
            [self.f.get_cache_key(0)],
        )
        assert len(self.computed) == 1, "not only hits"
        return found

    def invalidations(self, report: Report) -> Ratio:
        """Of the tag that all entries have, to the raw set of a value like theirs."""
        names = {"caches": caches, "invalidate_tags": invalidate_tags, "value": VALUE}
        forget = f"invalidate_tags({TAG!r}, cache_alias={VALKEY.alias!r})"
        put = f"caches[{VALKEY.alias!r}].set('plain', value, {TIMEOUT})"
        batches = {"invalidate": batch(forget, names), "set": batch(put, names)}
        rounds = ROUNDS[report.options.quick]
        seconds = interleave(batches, rounds=rounds, number=VALKEY.number)
        report.raw.append([VALKEY.title, "entries", self.size, seconds])
        before = len(self.computed)
        for n in random.Random(0).sample(range(self.size), k=5):
            self.f(n)
        assert len(self.computed) == before + 5, "an entry outlived its tag"
        return ratio(seconds["invalidate"], seconds["set"])

    def used(self) -> int:
        return int(self.client.info("memory")["used_memory"])

    def bytes(self) -> tuple[int, int]:
        """What the server needs for an entry, and for the value stored plainly."""
        name, plain = self.name(0), self.name(0)[:-1] + "!"
        value = pickle.dumps(VALUE, pickle.HIGHEST_PROTOCOL)
        self.client.set(plain, value, ex=TIMEOUT)
        entry, bare = (int(self.client.memory_usage(n)) for n in (name, plain))
        self.client.delete(plain)
        return entry, bare


def against_get(
    report: Report,
    what: tuple[Backend, str, int],
    call: tuple[str, dict[str, Any]],
    keys: list[str],
) -> Ratio:
    """A call that hits, to the raw get of values under as many keys of that length."""
    backend, alias = what[0], what[0].alias
    keys = [key[:-1] + "!" for key in keys]
    for key in keys:
        caches[alias].set(key, VALUE, TIMEOUT)
    scope = {"caches": caches, "keys": itertools.cycle(keys)}
    get = batch(f"caches[{alias!r}].get(next(keys))", scope)
    batches = {"get": get, "hit": batch(*call)}
    rounds = ROUNDS[report.options.quick]
    seconds = interleave(batches, rounds=rounds, number=backend.number)
    report.raw.append([backend.title, *what[1:], seconds])
    return ratio(seconds["hit"], seconds["get"])


def entries(report: Report, sizes: list[int]) -> None:
    hits, forgotten, memory = [], [], []
    with report.progress(len(sizes)) as bar:
        for size in sizes:
            bar.set_description(f"{size:,} entries", False)
            filled = Filled()
            empty = filled.used()
            filled.fill(size)
            memory.append((filled.used() - empty) / max(size - 1, 1))
            entry, bare = filled.bytes()
            hits.append(filled.hits(report))
            forgotten.append(filled.invalidations(report))
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


def functions(report: Report) -> None:
    """Called in turn, so that none is warmer than in a site that has so many."""
    found: dict[str, list[Ratio]] = {}
    for size in FUNCTIONS:
        plain = [subject(VALUE, POSITIONAL)[0] for _ in range(size)]
        for name, decorator in {OURS: ours, BY_HAND: by_hand}.items():
            made = [decorator(Case(LOCAL, POSITIONAL, None))(f) for f in plain]
            if name == OURS:
                keys = [f.get_cache_key(42) for f in made]
            for f in made:
                f(42)
            call = ("next(turn)(42)", {"turn": itertools.cycle(made)})
            what = (LOCAL, f"functions, {name}", size)
            each = against_get(report, what, call, keys)
            found.setdefault(f"a hit, {name}", []).append(each)
            caches[LOCAL.alias].clear()
    tell(report, "memoized functions, local memory", FUNCTIONS, found)


def tags(report: Report, backend: Backend) -> None:
    found = []
    for size in TAGS:
        names = tuple(f"tag{n}" for n in range(size)) or None
        case = Case(backend, Style("", tags=names), None)
        f: Any = ours(case)(subject(VALUE, POSITIONAL)[0])
        f(42)
        what = (backend, "tags", size)
        key = f.get_cache_key(42)
        found.append(against_get(report, what, ("f(42)", {"f": f}), [key]))
        caches[backend.alias].clear()
    tell(report, f"tags, {backend.title}", TAGS, {f"a hit, {OURS}": found})


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--memory", type=float, default=30, metavar="SECONDS")
    options = arguments.parse_args()
    report = Report("Scale", options)
    sizes = [size for size in ENTRIES if size <= 10_000 or not options.quick]
    with places(report, LOCAL, VALKEY, MAX_ENTRIES=5000) as there:
        if VALKEY in there and report.wanted("entries"):
            entries(report, sizes)
        if report.wanted("functions"):
            functions(report)
        if report.wanted("tags"):
            for backend in there:
                tags(report, backend)
        if report.wanted("memory"):
            seconds = min(options.memory, 4) if options.quick else options.memory
            measure_growth(report, there, seconds)
    report.finish()


if __name__ == "__main__":
    main()
