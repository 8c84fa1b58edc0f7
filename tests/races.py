"""Counts stale and phantom reads: ``python -m tests.races --trials 5000``.

Random schedules, from a seed, on every backend: readers, one writer that publishes a
value and makes the function forget, and a fourth one that reads, refreshes, invalidates
or evicts. The writer invalidates; or refreshes and primes; or invalidates tags; or all
that while stale values are allowed; or it writes a row in a transaction and invalidates
there, and some of these transactions are rolled back; or it writes a row, and the
function depends on the table.

A trial is *stale* if a read that began after the forgetting had returned (of a row:
after the commit with its hooks) gave an older value, or if the one left at the end is
older. It is a *phantom* if somebody else saw a value that was rolled back.

The same schedules for wrong schemes, which must be caught, or the harness would see
nothing; and for other packages (see peers.py): ``--peers FOLDER``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import faulthandler
import itertools
import json
import math
import multiprocessing
import os
import platform
import random
import shutil
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Coroutine, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextvars import ContextVar
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
django.setup()

from asgiref.sync import sync_to_async  # noqa: E402
from django.conf import settings  # noqa: E402
from django.core.cache import caches  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connections, transaction  # noqa: E402

from tests import peers  # noqa: E402
from tests.conftest import ATOMIC, BACKENDS, DATABASES, close_connections  # noqa: E402
from tests.models import Post  # noqa: E402
from tests.peers import OURS, Missing, Subject  # noqa: E402
from tests.servers import SERVERS  # noqa: E402

#: What the writer of a trial may do, by kind of trial.
WAYS = {
    "invalidate": ("invalidate",),
    "refresh": ("refresh", "prime"),
    "tags": ("tag", "everything"),
    "stale values": ("invalidate", "tag", "everything"),
    "models": ("invalidate", "tag", "everything", "save", "update"),
    "tables": ("write",),
}
#: How the trials are divided among the kinds that a scheme knows.
SHARES = {
    "invalidate": 0.3,
    "refresh": 0.15,
    "tags": 0.2,
    "stale values": 0.15,
    "models": 0.2,
    "tables": 0.2,
}
#: The kinds of trials with rows.
OF_ROWS = ("models", "tables")
#: Databases whose rows are computed from, by cache. A cache that is a table is tried
#: on the same connection.
MODELS = {
    "locmem": ["default", "postgresql"],
    "valkey": ["default", "postgresql"],
    "pymemcache": ["default", "postgresql"],
    "sqlite": ["default"],
    "postgresql": ["postgresql"],
}
PEERS_ON = ["locmem", "valkey", "pymemcache"]
QUICK = ["locmem", "valkey", "pymemcache"]
LONGEST_PAUSE = 0.0015
ROLES = 4
#: A trial takes milliseconds. One that takes so many seconds was blocked...
BLOCKED = 5
#: ... and one that takes so many is given up.
PATIENCE = 60

_numbers = itertools.count(1)


class Found(NamedTuple):
    """What came of the trials of one kind."""

    alias: str
    subject: str
    kind: str
    database: str | None
    trials: int
    stale: int
    phantom: int
    errors: int
    #: Reads of the cache's value, without a computation: none, and nothing was tried.
    hits: int
    #: A trial that takes seconds, not milliseconds, was blocked.
    slowest: float
    seconds: float
    #: What the writer and the fourth one did in those that went wrong.
    schedules: dict[str, int]
    #: Of the first of them.
    seeds: list[int]


# --- who plays the roles -------------------------------------------------------------


class Threads:
    """As many threads as there are roles, kept for all trials."""

    def __init__(self) -> None:
        self.start = threading.Barrier(ROLES + 1, timeout=PATIENCE)
        self.end = threading.Barrier(ROLES + 1, timeout=PATIENCE)
        self.roles: list[Coroutine[Any, Any, None] | None] = [None] * ROLES
        self.trouble: list[BaseException] = []
        self.threads = [
            threading.Thread(target=self._play, args=(number,), daemon=True)
            for number in range(ROLES)
        ]
        for thread in self.threads:
            thread.start()

    def _play(self, number: int) -> None:
        with contextlib.suppress(threading.BrokenBarrierError):
            while True:
                self.start.wait()
                role = self.roles[number]
                if role is None:
                    break
                try:
                    finish(role)
                except BaseException as error:
                    self.trouble.append(error)
                self.end.wait()
        close_connections()

    @staticmethod
    async def pause(seconds: float) -> None:
        time.sleep(seconds)

    def play(self, roles: list[Coroutine[Any, Any, None]]) -> None:
        self.roles[:] = roles
        self.trouble.clear()
        self.start.wait()
        self.end.wait()
        if self.trouble:
            raise self.trouble[0]

    def complete(self, role: Coroutine[Any, Any, Any]) -> Any:
        return finish(role)

    def close(self) -> None:
        self.roles[:] = [None] * ROLES
        self.start.wait()
        for thread in self.threads:
            thread.join(PATIENCE)


class Tasks:
    """Tasks of one event loop instead."""

    pause = staticmethod(asyncio.sleep)

    def __init__(self) -> None:
        self.runner = asyncio.Runner()

    def play(self, roles: list[Coroutine[Any, Any, None]]) -> None:
        async def together() -> None:
            async with asyncio.timeout(PATIENCE):
                await asyncio.gather(*roles)

        self.runner.run(together())

    def complete(self, role: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(role)

    def close(self) -> None:
        self.runner.run(sync_to_async(close_connections)())
        self.runner.close()


def finish(role: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that never suspends."""
    try:
        role.send(None)
    except StopIteration as end:
        return end.value
    role.close()
    raise RuntimeError("a role in a thread was suspended")


