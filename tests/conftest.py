"""Worlds to test in: sync and async, on every backend, with the time in our hands."""

from __future__ import annotations

import gc
import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import hypothesis
import pytest
import redis
from asgiref.sync import async_to_sync, sync_to_async
from django.conf import settings
from django.core.cache import caches
from django.core.management import call_command
from django.db import connections
from django.db.backends.signals import connection_created
from django.db.models import signals as django_signals

from cache_memoize import (
    ainvalidate_tags,
    cache_memoize,
    invalidate_tags,
    model_signals,
    planning,
)
from cache_memoize.cache import breaker, record
from cache_memoize.cache import connections as clients
from cache_memoize.cache.redis import Awaited
from cache_memoize.cache.store import Store
from cache_memoize.clock import Clock
from cache_memoize.protocol import tables
from cache_memoize.protocol import threads as pool
from cache_memoize.stats import sitewide
from cache_memoize.stats.reporter import reporter
from tests.needs import FULL, NEED_ALL, gaps, is_full, need
from tests.servers import DATABASES as SHARED_SERVERS
from tests.servers import SERVERS

#: Each call in most tests has a loop of its own: its first command needs a connection.
Awaited.FIRST = 0

pytest_plugins = ["pytester", "pytest_cache_memoize"]

T = TypeVar("T")

#: alias: the server it needs
BACKENDS = {
    "locmem": None,
    "valkey": "valkey",
    "redis": "redis",
    "django_redis": "redis",
    "django_valkey": "valkey",
    "cluster": "cluster",
    "sentinel": "sentinel",
    "pymemcache": "memcached",
    "pylibmc": "memcached",
    "pylibmc_without_cas": "memcached",
    "sqlite": None,
    "postgresql": "postgresql",
    "file": None,
    "unknown": None,
}
#: Several processes, which take seconds to start.
NODES = ("cluster", "sentinel")
if "django_valkey" not in settings.CACHES:  # which needs a newer Django
    del BACKENDS["django_valkey"]
#: Their client is no wheel everywhere.
PYLIBMC = ("pylibmc", "pylibmc_without_cas")
#: Async code reaches a backend directly, over a connection of its loop, by a client of
#: each thread, or over a database connection: one of each, and the unknown one, by a
#: thread. The rest is the same.
ASYNC = ["locmem", "valkey", "pymemcache", "sqlite", "unknown"]
#: Those that replace atomically, on which nothing stale may ever be seen.
ATOMIC = [name for name in BACKENDS if name not in ("unknown", "pylibmc_without_cas")]
#: One of each kind: where a test runs if ``--full`` is not given.
LEAN = ["locmem", "valkey", "pymemcache", "sqlite"]
LEAN_ASYNC = ["locmem", "valkey"]
ALL_DATABASES = [name for name in settings.DATABASES if name != "mariadb"]
DATABASES = {"sqlite": "default", "postgresql": "postgresql"}
_ON_DATABASES = pytest.mark.django_db(transaction=True, databases=ALL_DATABASES)


class FakeClock(Clock):
    """Time that passes when the test says so.

    ``on_sleep`` runs while somebody waits: whatever the others do meanwhile.
    """

    def __init__(self) -> None:
        self.started = super().time()
        self.offset = 0.0
        self.luck = 0.5
        self.sleeps: list[float] = []
        self.on_sleep: Callable[[], object] = lambda: None

    def time(self) -> float:
        return self.started + self.offset

    def monotonic(self) -> float:
        return self.offset

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.offset += seconds
        self.on_sleep()

    async def asleep(self, seconds: float) -> None:
        self.sleep(seconds)

    # A test may run another caller in the middle of a command of the first one of the
    # line, and wait for it: then the time passes that the other one waits at most.

    def wait(self, future: Any, seconds: float) -> Any:
        found = super().wait(future, min(seconds, 0.02))
        self.offset += 0 if future.done() else seconds
        return found

    async def await_future(self, future: Any, seconds: float) -> Any:
        found = await super().await_future(future, min(seconds, 0.02))
        self.offset += 0 if future.done() else seconds
        return found

    def random(self) -> float:
        return self.luck

    def tick(self, seconds: float) -> None:
        self.offset += seconds


