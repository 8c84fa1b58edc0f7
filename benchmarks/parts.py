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
from cache_memoize.planning import plan_of

WHOLE = "a hit, positional arguments"
FLOOR = "the cache's own get"
#: What is timed, and where it belongs.
PARTS = {
    WHOLE: "f(42, 10)",
    "a hit, keyword arguments": "f(post=42, limit=10)",
    "a hit, key not remembered": "f(42, 1.5)",
    "a hit, a function that captures a text": "nested(42, 10)",
    "a hit, a function that captures a list": "listing(42, 10)",
    "a hit, a method of an object": "service.related(42, 10)",
    "a hit, a row as the argument": "f(row, 10)",
    "... key, captures a text": "nested_key((42, 10), {})",
    "... key, captures a list": "listing_key((42, 10), {})",
    "... key, method": "method_key((service, 42, 10), {})",
    "... key, row": "key_of((row, 10), {})",
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
    "asking for hooks and receivers": "hook is not None or heard.receivers",
    'a hit again, local="request"': "again(42, 10)",
}


def capturing(value: Any) -> Any:
    def related(post: int, limit: float = 10) -> Any:
        return value and VALUES[TYPICAL]

    memoize: Any = cache_memoize(TIMEOUT)
    return memoize(related)


class Service:
    def __init__(self, number: int) -> None:
        self.number = number

    @cache_memoize(TIMEOUT)
    def related(self, post: int, limit: float = 10) -> Any:
        return VALUES[TYPICAL]


def key_of(f: Any) -> Any:
    return plan_of(f._memoized).key_of


def names() -> dict[str, Any]:
    @cache_memoize(TIMEOUT)
    def related(post: int, limit: float = 10) -> Any:
        return VALUES[TYPICAL]

    @cache_memoize(TIMEOUT, local="request")
    def again(post: int, limit: float = 10) -> Any:
        return VALUES[TYPICAL]

    def bare(*args: Any, **kwargs: Any) -> None: ...

    f: Any = related
    from benchmarks.models import Post  # not before there are settings

    row, service = Post(pk=42), Service(7)
    nested, listing = capturing("blog"), capturing(["blog", 7])
    again(42, 10), nested(42, 10), listing(42, 10), service.related(42, 10), f(row, 10)
    cache: Any = caches["default"]
    for limit in (10, 1.5):
        f(42, limit)
    key, plan = f.get_cache_key(42, 10), plan_of(f._memoized)
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
        "key_of": plan.key_of,
        "nested": nested,
        "nested_key": key_of(nested),
        "listing": listing,
        "listing_key": key_of(listing),
        "service": service,
        "method_key": key_of(Service.related),
        "row": row,
        "text": binder.text,
        "fetch": plan.fetch,
        "clock": f._memoized.clock.source,
        "freshness": freshness,
        "TAIL": TAIL,
        "loads": loads,
        "hook": plan.hit,
        "heard": signals.hit,
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