# --- the truth -----------------------------------------------------------------------


class Failed(Exception):
    """What a computation raises when it is to fail."""


failing: ContextVar[bool] = ContextVar("failing", default=False)


class Numbers:
    """In memory, by argument of the function."""

    database: str | None = None

    def __init__(self) -> None:
        self.values: dict[int, int] = {}
        #: How long each computation takes before it looks, and after that.
        self.takes: dict[int, Iterator[tuple[float, float]]] = {}
        self.computations: Counter[int] = Counter()

    def begin(self, n: int, takes: list[tuple[float, float]]) -> None:
        self.values[n], self.takes[n] = 0, itertools.cycle(takes)

    def look(self, n: int) -> int:
        return self.values[n]

    def compute(self, n: int) -> int:
        self.computations[n] += 1
        before, after = next(self.takes[n])
        time.sleep(before)
        value = self.look(n)
        time.sleep(after)
        if failing.get():
            raise Failed
        return value

    async def acompute(self, n: int) -> int:
        self.computations[n] += 1
        before, after = next(self.takes[n])
        await asyncio.sleep(before)
        value = self.look(n)
        await asyncio.sleep(after)
        if failing.get():
            raise Failed
        return value


class Rows(Numbers):
    """Rows of a database, by primary key. Each has a neighbour that nobody computes
    from: for transactions that write something else."""

    def __init__(self, database: str, has_pauses: bool) -> None:
        super().__init__()
        self.database: str = database
        self.has_pauses = has_pauses

    def begin(self, n: int, takes: list[tuple[float, float]]) -> None:
        self.takes[n] = itertools.cycle(takes)
        rows = [Post(pk=n, title="0"), Post(pk=-n, title="neighbour")]
        Post.objects.using(self.database).bulk_create(rows)

    def look(self, n: int) -> int:
        with self.pauses():
            return int(Post.objects.using(self.database).get(pk=n).title)

    def pauses(self) -> Any:
        """Return a context with pauses around each statement, if it is to have some."""
        if not self.has_pauses:
            return contextlib.nullcontext()
        return connections[self.database].execute_wrapper(pausing)

    def write(self, n: int, value: int) -> None:
        Post.objects.using(self.database).filter(pk=n).update(title=str(value))


def some_time(rng: Any) -> float:
    """Up to 1.5 ms, and often none at all."""
    return rng.choice((0, rng.random(), rng.random())) * LONGEST_PAUSE