def in_thread(function: Callable[[], T]) -> T:
    """What somebody else does: in a thread with connections of its own."""
    outcome: list[T] = []
    trouble: list[BaseException] = []

    def work() -> None:
        try:
            outcome.append(function())
        except BaseException as error:
            trouble.append(error)
        finally:
            close_connections()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if trouble:
        raise trouble[0]
    return outcome[0]


def until(condition: Callable[[], object]) -> None:
    """Wait for what another thread, or another process, is about to do."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def close_connections() -> None:
    """Close what this thread opened: servers count their clients."""
    connections.close_all()
    clients.close()
    for cache in caches.all(initialized_only=True):
        cache.close()


def plan_of(f: Any) -> Any:
    """The plan of a memoized function under the present settings."""
    return planning.plan_of(f._memoized)


class Caller:
    """A memoized async function, called like a sync one."""

    def __init__(self, memoized: Any) -> None:
        self.memoized = memoized

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return async_to_sync(self.memoized)(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name in ("cache_info", "get_cache_key", "__wrapped__", "_memoized"):
            return getattr(self.memoized, name)
        return async_to_sync(getattr(self.memoized, f"a{name}"))

    def warm(self, items: Any) -> Any:
        async def collect() -> list[Any]:
            return [step async for step in self.memoized.awarm(items)]

        return async_to_sync(collect)()

    def many(self, function: Any) -> Any:
        async def twin(*args: Any) -> Any:
            return function(*args)

        self.memoized.many(twin)
        return function


_numbers = itertools.count()


class World:
    """Where a test happens. ``memoize(...)`` is the decorator there."""

    def __init__(self, alias: str, kind: str) -> None:
        self.alias = alias
        self.kind = kind
        self.clock = FakeClock()

    @property
    def cache(self) -> Any:
        return caches[self.alias]

    def memoize(self, *args: Any, **options: Any) -> Callable[[Any], Any]:
        options.setdefault("cache_alias", self.alias)
        options.setdefault("_clock", self.clock)
        queries = options.pop("queries", False)  # then not in the thread of the loop

        def decorate(function: Any) -> Any:
            # Many tests use one factory; what it captures cannot be part of a key.
            options.setdefault("prefix", f"{function.__name__}{next(_numbers)}")
            if self.kind == "sync":
                return cache_memoize(*args, **options)(function)

            async def twin(*a: Any, **k: Any) -> Any:
                return (
                    await sync_to_async(function)(*a, **k)
                    if queries
                    else function(*a, **k)
                )

            twin.__qualname__ = function.__qualname__
            twin.__wrapped__ = function
            return Caller(cache_memoize(*args, **options)(twin))

        return decorate

    def invalidate_tags(self, *tags: str) -> None:
        if self.kind == "sync":
            invalidate_tags(*tags, cache_alias=self.alias)
        else:
            async_to_sync(ainvalidate_tags)(*tags, cache_alias=self.alias)

    def raw(self, key: str) -> Any:
        """The record under a key, whatever it is."""
        return record.parse(self.cache.get(key))


def counted(world: World, timeout: Any = 60, **options: Any) -> tuple[Any, list[Any]]:
    """A memoized function that gives the number of its run, and its runs."""
    runs: list[Any] = []

    def function(x: Any = 0) -> int:
        runs.append(x)
        return len(runs)

    return world.memoize(timeout, **options)(function), runs


@pytest.fixture(scope="session")
def servers() -> Iterator[Callable[[str], Any]]:
    def start(name: str) -> Any:
        need(name)
        SERVERS[name].start()
        return SERVERS[name]

    yield start
    close_connections()
    # Django's caches for Redis have no close(): their pools end with the process.
    for each in gc.get_objects():
        if issubclass(type(each), redis.ConnectionPool):  # not of lazy objects
            each.disconnect()
    for server in SERVERS.values():
        server.stop()


@pytest.fixture(scope="session")
def django_db_modify_db_settings(
    request: Any, servers: Any, django_db_modify_db_settings_xdist_suffix: None
) -> None:
    if "postgresql" in settings.DATABASES:
        servers("postgresql")
    # MariaDB takes longer to make: only where a test names it.
    marks = (
        m for item in request.session.items for m in item.iter_markers("django_db")
    )
    if any("mariadb" in (mark.kwargs.get("databases") or ()) for mark in marks):
        servers("mariadb")


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    with django_db_blocker.unblock():
        for database in ALL_DATABASES:
            call_command("createcachetable", database=database, verbosity=0)
    yield


@pytest.fixture
def backend(request: Any, servers: Any) -> Iterator[str]:
    """The alias of an empty cache that works."""
    alias = request.param
    if BACKENDS.get(alias):
        servers(BACKENDS[alias])
    if alias in PYLIBMC:
        need("pylibmc")
    if alias in DATABASES:
        request.getfixturevalue("transactional_db")
    caches[alias].clear()
    yield alias
    caches[alias].clear()


@pytest.fixture
def world(kind_of_world: str, backend: str) -> World:
    return World(backend, kind_of_world)


def pytest_addoption(parser: Any) -> None:
    parser.addoption(
        "--full",
        action="store_true",
        help="every backend and every trial; what is missing is a failure, not a skip",
    )
    parser.addoption(
        "--rest",
        action="store_true",
        help="like --full, without the tests that would run the same without it",
    )
    parser.addoption(
        "--need-all",
        action="store_true",
        help="what is missing is a failure, not a skip",
    )
    parser.addoption(
        "--screenshots", action="store_true", help="renew the pictures of the docs"
    )


def do_not_sync(connection: Any, **kwargs: Any) -> None:
    """Let SQLite not wait for the disk: no test ends the machine."""
    if connection.vendor == "sqlite":
        connection.connection.execute("PRAGMA synchronous = OFF")


def pytest_configure(config: Any) -> None:
    connection_created.connect(do_not_sync)
    # The app tells the figures from a thread; who tests that adds it again.
    reporter.remove(sitewide.tell)
    if config.getoption("--full") or config.getoption("--rest"):
        os.environ[FULL] = os.environ[NEED_ALL] = "1"
    if config.getoption("--need-all"):
        os.environ[NEED_ALL] = "1"
    # A shell has its background jobs ignore it, and so would the processes of tests.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        for server in map(SERVERS.get, SHARED_SERVERS):
            if server.binary and (is_full() or server.name != "mariadb"):
                server.start()
                os.environ[server.variable] = str(server.port)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Have one worker more than cores: many tests wait for servers and processes."""
    return (os.cpu_count() or 1) + 1


