"""The actors of a soak: threads and tasks that read, write and check what they read.

Every number has a source that only grows, in memory that all processes share (or in a
row of a database), and *floors*: the source as it was when a refresh, a prime or an
invalidation was called that has returned since, without an error of the cache. A read
that begins later and returns less is *old*.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import inspect
import json
import mmap
import os
import random
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.cache import caches
from django.db import close_old_connections, connections, transaction

#: The functions, with their options, and the ways in which each is written.
KINDS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "plain": ({"wait": 0}, ("invalidate", "invalidate", "evict")),
    "refreshed": ({"wait": 0}, ("refresh", "warm", "failing", "rejected", "evict")),
    "primed": ({"wait": 0}, ("prime", "refresh", "failing", "evict")),
    "mixed": (
        {"wait": 0, "tags": lambda n, depth=0: f"mixed{n}"},
        ("invalidate", "tag", "refresh", "failing", "evict"),
    ),
    "stale": ({"timeout": 0.05, "stale": 60}, ("invalidate", "refresh", "failing")),
    "early": ({"timeout": 0.3, "early_refresh": 1}, ("refresh", "prime")),
    "whole": ({"tags": ()}, ("everything",)),
    "nested": ({"ignore": ["depth"]}, ("invalidate", "refresh")),
    "held": ({"wait": 0, "hold": 0.1}, ("invalidate", "refresh")),
    "tagged": ({"wait": 0}, ("tag", "refresh", "evict")),
    "row": ({"wait": 0, "tags": lambda n, depth=0: f"row{n}"}, ("commit",)),
    "outer": ({"wait": 0}, ()),
    "total": ({"stale": 60}, ()),
    "table": ({"wait": 0, "depends_on": "reads"}, ()),
}
NAMES = list(KINDS)
#: Functions that depend on another one, or on its table: that one is written.
MADE_OF = {"outer": "mixed", "total": "primed", "table": "row"}
INVALIDATIONS = frozenset({"invalidate", "tag", "everything", "commit"})
#: Numbers per function.
NUMBERS = 24
#: How often an actor is at the one function and number where most of them are.
HOT = 0.7
COUNTERS = (
    "reads",
    "after refreshes",
    "after invalidations",
    "hits",
    "refreshes",
    "primes",
    "invalidations",
    "commits",
    "evictions",
    "errors",
    "old",
    "hung",
    "raised",
)
#: Seconds of a lease.
LEASE = 1


class Failed(Exception):
    """What a computation raises when it is to fail."""


class RolledBack(Exception):
    pass


failing: ContextVar[bool] = ContextVar("failing", default=False)
rejected: ContextVar[bool] = ContextVar("rejected", default=False)
#: The errors of the cache during the present operation.
troubles: ContextVar[list[Any]] = ContextVar("troubles")


class Board:
    """Memory that all processes share: sources, floors and counters. Every cell has one
    writer, and what a killed process wrote stays. A source is the sum of its cells."""

    def __init__(self, path: Path, slots: int) -> None:
        cells = len(NAMES) * NUMBERS
        self.slots = slots
        #: The table of the rows.
        self.rows = ""
        size = (slots * (2 * cells + len(COUNTERS)) + 1) * 8
        if not path.exists():
            path.write_bytes(bytes(size))
        with path.open("r+b") as file:
            memory = memoryview(mmap.mmap(file.fileno(), size)).cast("q")
        self.sources = memory[: cells * slots]
        self.floors = memory[cells * slots : 2 * cells * slots]
        self.counts = memory[2 * cells * slots : -1]
        self._end = memory[-1:]

    @property
    def end(self) -> float:
        """The time when the actors stop; it is set when all of them have begun."""
        return self._end[0] / 1000 or float("inf")

    @end.setter
    def end(self, when: float) -> None:
        self._end[0] = int(when * 1000)

    def has_begun(self, slot: int) -> bool:
        return bool(self.counts[slot * len(COUNTERS)])

    def source(self, cell: int) -> int:
        return sum(self.sources[cell * self.slots : (cell + 1) * self.slots])

    def floor(self, cell: int) -> int:
        return max(self.floors[cell * self.slots : (cell + 1) * self.slots])

    def count(self, slot: int, name: str, number: int = 1) -> None:
        self.counts[slot * len(COUNTERS) + COUNTERS.index(name)] += number

    def totals(self) -> dict[str, int]:
        width = len(COUNTERS)
        return {name: sum(self.counts[n::width]) for n, name in enumerate(COUNTERS)}


def some_time(rng: random.Random, longest: float = 0.0015) -> float:
    """Often none at all; rarely longer than a lease."""
    if rng.random() < 0.0002:
        return LEASE * 1.1
    return rng.choice((0, rng.random(), rng.random())) * longest


class Subject:
    """One function of KINDS, sync and async: both have the same entries."""

    def __init__(
        self, name: str, board: Board, rng: random.Random, others: dict[str, Subject]
    ) -> None:
        from cache_memoize import cache_memoize, current

        inner = MADE_OF.get(name, name)
        #: The function that is written.
        self.inner = others.get(inner, self)
        self.name, self.first = name, NAMES.index(inner) * NUMBERS
        self.is_row = inner == "row"
        options, self.ways = KINDS[name][0], KINDS[inner][1]
        options = {"timeout": 60, "lease": LEASE, "cache_if": _is_wanted, **options}
        memoize = cache_memoize(prefix=f"soak.{name}", **options)

        def look(n: int) -> int:
            if not self.is_row:
                return board.source(self.first + n)
            with connections["default"].cursor() as cursor:
                cursor.execute(f"SELECT value FROM {board.rows} WHERE n = %s", [n])
                return int(cursor.fetchone()[0])

        def function(n: int, depth: int = 0) -> list[int]:
            time.sleep(some_time(rng))
            if name == "nested" and depth < 2:
                self.f((n + depth + 1) % NUMBERS, depth + 1)
            if name == "tagged":
                current().tag(f"tagged{n}")
            calls = self.inner is not self and not self.is_row
            value = self.inner.f(n)[1] if calls else look(n)
            time.sleep(some_time(rng))
            if failing.get():
                raise Failed
            return [n, value]

        async def afunction(n: int, depth: int = 0) -> list[int]:
            await asyncio.sleep(some_time(rng))
            if name == "nested" and depth < 2:
                await self.af((n + depth + 1) % NUMBERS, depth + 1)
            if name == "tagged":
                await current().atag(f"tagged{n}")
            calls = self.inner is not self
            value = (await self.inner.af(n))[1] if calls else look(n)
            await asyncio.sleep(some_time(rng))
            if failing.get():
                raise Failed
            return [n, value]

        for each in (function, afunction):
            each.__qualname__ = each.__name__ = name
        self.f: Any = memoize(function)
        self.af: Any = memoize(afunction)

    @property
    def hits(self) -> int:
        return sum(f.cache_info().hits for f in (self.f, self.af))


def _is_wanted(result: Any, n: int, depth: int = 0) -> bool:
    return not rejected.get()


class Actor:
    """One thread, or one task. Its coroutines never suspend in a thread."""

    def __init__(self, team: Team, slot: int, is_async: bool) -> None:
        self.team, self.slot, self.is_async = team, slot, is_async
        self.board = team.board
        self.rng = random.Random(f"{team.seed} {slot} {team.turn}")
        #: When the present operation began.
        self.since: float | None = None
        self.doing = ""
        self.subjects = [
            each for each in team.subjects if not (is_async and each.is_row)
        ]

    def control(self, subject: Subject, name: str) -> Any:
        function = subject.af if self.is_async else subject.f
        if not name:
            return function
        return getattr(function, "a" * self.is_async + name)

    async def act(self) -> None:
        while (now := time.time()) < self.board.end:
            # All are in one place, four times a second in another one.
            place = random.Random(int(now * 4))
            hot = place.choice(self.team.subjects), place.randrange(NUMBERS)
            for action in (
                *[self.read] * self.rng.randrange(2 * self.team.reads),
                self.write,
            ):
                subject, n = hot
                if self.rng.random() > HOT or subject not in self.subjects:
                    subject = self.rng.choice(self.subjects)
                    n = self.rng.randrange(NUMBERS)
                await self.guarded(action, subject, n)
            if connections.settings:
                await self.tidy()

    async def tidy(self) -> None:
        """As Django does after each request: connections that broke are closed."""
        if self.is_async:
            await sync_to_async(close_old_connections)()
        else:
            close_old_connections()

    async def guarded(self, action: Any, subject: Subject, n: int) -> None:
        self.doing = f"{action.__name__} of {subject.name}({n})"
        self.since = time.monotonic()
        try:
            await action(subject, n)
        except Failed:  # a caller that has waited for it raises it too
            pass
        except Exception:
            self.team.find(self, "raised", traceback.format_exc())
        finally:
            self.since = None

    async def read(self, subject: Subject, n: int) -> None:
        luck, numbers = self.rng.random(), [n]
        if luck < 0.1:
            numbers += self.rng.sample(range(NUMBERS), 2)
        cells = [subject.first + each for each in numbers]
        oldest = [self.board.floor(cell) for cell in cells]
        call = self.control(subject, "")
        if luck < 0.1:
            found = await finished(self.control(subject, "map")(numbers))
        elif luck < 0.15:
            entry = await finished(self.control(subject, "peek")(n))
            if entry is None:
                return
            found = [entry.value]
        elif luck < 0.16 and self.is_async:
            with contextlib.suppress(TimeoutError):  # cancelled in the middle
                await asyncio.wait_for(call(n), some_time(self.rng, 0.004))
            return
        else:
            found = [await finished(call(n))]
        self.board.count(self.slot, "reads", len(numbers))
        if "refresh" in subject.ways:
            self.board.count(self.slot, "after refreshes", len(numbers))
        if INVALIDATIONS.intersection(subject.ways):
            self.board.count(self.slot, "after invalidations", len(numbers))
        for n, cell, floor, got in zip(numbers, cells, oldest, found, strict=True):
            newest = self.board.source(cell)
            is_phantom = got[1] % 2 if subject.is_row else got[1] > newest
            if got[0] != n or got[1] < floor or is_phantom:
                why = f"{subject.name}({n}) returned {got}; the floor was {floor}"
                self.team.find(self, "old", f"{why}; the source is {newest}")

    async def write(self, subject: Subject, n: int) -> None:
        subject = subject.inner
        way = self.rng.choice(subject.ways)
        if way in ("commit", "prime"):  # a row, and a primed value, has one writer
            n -= (n - self.slot) % self.board.slots
            if n < 0:
                return None
        if way == "commit":
            return self.commit(subject, n)
        cell = subject.first + n
        # A primed value is the newest only if its primer alone changes the source.
        if "prime" not in subject.ways or n % self.board.slots == self.slot:
            self.board.sources[cell * self.board.slots + self.slot] += 1
        source = self.board.source(cell)
        before = troubles.set([])
        try:
            usable = not self.team.breaker.tripped
            counter = await getattr(self, way)(subject, n, source)
            if troubles.get() or self.team.breaker.tripped or not usable:
                return self.board.count(self.slot, "errors")
        except Exception:
            if way in ("refresh", "warm", "prime", "failing", "rejected"):
                raise  # they hide the errors of the cache
            return self.board.count(self.slot, "errors")
        finally:
            troubles.reset(before)
        if counter:
            self.board.count(self.slot, counter)
            if counter != "evictions":
                self.board.floors[cell * self.board.slots + self.slot] = source

    # --- ways to write: each returns its counter, or None if it promises nothing ---

    async def invalidate(self, subject: Subject, n: int, source: int) -> str:
        await finished(self.control(subject, "invalidate")(n))
        return "invalidations"

    async def tag(self, subject: Subject, n: int, source: int) -> str:
        from cache_memoize import ainvalidate_tags, invalidate_tags

        invalidate = ainvalidate_tags if self.is_async else invalidate_tags
        await finished(invalidate(f"{subject.name}{n}", cache_alias="default"))
        return "invalidations"

    async def everything(self, subject: Subject, n: int, source: int) -> str:
        await finished(self.control(subject, "invalidate_all")())
        return "invalidations"

    async def refresh(self, subject: Subject, n: int, source: int) -> str:
        await finished(self.control(subject, "refresh")(n))
        return "refreshes"

    async def warm(self, subject: Subject, n: int, source: int) -> str:
        steps = self.control(subject, "warm")([n])
        found = [s async for s in steps] if self.is_async else [*steps]
        assert found[0].error is None
        return "refreshes"

    async def prime(self, subject: Subject, n: int, source: int) -> str:
        await finished(self.control(subject, "prime")([n, source], n))
        return "primes"

    async def failing(self, subject: Subject, n: int, source: int) -> None:
        """A refresh that raises must not undo what others did meanwhile."""
        before = failing.set(True)
        try:
            await self.refresh(subject, n, source)
        except Failed:
            pass
        finally:
            failing.reset(before)

    async def rejected(self, subject: Subject, n: int, source: int) -> None:
        before = rejected.set(True)
        try:
            await self.refresh(subject, n, source)
        finally:
            rejected.reset(before)

    async def evict(self, subject: Subject, n: int, source: int) -> str:
        from cache_memoize.keys.tags import call_tags, tag_key

        key = subject.f.get_cache_key(n)
        tags = tag_key(f"{subject.name}{n}"), *call_tags(f"soak.{subject.name}", key)
        key = self.rng.choice((key, key, *tags))
        await finished(getattr(caches["default"], "a" * self.is_async + "delete")(key))
        return "evictions"

    def commit(self, subject: Subject, n: int) -> None:
        """Write a row and invalidate, in either order. A value that is rolled back is
        odd, and no other caller may see it."""
        from cache_memoize import invalidate_tags

        rolls_back, rows = self.rng.random() < 0.3, self.board.rows
        forget: list[Callable[[], object]] = [
            lambda: subject.f.invalidate(n),
            lambda: invalidate_tags(f"row{n}", cache_alias="default"),
        ]
        before = troubles.set([])
        try:
            with transaction.atomic(), connections["default"].cursor() as cursor:
                cursor.execute(f"SELECT value FROM {rows} WHERE n = %s", [n])
                value = cursor.fetchone()[0] + 2 - rolls_back
                steps = [
                    lambda: cursor.execute(
                        f"UPDATE {rows} SET value = %s WHERE n = %s", [value, n]
                    ),
                    self.rng.choice(forget),
                ]
                if self.rng.random() < 0.3:
                    steps.reverse()
                for step in steps:
                    step()
                    time.sleep(some_time(self.rng))
                for own in (each.f(n) for each in self.subjects if each.is_row):
                    if own[1] != value:
                        self.team.find(self, "old", f"own: {own}, not {value}")
                if rolls_back:
                    raise RolledBack
        except RolledBack:
            return
        except Exception:  # an invalidation, or the database, failed
            return self.board.count(self.slot, "errors")
        finally:
            failed = troubles.get()
            troubles.reset(before)
        self.board.count(self.slot, "commits")
        cell = subject.first + n
        if not failed:
            self.board.floors[cell * self.board.slots + self.slot] = value


async def finished(result: Any) -> Any:
    return await result if inspect.isawaitable(result) else result


class Team:
    """One process: threads, and an event loop with tasks."""

    def __init__(self, given: dict[str, Any]) -> None:
        from cache_memoize import signals
        from cache_memoize.cache.breaker import breaker_of

        self.seed, self.turn = given["seed"], given["turn"]
        self.bound, self.folder = given["bound"], Path(given["folder"])
        self.slots, self.reads = given["slots"], given["reads"]
        self.board = Board(self.folder / "board", given["of"])
        self.board.rows = given["rows"]
        rng = random.Random(f"{self.seed} {self.slots} {self.turn} computations")
        named: dict[str, Subject] = {}
        for name in NAMES:
            named[name] = Subject(name, self.board, rng, named)
        self.subjects = [*named.values()]
        self.breaker = breaker_of("default")
        signals.error.connect(note_trouble)
        half = self.slots[: (len(self.slots) + 1) // 2]
        self.actors = [Actor(self, slot, slot not in half) for slot in self.slots]
        self._told, self.parent = 0, os.getppid()

    def find(self, actor: Actor, what: str, text: str) -> None:
        self.board.count(actor.slot, what)
        with (self.folder / "findings").open("a") as file:
            file.write(f"{what}: {actor.doing}: {text}\n")

    def run(self) -> None:
        threads = [
            threading.Thread(target=self.run_thread, args=[actor], daemon=True)
            for actor in self.actors
            if not actor.is_async
        ]
        threads.append(threading.Thread(target=self.run_tasks, daemon=True))
        for thread in threads:
            thread.start()
        hung: set[tuple[int, float]] = set()
        while any(thread.is_alive() for thread in threads):
            time.sleep(0.2)
            self.count_hits()
            for actor in self.actors:
                since = actor.since
                if since is None or time.monotonic() - since < self.bound:
                    continue
                if (actor.slot, since) not in hung:
                    hung.add((actor.slot, since))
                    self.find(actor, "hung", "".join(stacks()))
            is_late = time.time() > self.board.end + 2 * self.bound
            if is_late or os.getppid() != self.parent:
                os._exit(1)

    def run_thread(self, actor: Actor) -> None:
        from cache_memoize.cache.store import run

        run(actor.act())
        connections.close_all()

    def run_tasks(self) -> None:
        async def together() -> None:
            await asyncio.gather(*(a.act() for a in self.actors if a.is_async))
            await sync_to_async(connections.close_all)()

        asyncio.run(together())

    def count_hits(self) -> None:
        hits = sum(subject.hits for subject in self.subjects)
        self.board.count(self.slots[0], "hits", hits - self._told)
        self._told = hits


def stacks() -> list[str]:
    return [
        text
        for frame in sys._current_frames().values()
        for text in traceback.format_stack(frame)[-6:]
    ]


def note_trouble(event: Any, **kwargs: Any) -> None:
    with contextlib.suppress(LookupError):  # of a read
        troubles.get().append(event)


def take_comparison_out() -> None:
    """Break the library: replace whatever is there."""
    from cache_memoize.cache import backends, redis, vouchers

    def swap(self: Any, cache: Any, key: str, old: Any, new: Any, seconds: Any) -> bool:
        self.set(cache, key, new, seconds)
        return True

    for module in (backends, redis, vouchers):
        for each in vars(module).values():
            if isinstance(each, type) and "swap" in vars(each):
                each.swap = swap  # type: ignore[attr-defined]


def wait_for_no_process() -> None:
    """Break the library: tell processes that hold copies, as push does, and go on."""
    from cache_memoize.cache import holders

    holders._is_answered = lambda *args: True


def use_vouchers() -> None:
    """Have the cache taken for one of an unknown kind."""
    from cache_memoize.cache import backends

    cache = caches["default"]
    known = {True: backends.VOUCHER, False: backends.UNSHAREABLE}
    backends._found[type(cache)] = known[backends.backend_of(cache).shareable]


class Router:
    """The table of the cache is in a database of its own name: it has connections of
    its own, which may break."""

    def db_for_read(self, model: Any, **hints: Any) -> str | None:
        is_cache = model._meta.app_label == "django_cache"
        return "cache" if is_cache and "cache" in settings.DATABASES else None

    db_for_write = db_for_read

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool | None:
        return db == "cache" if app_label == "django_cache" else None


def configure(given: dict[str, Any]) -> None:
    import django

    with contextlib.suppress(ImportError):
        importlib.import_module("pymysql").install_as_MySQLdb()
    settings.configure(
        CACHES={"default": given["cache"]},
        DATABASES=given["databases"],
        DATABASE_ROUTERS=["benchmarks.actors.Router"],
        SECRET_KEY="only for a soak",
        USE_TZ=True,
        LOGGING_CONFIG=None,
        INSTALLED_APPS=["cache_memoize"],
        CACHE_MEMOIZE={"SIGN": given["sign"], "DEFAULTS": given["defaults"]},
    )
    django.setup()


def main() -> None:
    import logging

    from cache_memoize.cache import breaker

    given = json.loads(sys.argv[1])
    logging.basicConfig(
        filename=Path(given["folder"]) / "log", format="%(asctime)s %(message)s"
    )
    configure(given)
    # So that threads come in between each other more often than by default, and the
    # cache is used again soon after a fault.
    sys.setswitchinterval(0.0005)
    breaker.PAUSE = 0.2
    if given["vouchers"]:
        use_vouchers()
    if given["broken"] and given["defaults"]:
        wait_for_no_process()
    elif given["broken"]:
        take_comparison_out()
    Team(given).run()


if __name__ == "__main__":
    main()