def pausing(execute: Any, sql: Any, params: Any, many: bool, context: Any) -> Any:
    """An execute wrapper: pause between the statement and what is done around it."""
    time.sleep(some_time(random))
    found = execute(sql, params, many, context)
    time.sleep(some_time(random))
    return found


class RolledBack(Exception):
    pass


# --- one trial -----------------------------------------------------------------------


class Trial:
    """One schedule. All that is random in it comes from its seed."""

    def __init__(
        self,
        kind: str,
        seed: int,
        subjects: list[Subject],
        truth: Numbers,
        in_table: bool,
    ) -> None:
        self.truth = truth
        #: Then clear() locks many rows, in another order than the transactions do.
        self.in_table = in_table and isinstance(truth, Rows)
        self.n = next(_numbers) + (os.getpid() << 24)
        self.rng = random.Random(f"{kind} {seed}")
        self.subject = self.rng.choice(subjects)
        known = [way for way in WAYS[kind] if hasattr(self.subject, way)]
        self.way = self.rng.choice(known)
        self.published = 0
        self.rolled_back: set[int] = set()
        self.seen: list[tuple[int, int]] = []
        self.stale = self.phantom = self.only_at_rest = False

    def run(self, team: Any) -> None:
        rng, roles = self.rng, [self.reader, self.reader]
        self.rollbacks = rng.choice((0, 0, 0.5))
        self.pause = team.pause
        # Not all alike, or who began first would always be the first to end.
        self.truth.begin(self.n, [(some_time(rng), some_time(rng)) for _ in range(7)])
        self.subject.begin(self.n)
        writer = self.writer
        other = self.others()
        self.schedule = f"{self.way}, {other.__name__}"
        if isinstance(self.truth, Rows):
            writer = self.row_writer
            roles[1] = self.reader_in_transaction
        #: A refresh that another one has overtaken stores nothing: it is the newest
        #: that wins, and what it brought is there when that one has returned.
        refreshers = (self.refresher, self.failing_refresher)
        self.only_at_rest = self.way == "refresh" and other in refreshers
        if rng.random() < 0.5:
            team.complete(self.read())
        roles += [other, writer]
        team.play([role(random.Random(rng.random())) for role in roles])
        self.only_at_rest = False
        team.complete(self.read())
        self.phantom |= any(value in self.rolled_back for value, _ in self.seen)
        self.stale |= any(value < oldest for value, oldest in self.seen)

    def others(self) -> Any:
        """What the fourth one does."""
        found = [self.reader, self.invalidator]
        if hasattr(self.subject, "refresh"):
            found += [self.refresher, self.failing_refresher]
        if isinstance(self.truth, Rows):
            found.append(self.reader_that_wrote)
        if hasattr(self.subject, "evict") and not self.in_table:
            found.append(self.evictor)
        return self.rng.choice(found)

    async def spin(self, rng: random.Random) -> None:
        if pause := some_time(rng):
            await self.pause(pause)

    async def read(self) -> None:
        await self.see(0 if self.only_at_rest else self.published)

    async def see(self, oldest: int) -> None:
        with contextlib.suppress(Failed):  # of a refresh that it has waited for
            self.seen.append((await self.subject.read(self.n), oldest))

    async def reader(self, rng: random.Random) -> None:
        for _ in range(3):
            await self.spin(rng)
            await self.read()

    async def refresher(self, rng: random.Random) -> None:
        for _ in range(2):
            await self.spin(rng)
            await self.subject.refresh(self.n)

    async def failing_refresher(self, rng: random.Random) -> None:
        """What it raises must not undo what others did meanwhile."""
        before = failing.set(True)
        try:
            for _ in range(2):
                await self.spin(rng)
                with contextlib.suppress(Failed):
                    await self.subject.refresh(self.n)
        finally:
            failing.reset(before)

    async def invalidator(self, rng: random.Random) -> None:
        """Without news: it must not do harm."""
        await self.spin(rng)
        await self.subject.invalidate(self.n)
        await self.reader(rng)

    async def evictor(self, rng: random.Random) -> None:
        await self.spin(rng)
        await self.subject.evict(self.n)
        await self.reader(rng)

    async def writer(self, rng: random.Random) -> None:
        for value in (1, 2):
            await self.spin(rng)
            self.truth.values[self.n] = value
            forget = getattr(self.subject, self.way)
            await (forget(self.n, value) if self.way == "prime" else forget(self.n))
            self.published = value

    # --- with rows ---

    async def row_writer(self, rng: random.Random) -> None:
        for value in (1, 2, 3):
            await self.spin(rng)
            if rng.random() < self.rollbacks:
                self.rolled_back.add(value)
            block: Any = transaction.atomic(using=self.truth.database)
            if self.way == "write" and value not in self.rolled_back:
                block = rng.choice((block, contextlib.nullcontext()))
            try:
                with block:
                    await self.change(value, rng)
                    await self.spin(rng)
                    if rng.random() < 0.5:  # it must see its own
                        with contextlib.suppress(Failed):
                            own = await self.subject.read(self.n)
                            self.stale |= own != value
                        await self.spin(rng)
                    if value in self.rolled_back:
                        raise RolledBack
            except RolledBack:
                continue
            self.published = value

    async def change(self, value: int, rng: random.Random) -> None:
        """Write the row and forget, in either order."""
        assert isinstance(self.truth, Rows)
        forget = getattr(self.subject, self.way)
        if self.way in ("save", "update", "write"):
            with self.truth.pauses():
                await forget(self.n, self.truth.database, value)
            return
        first = rng.random() < 0.3
        if first:
            await forget(self.n)
            await self.spin(rng)
        self.truth.write(self.n, value)
        if not first:
            await self.spin(rng)
            if rng.random() < 0.4:  # the old value or its own: nothing is said yet
                await self.subject.read(self.n)
                if value in self.rolled_back and rng.random() < 0.5:
                    raise RolledBack
            await forget(self.n)

    async def reader_in_transaction(self, rng: random.Random) -> None:
        """Like a view under ATOMIC_REQUESTS. It may see what was there as it began."""
        for _ in range(2):
            await self.spin(rng)
            oldest = self.published
            with transaction.atomic(using=self.truth.database):
                for _ in range(2):
                    await self.see(oldest)
                    await self.spin(rng)

    async def reader_that_wrote(self, rng: random.Random) -> None:
        """Something else, and it is rolled back sometimes."""
        for _ in range(2):
            await self.spin(rng)
            oldest = self.published
            with (
                contextlib.suppress(RolledBack),
                transaction.atomic(using=self.truth.database),
            ):
                assert isinstance(self.truth, Rows)
                self.truth.write(-self.n, rng.randrange(100))
                await self.see(oldest)
                await self.spin(rng)
                if rng.random() < 0.5:
                    raise RolledBack