def pytest_unconfigure(config: Any) -> None:
    for name in SHARED_SERVERS:
        SERVERS[name].stop()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    for line in gaps():
        terminalreporter.line(line)


def how_many(number: int) -> int:
    """Examples or trials: a tenth of them if ``--full`` is not given."""
    return number if is_full() else max(number // 10, 5)


def example_settings(number: int) -> hypothesis.settings:
    """At most ``number`` examples of a property, the same ones in every run."""
    return hypothesis.settings(
        max_examples=how_many(number),
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
    )


def examples(number: int) -> Callable[[T], T]:
    """Decorate a property with the number of its examples."""
    return lambda test: pytest.mark.grows(example_settings(number)(test))


def pytest_collection_modifyitems(config: Any, items: list[Any]) -> None:
    if config.getoption("--rest"):
        only = ("thorough", "grows")
        items[:] = [i for i in items if any(map(i.get_closest_marker, only))]
    elif not is_full():
        items[:] = [i for i in items if not i.get_closest_marker("thorough")]


def pytest_collection_finish() -> None:
    """Spare the garbage collector what stays until the end: modules and tests."""
    gc.collect()
    gc.freeze()


def pytest_generate_tests(metafunc: Any) -> None:
    if "backend" not in metafunc.fixturenames:
        return
    marker = metafunc.definition.get_closest_marker("backends")
    names = [n for n in (marker.args[0] if marker else BACKENDS) if n in BACKENDS]
    lean = marker.kwargs.get("lean", LEAN) if marker else LEAN
    lean = [name for name in names if name in {*lean} - {*NODES}] or names[:1]
    if "kind_of_world" in metafunc.fixturenames:
        some = [name for name in names if name in ASYNC] or names[:1]
        few = [name for name in lean if name in LEAN_ASYNC] or lean[:1]
        worlds = [*_on(names, lean, "sync"), *_on(some, few, "async")]
        metafunc.parametrize("kind_of_world, backend", worlds, indirect=["backend"])
    else:
        metafunc.parametrize("backend", list(_on(names, lean)), indirect=True)


def _on(names: list[str], lean: list[str], *kind: str) -> Iterator[Any]:
    """Yield a parameter for each name, or only for the lean ones without ``--full``."""
    for name in names:
        # Marked here, at collection: that is when pytest-django sees which databases
        # are wanted.
        marks = [_ON_DATABASES] if name in DATABASES else []
        if name not in lean:
            marks.append(pytest.mark.thorough)
        if is_full() or name in lean:
            yield pytest.param(*kind, name, marks=marks)


@pytest.fixture(autouse=True)
def nothing_left_behind(
    request: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """The invariant after every test: no lease in the cache, no thread of ours."""
    if "backend" in request.fixturenames:  # it is cleared after this, not before
        request.getfixturevalue("backend")
    threads = set(threading.enumerate())
    written: set[tuple[str, str]] = set()
    command = Store._command

    async def remember(self: Store, name: str, key: Any, *args: Any) -> Any:
        result = await command(self, name, key, *args)
        if not name.startswith("read"):
            written.add((self.alias, key))
        return result

    monkeypatch.setattr(Store, "_command", remember)
    monkeypatch.setattr("cache_memoize.model_signals._late", {})
    monkeypatch.setattr("cache_memoize.process._logged", {})
    monkeypatch.setattr(planning, "_by_distinction", WeakValueDictionary())
    monkeypatch.setattr(planning, "checked_aliases", set(caches.settings))
    yield
    assert pool.join(), "a refresh in the background has not ended"
    for one in breaker._breakers.values():
        one.__init__()  # closed, for the next test
    if request.node.get_closest_marker("leaves_lease"):
        return
    for alias, key in written:
        if alias not in caches.settings:  # it was there for this test only
            continue
        there = record.parse(caches[alias].get(key))
        assert there is None or there.kind not in record.LEASES, (alias, key, there)
    alive = set(threading.enumerate()) - threads
    # asgiref keeps its workers; what others started may need a moment to end.
    ours = [t for t in alive if "ThreadPoolExecutor" not in t.name]
    for thread in ours:
        thread.join(5)
    assert not [t for t in ours if t.is_alive()], alive


@pytest.fixture(autouse=True)
def no_function_of_another_test_depends_on_tables(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tables, "_declared", set())


@pytest.fixture(autouse=True)
def a_busy_machine_is_no_slow_cache(
    request: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commands that take over a second here are no fault of the server's."""
    if not request.node.get_closest_marker("slow_server"):
        monkeypatch.setattr("cache_memoize.cache.store.SLOW", 60.0)


@pytest.fixture(autouse=True)
def close_other_threads_connections() -> Iterator[None]:
    yield
    for connection in connections.all(initialized_only=True):
        if connection.alias == "postgresql":
            connection.close()


MODEL_SIGNALS = [
    *(django_signals.class_prepared, django_signals.m2m_changed),
    *(django_signals.pre_save, django_signals.post_save),
    *(django_signals.pre_delete, django_signals.post_delete),
]


@pytest.fixture
def no_registrations(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """End the registrations on models with the test."""
    for name in ("_registered", "_abstract", "_unresolved", "_connected"):
        monkeypatch.setattr(model_signals, name, type(getattr(model_signals, name))())
    for each in MODEL_SIGNALS:
        monkeypatch.setattr(each, "receivers", list(each.receivers))
        each.sender_receivers_cache.clear()
    yield
    monkeypatch.undo()
    for each in MODEL_SIGNALS:
        each.sender_receivers_cache.clear()
