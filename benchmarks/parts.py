"""Where does the time of a hit in local memory go?

``python -m benchmarks.parts`` times its parts one by one, in turn. What a part takes in
a loop of its own is not quite what it takes in a call, so the parts add up to nearly
the whole. The floor is the cache's own ``get`` of the plain value, with its object at
hand: nothing above it can be faster.
"""

from __future__ import annotations

import functools
from typing import Any

from django.core.cache import caches

from benchmarks.hit import TYPICAL, VALUES
from benchmarks.measure import batch, interleave, ratio
from benchmarks.peers import TIMEOUT
from benchmarks.places import LOCAL, places
from benchmarks.report import Bar, Report, parser
from cache_memoize import cache_memoize, local, signals
from cache_memoize.cache.record import (
    TAIL,
    dumps,
    freshness,
    loads,
)
from cache_memoize.keys.binding import Binder
from cache_memoize.stats.counters import logger

WHOLE = "a hit, positional arguments"
FLOOR = "the cache's own get"
#: What is timed, and where it belongs.
PARTS = {
    WHOLE: "f(42, 10)",
    "a hit, keyword arguments": "f(post=42, limit=10)",
    "a hit, key not remembered": "f(42, 1.5)",
    FLOOR: "cache.get(plain)",
    "... make_key()": "cache.make_key(plain)",
    "... validate_key()": "cache.validate_key(full_key)",
    "... unpickling the value": "loads(payload)",
    "caches[alias], which a hit saves": "caches['default']",
    "calling a wrapper": "bare(42, 10)",
    "key, positional, remembered": "key_of((42, 10), {})",
    "key, keywords, remembered": "key_of((), {'post': 42, 'limit': 10})",
    "key, not remembered": "key_of((42, 1.5), {})",
    "... binding and encoding": "text((42, 1.5), {})",
    "finding the cache, and get of bytes": "fetch('default', key)",
    "reading the trailer": "freshness(raw[TAIL])",
    "asking the clock": "clock.time()",
    "unpickling the value": "loads(raw)",
    "does anybody want to know": (
        "stats.quiet or hook is not None or heard.receivers or debugs(10)"
    ),
    'a hit again, local="request"': "again(42, 10)",
}


def names() -> dict[str, Any]:
    @cache_memoize(TIMEOUT)
    def related(post: int, limit: float = 10) -> Any:
        return VALUES[TYPICAL]

    @cache_memoize(TIMEOUT, local="request")
    def again(post: int, limit: float = 10) -> Any:
        return VALUES[TYPICAL]

    def bare(*args: Any, **kwargs: Any) -> None: ...

    f: Any = related
    again(42, 10)
    cache: Any = caches["default"]
    for limit in (10, 1.5):
        f(42, limit)
    key, core = f.get_cache_key(42, 10), f._memoized
    plain = key[:-1] + "!"  # of the same length
    cache.set(plain, VALUES[TYPICAL], TIMEOUT)
    binder = Binder(f.__wrapped__, "related")
    return {
        "f": f,
        "bare": functools.partial(bare),
        "cache": cache,
        "caches": caches,
        "key": key,
        "plain": plain,
        "full_key": cache.make_key(plain),
        "payload": dumps(VALUES[TYPICAL]),
        "raw": cache.get(key),
        "key_of": core.key_of,
        "text": binder.text,
        "fetch": core.fetch,
        "clock": core.clock.source,
        "freshness": freshness,
        "TAIL": TAIL,
        "loads": loads,
        "stats": core.stats,
        "hook": core.hit,
        "heard": signals.hit,
        "debugs": logger.isEnabledFor,
        "again": again,
    }


def main() -> None:
    options = parser(__doc__).parse_args()
    report = Report("Where the time of a hit goes", options)
    with places(report, LOCAL), local():
        scope = names()
        batches = {title: batch(code, scope) for title, code in PARTS.items()}
        rounds = 50 if options.quick else 1000
        seconds = interleave(batches, rounds=rounds, number=50)
        rows = [["part", "µs", "of the cache's own get"]]
        for title, found in seconds.items():
            micro = min(found) * 1e6
            rows.append([title, f"{micro:.2f}", str(ratio(found, seconds[FLOOR]))])
        report.table("parts of a hit, 5 small dicts, local memory", rows)
        bars = [
            Bar(title, min(s) * 1e6, title == WHOLE) for title, s in seconds.items()
        ]
        report.group("microseconds", bars)
        report.raw.append(seconds)
    report.finish()


if __name__ == "__main__":
    main()