# --- many of them --------------------------------------------------------------------


class Options(NamedTuple):
    trials: int
    few: int
    folder: Path | None
    kinds: list[str]
    first: int
    only_ours: bool


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def made(
    title: str, alias: str, kind: str, truth: Numbers, folder: Path | None
) -> list[Subject]:
    """The subjects of a title that can be tried in this way, or Missing."""

    # Plain functions: of a bound method, the instance would be part of the key.
    def compute(n: int) -> int:
        return truth.compute(n)

    async def acompute(n: int) -> int:
        return await truth.acompute(n)

    if title == OURS:
        return peers.ours(alias, kind, compute, acompute)
    if kind == "stale values":
        raise Missing("nothing to compare with")
    one = (peers.CONTROLS | peers.PEERS)[title](alias, compute, acompute, folder)
    if one.tasks and isinstance(truth, Rows):
        raise Missing("its functions are async, and transactions are not")
    if not any(hasattr(one, way) for way in WAYS[kind]):
        raise Missing("it does not have that")
    return [one]


def plan(
    title: str, alias: str, options: Options
) -> list[tuple[str, Numbers, list[Subject], int]]:
    """The kinds of trials for a title on a backend, and how many of each."""
    found: list[tuple[str, Numbers, list[Subject], float]] = []
    for kind in options.kinds:
        truths: list[Numbers] = [Numbers()]
        if kind in OF_ROWS:
            truths = [
                Rows(one, has_pauses=kind == "tables")
                for one in MODELS.get(alias, [])
                if one in settings.DATABASES
            ]
        for truth in truths:
            try:
                subjects = made(title, alias, kind, truth, options.folder)
            except Missing as why:
                if kind == options.kinds[0] or title == OURS:
                    say(f"{alias}, {title}, {kind}: {why}")
                continue
            found.append((kind, truth, subjects, SHARES[kind] / len(truths)))
    many = options.trials if title == OURS else options.few
    every = sum(share for *_, share in found)
    return [
        (kind, truth, subjects, math.ceil(round(many * share / every, 6)))
        for kind, truth, subjects, share in found
    ]


