"""What does a hit cost, next to the cache itself and to other packages that memoize?

``python -m benchmarks.hit --peers DIR`` prints tables of ratios to the cache's own
``get`` (or ``aget``, where it is awaited) of the same value under a key of the same
length. DIR has django-cache-memoize in it, see peers.py. A candidate that cannot be
measured, or that does not give hits, is named with the reason.

In every round each candidate makes a short batch of calls, in another order each time.
A cell holds the median of the ratios within the rounds / the ratio of the medians / the
ratio of the minima. That all calls were hits is checked.
"""

from __future__ import annotations

import asyncio
import datetime
import functools
import pickle
import warnings
from collections.abc import Callable
from statistics import median
from typing import Any

from django.core.cache import caches

from benchmarks.measure import Batch, async_batch, batch, interleave, ratio
from benchmarks.peers import (
    BY_HAND,
    OURS,
    PEERS,
    TIMEOUT,
    Case,
    Style,
    callee,
    decorators,
    subject,
)
from benchmarks.places import (
    DATABASE,
    FILE,
    LOCAL,
    MEMCACHED,
    VALKEY,
    Backend,
    places,
)
from benchmarks.report import REACHED, Bar, Report, parser
from cache_memoize import cache_memoize

#: What the function gives. A list of related posts is the typical case.
VALUES: dict[str, Any] = {
    "an int": 4711,
    "20 ids": list(range(1000, 1020)),
    "5 small dicts": [
        {"id": n, "title": f"How to do it, part {n}", "url": f"/posts/{n}/"}
        for n in range(1000, 1005)
    ],
}
TYPICAL = "5 small dicts"

#: What is stored, to see how many bytes come on top of it.
SIZES: dict[str, Any] = {
    "None": None,
    **VALUES,
    **{f"a text of {n:,}": "x" * n for n in (100, 200, 1_000, 65_536, 1_000_000)},
}

POSITIONAL = Style("positional arguments")
KEYWORD = Style("keyword arguments", "(post=42, limit=10)")
AWAITED = Style("awaited", awaited=True)
TAGGED = Style("with a tag", tags=("a",))
#: We remember the keys of calls with integers and short texts. A long text stands for
#: calls that are not remembered, also because there are too many different ones; a
#: datetime and what comes after it for arguments that take longer to encode.
STYLES = [
    POSITIONAL,
    KEYWORD,
    Style("a default left out", "(42)"),
    Style("a bound method", method=True),
    Style("a text of 80 letters", "(text, 10)"),
    Style("a datetime", "(moment, 10)", "post.isoformat()"),
    Style("a model instance", "(row, 10)", "post.pk"),
    Style("a frozen dataclass", "(page, 10)", "post.number}:{post.language"),
    Style(
        "a list of 1 kB", "(ids, 10)", "hashlib.md5(repr(post).encode()).hexdigest()"
    ),
    AWAITED,
]
#: How the function is called on which backend.
CELLS: dict[Backend, list[Style]] = {
    LOCAL: STYLES,
    VALKEY: [POSITIONAL, TAGGED, AWAITED],
    MEMCACHED: [POSITIONAL],
    DATABASE: [POSITIONAL],
    FILE: [POSITIONAL],
}
ASYNC_NUMBER = 5

#: What is to be reached: a hit takes at most so many times what the cache itself takes.
GOALS = {
    (LOCAL, POSITIONAL): 1.3,
    (LOCAL, KEYWORD): 1.4,
    (LOCAL, AWAITED): 0.1,
    (VALKEY, POSITIONAL): 1.04,
    (VALKEY, TAGGED): 1.2,
    (MEMCACHED, POSITIONAL): 1.04,
}
#: And at most so many times what the block takes that is written by hand.
BY_HAND_GOAL = 1.2
BY_HAND_CELLS = [(LOCAL, POSITIONAL), (LOCAL, KEYWORD)]
#: An entry is at most so many bytes larger than the pickled value.
BYTES_GOAL = 48

Seconds = dict[str, list[float]]


def arguments() -> dict[str, Any]:
    """What the calls of the styles name."""
    from benchmarks.models import Page, Post

    return {
        "text": "x" * 80,
        "moment": datetime.datetime(2024, 5, 17, 12, 30, tzinfo=datetime.UTC),
        "row": Post(pk=42, title="never saved"),
        "page": Page(42, "en"),
        "ids": list(range(1000, 1170)),  # 1 kB as a text
    }


def trouble(call: Callable[[], Any], computed: list[object]) -> str:
    """Why a candidate gives no hits; an empty text if it does."""
    try:
        with warnings.catch_warnings():  # of keys that Memcached would not take
            warnings.simplefilter("ignore")
            call()
            call()
    except Exception as error:
        return f"it fails: {type(error).__name__}"
    return "" if len(computed) == 1 else "it computes again"


