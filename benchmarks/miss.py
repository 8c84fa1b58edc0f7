"""What does a miss cost over a plain ``get`` and ``set``, and how many round trips?

``python -m benchmarks.miss --peers DIR`` times calls of a function that gives its
value at once, each with a new argument: what is left is looking, claiming, storing.
The ratios are to a ``get`` that finds nothing and a ``set`` of the same value.

The round trips to Valkey are counted, not timed: how often a client sends something,
which may be a pipeline or a script. The commands that the server carried out (``INFO
commandstats``) include those inside of scripts.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any
from unittest import mock

import redis
from django.core.cache import caches

from benchmarks.hit import TYPICAL, VALUES
from benchmarks.measure import Batch, async_batch, batch, interleave, ratio
from benchmarks.peers import OURS, TIMEOUT, Case, Style, decorators, ours, subject
from benchmarks.places import LOCAL, MEMCACHED, VALKEY, Backend, places
from benchmarks.report import Bar, Report, parser
from cache_memoize import invalidate_tags
from tests.servers import SERVERS

SYNC = Style("a miss", "(next(numbers), 10)")
AWAITED = Style("a miss, awaited", "(next(numbers), 10)", awaited=True)
CELLS: list[tuple[Backend, Style]] = [
    (LOCAL, SYNC),
    (LOCAL, AWAITED),
    (VALKEY, SYNC),
    (VALKEY, AWAITED),
    (MEMCACHED, SYNC),
]
#: Calls in a batch: a hundred rounds should not fill the memory.
NUMBER = 5

_RAW = (
    "caches[{alias!r}].{a}get((key := f'{{prefix}}{{next(numbers)}}'))",
    "caches[{alias!r}].{a}set(key, value, timeout)",
)


def raw(case: Case, value: Any) -> tuple[str, dict[str, Any]]:
    """A ``get`` and a ``set``; the key is about as long as ours."""
    style = case.style
    related = ours(case)(subject(value, style)[0])
    length = len(related.get_cache_key(1, 10)) - 7
    names = {"caches": caches, "value": value, "timeout": TIMEOUT}
    names |= {"prefix": "x" * length, "numbers": itertools.count(1_000_000)}
    a = "a" if style.awaited else ""
    get, set_ = (part.format(alias=case.backend.alias, a=a) for part in _RAW)
    return (f"{get}; await {set_}" if a else f"{get}; {set_}"), names


def measure(
    case: Case, value: Any, rounds: int, report: Report
) -> dict[str, list[float]]:
    """Seconds per call; the first is the plain get and set."""
    cell = f"{case.backend.title}, {case.style.title}"
    decorate, missing = decorators(case)
    for name, why in missing.items():
        report.without(name, why, cell)
    batches: dict[str, Batch] = {}
    computations: dict[str, list[object]] = {}
    with asyncio.Runner() as runner:

        def make(statement: str, names: dict[str, Any]) -> Batch:
            if case.style.awaited:
                return async_batch(runner, statement, names)
            return batch(statement, names)

        batches["get and set"] = make(*raw(case, value))
        for name, decorator in decorate.items():
            function, computed = subject(value, case.style)
            scope = {"related": decorator(function), "numbers": itertools.count()}
            one = make(f"related{case.style.call}", scope)
            try:
                one(1)
            except Exception as error:
                assert name != OURS
                report.without(name, f"it fails: {type(error).__name__}", cell)
                continue
            batches[name], computations[name] = one, computed
        seconds = interleave(batches, rounds=rounds, number=NUMBER)
    for name, computed in computations.items():
        assert len(computed) == 1 + NUMBER * (rounds + 1), f"{name}: not only misses"
    caches[case.backend.alias].clear()
    return seconds


# --- counted -------------------------------------------------------------------------


#: Round trips and commands, of each kind of call.
Counts = dict[str, tuple[int, int]]


class Counter:
    """What goes to Valkey while a call is made."""

    def __init__(self) -> None:
        self.sent = 0
        self.server = redis.Redis(port=SERVERS["valkey"].port)
        self.server.ping()

    def commands(self) -> int:
        stats = self.server.info("commandstats")
        return sum(
            each["calls"]
            for name, each in stats.items()
            if name.split("|")[0] not in ("cmdstat_info", "cmdstat_client")
        )

    @contextmanager
    def _patched(self) -> Iterator[None]:
        from redis.asyncio.connection import AbstractConnection as AsyncConnection
        from redis.connection import AbstractConnection

        send: Any = AbstractConnection.send_packed_command
        asend: Any = AsyncConnection.send_packed_command

        def counted(*args: Any, **kwargs: Any) -> Any:
            self.sent += 1
            return send(*args, **kwargs)

        async def acounted(*args: Any, **kwargs: Any) -> Any:
            self.sent += 1
            return await asend(*args, **kwargs)

        name = "send_packed_command"
        with (
            mock.patch.object(AbstractConnection, name, counted),
            mock.patch.object(AsyncConnection, name, acounted),
        ):
            yield

    def count(self, call: Callable[[], Any]) -> tuple[int, int]:
        """Round trips and commands of one call."""
        before = self.commands()
        self.sent = 0
        with self._patched():
            call()
        return self.sent, self.commands() - before


def counts(counter: Counter, decorated: Any, runner: asyncio.Runner | None) -> Counts:
    """Of a miss and a hit."""

    def call(n: int) -> Any:
        result = decorated(n, 10)
        return runner.run(_awaited(result)) if runner else result

    call(1)  # connections are made, scripts are loaded
    return {
        "miss": counter.count(lambda: call(2)),
        "hit": counter.count(lambda: call(2)),
    }


async def _awaited(result: Any) -> Any:
    return await result


def controls(counter: Counter, tags: tuple[str, ...] | None) -> Counts:
    """Of a function of this library, and what hangs on it."""
    case = Case(VALKEY, SYNC._replace(tags=tags), None)
    f: Any = ours(case)(subject(VALUES[TYPICAL], SYNC)[0])
    f(1)
    f.refresh(1)
    f.invalidate(1)
    calls: dict[str, Callable[[], Any]] = {
        "miss": lambda: f(2),
        "hit": lambda: f(2),
        "refresh": lambda: f.refresh(2),
        "invalidate": lambda: f.invalidate(2),
        "miss after that": lambda: f(2),
    }
    if tags:
        forget = functools.partial(invalidate_tags, cache_alias=VALKEY.alias)
        forget("another")
        calls["invalidate_tags"] = lambda: forget("a")
    return {name: counter.count(call) for name, call in calls.items()}


def count(report: Report) -> None:
    """The tables of round trips."""
    counter = Counter()
    rows = [["Valkey, one call", "miss", "hit"]]
    with asyncio.Runner() as runner:
        for style in (SYNC, AWAITED):
            case = Case(VALKEY, style, report.options.peers)
            for name, decorator in decorators(case)[0].items():
                function, _ = subject(VALUES[TYPICAL], style)
                found = counts(
                    counter, decorator(function), runner if style.awaited else None
                )
                cells = [f"{trips} ({done})" for trips, done in found.values()]
                rows.append([f"{name}{', awaited' * style.awaited}", *cells])
                report.raw.append(["round trips, commands", name, style.title, found])
                if name == OURS:
                    what = f"Valkey: round trips of a hit{', awaited' * style.awaited}"
                    report.goal(what, [found["hit"][0]], most=1)
    report.table("Round trips (and commands) on Valkey", rows)

    plain, tagged = (controls(counter, tags) for tags in (None, ("a",)))
    rows = [["this library", "without tags", "with a tag"]]
    for name in tagged:
        both = [found.get(name) for found in (plain, tagged)]
        rows.append([name, *(f"{c[0]} ({c[1]})" if c else "" for c in both)])
    report.table("Round trips (and commands) of this library on Valkey", rows)
    caches[VALKEY.alias].clear()


def main() -> None:
    options = parser(__doc__).parse_args()
    report = Report("The cost of a miss", options)
    rounds = 20 if options.quick else 300
    # Where Django culls, all that is stored there fits.
    with places(report, LOCAL, VALKEY, MEMCACHED, MAX_ENTRIES=10**7) as there:
        cells = [
            (b, s) for b, s in CELLS if b in there and report.wanted(b.title, s.title)
        ]
        with report.progress(len(cells)) as bar:
            for backend, style in cells:
                title = f"{backend.title}, {style.title}"
                bar.set_description(title, False)
                case = Case(backend, style, options.peers)
                seconds = measure(case, VALUES[TYPICAL], rounds, report)
                report.raw.append([title, seconds])
                base, *names = seconds
                rows = [
                    [title, TYPICAL],
                    [base, f"{median(seconds[base]) * 1e6:.1f} µs"],
                ]
                found = {name: ratio(seconds[name], seconds[base]) for name in names}
                rows += [[name, str(each)] for name, each in found.items()]
                report.table(title, rows)
                bars = [Bar(n, found[n].within_rounds, n == OURS) for n in names]
                report.group(f"{title}: times a get and a set", bars)
                bar.update()
        if VALKEY in there and report.wanted("round trips"):
            count(report)
    report.finish()


if __name__ == "__main__":
    main()