def count(
    title: str,
    alias: str,
    kind: str,
    truth: Numbers,
    subjects: list[Subject],
    trials: int,
    first: int,
) -> Found:
    """How many of so many schedules showed something that may not be."""
    teams: dict[bool, Any] = {}
    label = f"{alias}, {title}, {kind}"
    if truth.database:
        label += f" in {connections[truth.database].vendor}"
    clear(alias)
    stale = phantom = errors = hits = 0
    slowest = 0.0
    seeds: list[int] = []
    schedules: Counter[str] = Counter()
    started = said = time.monotonic()
    for seed in range(first, first + trials):
        trial = Trial(kind, seed, subjects, truth, alias in DATABASES)
        tasks = trial.subject.tasks
        if tasks not in teams:
            teams[tasks] = Tasks() if tasks else Threads()
        began = time.monotonic()
        # Before it is given up, everybody's whereabouts.
        faulthandler.dump_traceback_later(PATIENCE * 0.9)
        try:
            trial.run(teams[tasks])
        except Exception:
            errors += 1
            if errors == 1:
                say(f"{label}, seed {seed}:\n{traceback.format_exc()}")
        faulthandler.cancel_dump_traceback_later()
        slowest = max(slowest, time.monotonic() - began)
        # At least: what refreshes compute is taken for reads that found nothing.
        hits += max(len(trial.seen) - truth.computations.pop(trial.n, 0), 0)
        stale += trial.stale
        phantom += trial.phantom
        if trial.stale or trial.phantom:
            schedules[trial.schedule] += 1
        if (trial.stale or trial.phantom or errors > len(seeds)) and len(seeds) < 5:
            seeds.append(seed)
        if seed % 50 == 0:
            clear(alias)
        if (now := time.monotonic()) - said > 10:
            said = now
            done = seed - first + 1
            say(f"{label}: {done} of {trials}, {stale} stale, {phantom} phantom")
    for subject in subjects:
        if subject.tasks:
            teams.setdefault(True, Tasks()).complete(subject.end())
    for team in teams.values():
        team.close()
    clear(alias)
    seconds = time.monotonic() - started
    say(
        f"{label}: {trials} trials in {seconds:.1f} s, "
        f"{stale} stale, {phantom} phantom, {errors} errors, {hits} hits, "
        f"slowest {slowest:.2f} s"
    )
    return Found(
        alias,
        title,
        kind,
        truth.database,
        trials,
        stale,
        phantom,
        errors,
        hits,
        round(slowest, 3),
        round(seconds, 1),
        dict(schedules),
        seeds,
    )


def clear(alias: str) -> None:
    caches[alias].clear()


def backend(alias: str, options: Options) -> list[Found]:
    """All trials on one backend."""
    if options.folder:
        sys.path.append(str(options.folder))  # after all that is installed
    titles = [OURS]
    if not options.only_ours:
        titles += peers.CONTROLS
        if alias in PEERS_ON:
            titles += peers.PEERS
    found = []
    for title in titles:
        for kind, truth, subjects, trials in plan(title, alias, options):
            found.append(
                count(title, alias, kind, truth, subjects, trials, options.first)
            )
    return found