def measure(case: Case, value: Any, rounds: int, report: Report) -> tuple[str, Seconds]:
    """The cache itself, as it is called, and the seconds of it and of the packages."""
    alias, style, number = case.backend.alias, case.style, case.backend.number
    cell = f"{case.backend.title}, {style.title}"
    decorate, missing = decorators(case)
    for name, why in missing.items():
        report.without(name, why, cell)
    names = arguments()
    batches: dict[str, Batch] = {}
    computations = {}
    with asyncio.Runner() as runner:
        make: Callable[..., Batch] = batch
        if style.awaited:
            make, number = functools.partial(async_batch, runner), ASYNC_NUMBER
        for name, decorator in decorate.items():
            function, computed = subject(value, style)
            try:
                decorated = decorator(function)
            except Exception as error:
                report.without(name, f"it refuses: {type(error).__name__}", cell)
                continue
            target, related = callee(function, decorated, style)
            scope = {**names, "related": related}
            if name == OURS:
                key = eval(f"{target}.get_cache_key{style.call}", dict(scope))
                key = key[:-1] + "!"  # of the same length; ours end in a hex digit
            one = make(f"{target}{style.call}", scope)
            if why := trouble(functools.partial(one, 1), computed):
                assert name != OURS, why
                report.without(name, why, cell)
                continue
            batches[name], computations[name] = one, computed
        caches[alias].set(key, value, TIMEOUT)
        raw = f"caches[{alias!r}].{'a' if style.awaited else ''}get(key)"
        batches = {raw: make(raw, {"caches": caches, "key": key}), **batches}
        seconds = interleave(batches, rounds=rounds, number=number)
    assert all(len(each) == 1 for each in computations.values()), "not only hits"
    caches[alias].clear()
    return raw, seconds


def added_bytes(value: Any) -> int:
    """How much larger than the pickled value an entry is, in local memory."""
    cache: Any = caches[LOCAL.alias]
    function, _ = subject(value, POSITIONAL)
    memoized = cache_memoize(TIMEOUT)(function)
    memoized(42)
    stored = cache._cache[cache.make_key(memoized.get_cache_key(42))]
    cache.clear()
    return len(stored) - len(pickle.dumps(value, pickle.HIGHEST_PROTOCOL))


def tell(report: Report, case: Case, raw: str, columns: dict[str, Seconds]) -> None:
    """The table of one case, with what was timed with each value; its goals."""
    place = (case.backend, case.style)
    cell = f"{case.backend.title}, {case.style.title}"
    rows = [[case.style.title, *columns]]
    rows.append([raw, *(f"{median(c[raw]) * 1e6:.1f} µs" for c in columns.values())])
    names = [n for n in (OURS, *PEERS) if all(n in c for c in columns.values())]
    for name in names:
        ratios = {title: ratio(c[name], c[raw]) for title, c in columns.items()}
        rows.append([name, *map(str, ratios.values())])
        if name != OURS:
            continue
        if most := GOALS.get(place):
            said = [
                report.goal(f"{cell}, {title}: to the raw get", found, most=most)
                for title, found in ratios.items()
            ]
            rows.append([f"goal: {most}", *said])
    against = [name for name in names if name not in (OURS, BY_HAND)]
    if place in BY_HAND_CELLS:
        said = [
            report.goal(
                f"{cell}, {title}: to the block by hand",
                ratio(c[OURS], c[BY_HAND]),
                most=BY_HAND_GOAL,
            )
            for title, c in columns.items()
        ]
        rows.append([f"goal: {BY_HAND_GOAL} by hand", *said])
    slower = {
        name: report.goal(
            f"{cell}, {TYPICAL}: to {name}",
            ratio(columns[TYPICAL][OURS], columns[TYPICAL][name]),
            most=1,
        )
        for name in against
    }
    report.table(cell, rows)
    lost = [f"{name} ({said})" for name, said in slower.items() if said != REACHED]
    if lost:
        report.note(f"Not faster than: {', '.join(lost)}.")
    typical = columns[TYPICAL]
    bars = [
        Bar(name, ratio(typical[name], typical[raw]).within_rounds, name == OURS)
        for name in names
    ]
    if case.backend is not LOCAL or case.style in (POSITIONAL, KEYWORD, AWAITED):
        report.group(f"{cell}: times the raw get", bars, GOALS.get(place))


def main() -> None:
    options = parser(__doc__).parse_args()
    report = Report("The cost of a hit", options)
    rounds = 20 if options.quick else 500
    with places(report, *CELLS) as there:
        cells = [
            (backend, style)
            for backend in there
            for style in CELLS[backend]
            if report.wanted(backend.title, style.title)
        ]
        with report.progress(len(cells) * len(VALUES)) as bar:
            for backend, style in cells:
                case = Case(backend, style, options.peers)
                columns = {}
                for title, value in VALUES.items():
                    bar.set_description(f"{backend.title}, {style.title}", False)
                    raw, columns[title] = measure(case, value, rounds, report)
                    report.raw.append([backend.title, style.title, title, raw])
                    report.raw[-1].append(columns[title])
                    bar.update()
                tell(report, case, raw, columns)
        if report.wanted("bytes"):
            sizes = {title: added_bytes(value) for title, value in SIZES.items()}
            rows = [["value", "bytes added"], *([k, str(v)] for k, v in sizes.items())]
            report.table("What an entry adds to the pickled value", rows)
            report.goal(
                "bytes over the pickled value", [max(sizes.values())], most=BYTES_GOAL
            )
    report.finish()


if __name__ == "__main__":
    main()