def group(aliases: list[str], options: Options) -> list[Found]:
    """The backends that share a server, one after the other, in a process that has a
    folder of its own."""
    # So that threads come in between each other more often than by default.
    sys.setswitchinterval(0.0005)
    sys.unraisablehook = not_of_pylibmc
    faulthandler.enable()
    prepare_sqlite()
    found = []
    try:
        for alias in aliases:
            found += backend(alias, options)
    finally:
        close_connections()
        clean_up()
    return found


def not_of_pylibmc(unraisable: Any) -> None:
    """It asks for a key in a way that Python 3.13 reports, each time."""
    if "PyMapping_HasKeyString" not in str(unraisable.err_msg):
        sys.__unraisablehook__(unraisable)


def prepare_sqlite() -> None:
    with connections["default"].cursor() as cursor:
        cursor.execute("PRAGMA journal_mode=WAL")  # readers do not block the writer
    prepare("default")


def prepare(database: str) -> None:
    call_command("createcachetable", database=database, verbosity=0)
    with connections[database].schema_editor() as editor:
        editor.create_model(Post)


def clean_up() -> None:
    if "MEMOIZE_FOLDER" not in os.environ:
        shutil.rmtree(settings.FOLDER, ignore_errors=True)


# --- saying it -----------------------------------------------------------------------


def list_table(rows: list[list[str]]) -> str:
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in rows:
        lines += [f"   {'*' if n == 0 else ' '} - {cell}" for n, cell in enumerate(row)]
    return "\n".join(lines) + "\n"


def place(found: Found) -> str:
    """The column of a kind of trial."""
    if found.database is None:
        return found.kind
    vendor = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}
    what = "rows" if found.kind == "models" else found.kind
    return f"{what} in {vendor[connections[found.database].vendor]}"


COLUMNS = [*(kind for kind in WAYS if kind not in OF_ROWS)]
COLUMNS += [
    f"{w} in {db}" for w in ("rows", "tables") for db in ("SQLite", "PostgreSQL")
]


def cell(found: Found | None, *, phantoms: bool) -> str:
    if found is None:
        return "–"
    text = f"{found.stale} of {found.trials:,}"
    if phantoms and found.database:
        text = f"{found.stale} and {found.phantom} of {found.trials:,}"
    return text


def table(results: list[Found], titles: list[str], aliases: list[str]) -> str:
    by = {(f.subject, f.alias, place(f)): f for f in results}
    several = len(titles) > 1
    head = ["scheme"] if several else []
    rows = [[*head, "backend", *COLUMNS]]
    for title in titles:
        for alias in aliases:
            line = [by.get((title, alias, column)) for column in COLUMNS]
            if any(line):
                first = [title] if several else []
                cells = [cell(one, phantoms=True) for one in line]
                rows.append([*first, alias, *cells])
    return list_table(rows)


def versions(folder: Path | None) -> dict[str, str]:
    found = {"Python": platform.python_version(), "Django": django.__version__}
    path = [*sys.path, str(folder)] if folder else sys.path
    for name in ("redis", "pymemcache", "pylibmc", "django-redis", "psycopg"):
        for distribution in metadata.distributions(name=name, path=path):
            found[name] = distribution.version
            break
    for name in peers.PEERS:
        # Ours is installed under the name of the established one, perhaps.
        where = [str(folder)] if folder and name == "django-cache-memoize" else path
        if folder or where is not path:
            for distribution in metadata.distributions(name=name, path=where):
                found[name] = distribution.version
                break
    found["processors"] = str(os.cpu_count())
    return found


def text_of(results: list[Found], about: dict[str, str]) -> str:
    aliases = list(dict.fromkeys(f.alias for f in results))
    total = Counter(f.alias for f in results)
    for alias in total:
        total[alias] = sum(
            f.trials for f in results if f.alias == alias and f.subject == OURS
        )
    fewest = min(total.values())
    tried = {f.subject for f in results}
    stale = sum(f.stale for f in results if f.subject == OURS)
    phantom = sum(f.phantom for f in results if f.subject == OURS)
    parts = [
        f"This library: {stale} stale and {phantom} phantom in "
        f"{sum(total.values()):,} trials, {fewest:,} or more per backend. Each "
        "cell is the number of stale trials; for rows, of stale and phantom trials.\n",
        table(results, [OURS], aliases),
    ]
    controls = [title for title in peers.CONTROLS if title in tried]
    if controls:
        parts += ["Wrong schemes:\n", table(results, controls, aliases)]
    others = [title for title in peers.PEERS if title in tried]
    if others:
        parts += ["Other packages:\n", table(results, others, aliases)]
    named = ", ".join(f"{name} {version}" for name, version in about.items())
    parts.append(named.replace("processors 2", "2 processors") + ".\n")
    return "\n".join(parts)


def verdict(results: list[Found]) -> list[str]:
    """What is wrong: with the library, or with the harness."""
    wrong = [
        f"{f.alias}, {place(f)}: {f.stale} stale, {f.phantom} phantom, {f.errors} "
        f"errors; {f.schedules}; seeds {f.seeds}"
        for f in results
        if f.subject == OURS and (f.stale or f.phantom or f.errors)
    ]
    wrong += [
        f"{f.alias}, {place(f)}: a trial took {f.slowest} s"
        for f in results
        if f.subject == OURS and f.slowest > BLOCKED
    ]
    wrong += [
        f"{f.alias}, {f.subject}, {place(f)}: nothing came from the cache"
        for f in results
        if not f.hits
    ]
    for title in peers.CONTROLS:
        mine = [f for f in results if f.subject == title]
        if mine and not sum(f.stale for f in mine):
            wrong.append(f"the harness did not catch: {title}")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--trials", type=int, default=5000, help="per backend")
    parser.add_argument("--few", type=int, help="per scheme compared; a tenth")
    parser.add_argument("--peers", type=Path, help="where other packages are")
    parser.add_argument("--quick", action="store_true", help="three backends, 300")
    parser.add_argument("--only", nargs="+", choices=BACKENDS, metavar="BACKEND")
    parser.add_argument("--kinds", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--ours", action="store_true", help="nothing to compare with")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rst", type=Path)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    trials = 300 if given.quick else given.trials
    few = trials // 10 if given.few is None else given.few
    options = Options(trials, few, given.peers, given.kinds, given.first, given.ours)
    wanted = given.only or (QUICK if given.quick else list(BACKENDS))
    # Where the servers are, for the processes.
    ports = {f"MEMOIZE_{name.upper()}": str(s.port) for name, s in SERVERS.items()}
    os.environ.update(ports)
    groups: dict[str, list[str]] = {}
    for alias in wanted:
        server = BACKENDS[alias]
        if server and not SERVERS[server].binary:
            say(f"{alias}: needs {server}")
            continue
        # Backends without a server each are a group of their own.
        groups.setdefault(server or alias, []).append(alias)
    started = time.monotonic()
    try:
        for name in {*groups} & {*SERVERS}:
            SERVERS[name].start()
        if "postgresql" in settings.DATABASES:
            SERVERS["postgresql"].start()
            prepare("postgresql")
            connections.close_all()
        # One process per group: what is left behind by one cannot help another.
        with ProcessPoolExecutor(
            given.jobs, multiprocessing.get_context("spawn"), max_tasks_per_child=1
        ) as pool:
            longest = sorted(groups.values(), key=len, reverse=True)
            jobs = [pool.submit(group, names, options) for names in longest]
            results = [found for job in jobs for found in job.result()]
    finally:
        for one in SERVERS.values():
            one.stop()
        clean_up()
    results.sort(key=lambda f: list(BACKENDS).index(f.alias))
    about = versions(given.peers)
    text = text_of(results, about)
    print(text)
    say(f"all of it: {time.monotonic() - started:.0f} s")
    if given.rst:
        given.rst.write_text(text)
    if given.json:
        found = {"environment": about, "results": [f._asdict() for f in results]}
        given.json.write_text(json.dumps(found, indent=1) + "\n")
    wrong = verdict(results)
    say("\n".join(wrong))
    sys.exit(bool(wrong))


assert set(ATOMIC) <= set(BACKENDS)
assert set(DATABASES) <= set(BACKENDS)

if __name__ == "__main__":
    main()
