"""The cache fails, and the function answers all the same. Real servers, really gone."""

from __future__ import annotations

import asyncio
import os
import pickle
import re
import signal
import sys
import threading
import types
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from asgiref.sync import async_to_sync, sync_to_async
from django.core.cache import InvalidCacheBackendError, caches
from django.core.cache.backends.base import InvalidCacheKey
from django.core.cache.backends.locmem import LocMemCache
from django.db import connection, transaction
from django.test import override_settings

from cache_memoize import CacheDidNotAnswer, cache_memoize
from cache_memoize.cache import (
    breaker,
    connections,
    record,
    store,
)
from tests.conftest import FakeClock, World, close_connections, plan_of
from tests.needs import need
from tests.servers import SERVERS

pytestmark = pytest.mark.slow_server

SERVER_OF = {
    "django": ("valkey", "django.core.cache.backends.redis.RedisCache"),
    "django_redis": ("redis", "django_redis.cache.RedisCache"),
    "pymemcache": (
        "memcached",
        "django.core.cache.backends.memcached.PyMemcacheCache",
    ),
    "pylibmc": ("memcached", "django.core.cache.backends.memcached.PyLibMCCache"),
}


@pytest.fixture(params=list(SERVER_OF))
def mortal(request):
    """A server of this test alone, and the settings of a cache on it."""
    name, backend = SERVER_OF[request.param]
    need(name)
    if request.param == "pylibmc":
        need("pylibmc")
    server = SERVERS[name].another()
    server.start()
    is_redis = name != "memcached"
    location = f"redis://127.0.0.1:{server.port}" if is_redis else None
    options = {
        "django": {"socket_timeout": 0.3, "socket_connect_timeout": 0.3},
        "django_redis": {"SOCKET_TIMEOUT": 0.3, "SOCKET_CONNECT_TIMEOUT": 0.3},
        "pymemcache": {"timeout": 0.3, "connect_timeout": 0.3},
        "pylibmc": {"behaviors": {"cas": True, "_poll_timeout": 300}},
    }[request.param]
    settings = {
        "BACKEND": backend,
        "LOCATION": location or f"127.0.0.1:{server.port}",
        "OPTIONS": options,
    }
    with override_settings(CACHES={"default": settings}):
        yield server
        close_connections()
    server.stop()


def numbers(**options):
    runs = []

    @cache_memoize(60, prefix="failures", _clock=options.pop("clock", None), **options)
    def function(x=0):
        runs.append(x)
        return len(runs)

    return function, runs


def test_a_server_that_is_killed_and_comes_back(mortal):
    """Callers see results; the breaker opens, tries again, and caching resumes."""
    clock = FakeClock()
    f, runs = numbers(clock=clock)
    assert f() == f() == 1
    mortal.stop()
    assert [f() for _ in range(20)] == list(range(2, 22))
    assert f.cache_info().breaker == "open"
    errors = f.cache_info().errors
    assert errors <= 8, "the breaker left the cache alone"
    with pytest.raises(Exception, match="(?s).*") as caught:
        f.invalidate()
    assert not isinstance(caught.value, AssertionError)
    clock.tick(6)
    assert f.cache_info().breaker == "half-open"
    f()
    assert f.cache_info().breaker == "open"
    mortal.start()
    for _ in range(10):  # clients have pauses of their own before they try again
        clock.tick(6)
        f()
        if f.cache_info().breaker == "closed":
            break
        threading.Event().wait(0.5)
    assert f.cache_info().breaker == "closed"
    assert f() == f()
    f.invalidate()


def test_a_server_that_hangs_costs_a_few_time_outs_in_all(mortal):
    f, runs = numbers()
    f()
    mortal.signal(signal.SIGSTOP)
    try:
        before = f.cache_info().errors
        assert [f() for _ in range(200)] == list(range(2, 202))
        assert f.cache_info().errors - before <= 3
        assert f.cache_info().breaker == "open"
    finally:
        mortal.signal(signal.SIGCONT)


def test_settings_can_have_the_error_raised(mortal):
    f, runs = numbers()
    f()
    mortal.stop()
    with override_settings(CACHE_MEMOIZE={"ON_ERROR": "raise"}):
        for call in (f, f.refresh):
            with pytest.raises(Exception, match="(?s).*"):
                call()
    assert runs == [0]


def test_prime_and_peek_on_a_dead_server_log_and_go_on(mortal, caplog):
    f, runs = numbers()
    f()
    mortal.stop()
    assert f.peek() is None
    f.prime(1)
    assert f.refresh() == 2
    assert f.cache_info().errors >= 1
    with pytest.raises(Exception, match="(?s).*"):
        f.invalidate()


#: By client of django-redis: the error of a lost invalidation. The library asks the
#: default one itself, below the object that hides errors.
LOST = pytest.mark.parametrize(
    "client, lost", [("DefaultClient", redis.RedisError), ("HerdClient", None)]
)


@LOST
def test_a_client_that_hides_errors_does_not_hide_a_lost_invalidation(
    servers, client, lost
):
    server = servers("redis")
    settings = {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": f"redis://127.0.0.1:{server.port}/2",
        "OPTIONS": {
            "IGNORE_EXCEPTIONS": True,
            "CLIENT_CLASS": f"django_redis.client.{client}",
        },
    }
    with override_settings(CACHES={"default": settings}):
        f, runs = numbers(clock=FakeClock())
        f()
        dead = {**settings, "LOCATION": "redis://127.0.0.1:1/2"}
        with override_settings(CACHES={"default": dead}):
            assert [f() for _ in range(5)] == [2, 3, 4, 5, 6]
            assert f.cache_info().breaker == "open"
            with raises_lost(f, lost):
                f.invalidate()
        f.invalidate()


def raises_lost(f, lost):
    if lost is None:
        return pytest.raises(CacheDidNotAnswer, match=lost_by(f))
    return pytest.raises(lost)


def lost_by(f):
    """What is said of an invalidation that got lost: whose, and what to do."""
    name = re.escape(f._memoized.name)
    return f"^{name}: the cache 'default' .* call invalidate.. again"


@LOST
def test_a_read_only_server_behind_a_client_that_hides_errors(servers, client, lost):
    """The old value can still be read: that must not pass for an invalidation."""
    server = servers("redis")
    settings = {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": f"redis://127.0.0.1:{server.port}/{4 if lost is None else 3}",
        "OPTIONS": {
            "IGNORE_EXCEPTIONS": True,
            "CLIENT_CLASS": f"django_redis.client.{client}",
        },
    }
    client = redis.Redis(port=server.port)
    with override_settings(CACHES={"default": settings}):
        f, runs = numbers()
        assert f() == f() == 1
        client.replicaof("127.0.0.1", 1)
        try:
            with raises_lost(f, lost):
                f.invalidate()
        finally:
            client.replicaof("NO", "ONE")
            client.close()
        f.invalidate()
        assert f() == 2


def test_a_full_server_is_not_an_outage(servers):
    server = servers("valkey")
    client = redis.Redis(port=server.port)
    f, runs = numbers(cache_alias="valkey")
    assert f() == f() == 1
    client.config_set("maxmemory", 1)
    client.config_set("maxmemory-policy", "noeviction")
    try:
        assert f() == 1, "what is there can be read"
        assert f(1) == 2 and f(1) == 3
        f.invalidate()
    finally:
        client.config_set("maxmemory", 0)
        client.close()
    breaker.breaker_of("valkey").__init__()
    assert f() == 4 == f()
    f.invalidate(), f.invalidate(1)


@pytest.mark.backends(["pymemcache", "pylibmc", "pylibmc_without_cas"])
def test_two_megabytes_on_memcached_are_returned_uncached(backend, caplog):
    """Once warned, the key freed, the breaker closed: the value is at fault."""

    @cache_memoize(60, prefix="big", cache_alias=backend)
    def function(size):
        return b"x" * size

    for _ in range(4):
        assert len(function(2_000_000)) == 2_000_000
    assert function(1) == function(1)
    assert function.cache_info().hits == 1
    assert caplog.text.count("the cache did not take the result") <= 1


class ChaosCache(LocMemCache):
    """Local memory whose every use can be made to fail, hang or answer slowly."""

    trouble: Exception | None = None

    def make_and_validate_key(self, key, version=None):
        if ChaosCache.trouble is not None:
            raise ChaosCache.trouble
        return super().make_and_validate_key(key, version)


CHAOS = {"default": {"BACKEND": "tests.test_failures.ChaosCache", "LOCATION": "chaos"}}


@pytest.fixture
def chaos():
    with override_settings(CACHES=CHAOS):
        yield ChaosCache
        ChaosCache.trouble = None
        caches["default"].clear()


@pytest.fixture(params=["sync", "async"])
def anywhere(request, chaos):
    return World("default", request.param)


TROUBLES = [
    ConnectionError("down"),
    TimeoutError("slow"),
    OSError("disk"),
    RuntimeError("whatever"),
]


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda t: type(t).__name__)
def test_trouble_before_the_call(anywhere, chaos, caplog, trouble):
    f = anywhere.memoize(60)(lambda x=0: x)
    chaos.trouble = trouble
    assert f(1) == 1
    assert "the cache failed before the call" in caplog.text
    assert f.refresh(1) == 1
    assert f.peek(1) is None
    f.prime(5, 1)
    with pytest.raises(type(trouble)):
        f.invalidate(1)
    chaos.trouble = None


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda t: type(t).__name__)
def test_trouble_after_the_call(anywhere, chaos, caplog, trouble):
    def function(x=0):
        chaos.trouble = trouble
        return x

    f = anywhere.memoize(60)(function)
    assert f(1) == 1
    assert "the cache did not take the result" in caplog.text
    chaos.trouble = None
    f.invalidate(1)


def test_trouble_while_freeing_the_key_leaves_the_functions_own_error(anywhere, chaos):
    def function():
        chaos.trouble = ConnectionError("down")
        raise ValueError("mine")

    f = anywhere.memoize(60)(function)
    with pytest.raises(ValueError, match="mine"):
        f()
    chaos.trouble = None
    f.invalidate()


def test_a_time_out_opens_the_breaker_at_once_and_one_caller_tries(anywhere, chaos):
    f = anywhere.memoize(60)(lambda: 1)
    chaos.trouble = TimeoutError("slow")
    f()
    assert f.cache_info().breaker == "open"
    chaos.trouble = None
    assert f() == 1
    assert f.cache_info()[:6] == (0, 2, 0, 1, 0.0, "open"), "left alone"
    anywhere.clock.tick(6)
    assert f.cache_info().breaker == "half-open"
    f()
    assert f.cache_info().breaker == "closed"
    assert f.peek().value == 1


@pytest.mark.parametrize("times, state", [(1, "closed"), (2, "open")])
def test_two_answers_that_take_more_than_a_second_count_as_hanging(
    anywhere, chaos, times, state
):
    f = anywhere.memoize(60)(lambda: 1)
    ticks = iter([0, *[2] * times])

    def slow(self, key, version=None):
        anywhere.clock.tick(next(ticks, 0))
        return LocMemCache.make_and_validate_key(self, key, version)

    original = ChaosCache.make_and_validate_key
    ChaosCache.make_and_validate_key = slow
    try:
        assert f() == 1
    finally:
        ChaosCache.make_and_validate_key = original
    assert f.cache_info().breaker == state
    f.invalidate()


def test_mistakes_in_the_project_do_not_pass_for_outages(world_of_mistakes):
    world = world_of_mistakes
    f = world.memoize(60, cache_alias="nowhere")(lambda: 1)
    for call in (f, f.refresh, f.peek, f.invalidate):
        with pytest.raises(InvalidCacheBackendError, match="nowhere"):
            call()
    with pytest.raises(InvalidCacheBackendError, match="nowhere"):
        f.prime(1)


@pytest.mark.backends(["pymemcache"])
def test_a_generated_key_that_memcached_refuses_is_a_mistake_too(world):
    f = world.memoize(60, key_generator_callable=lambda: "with space")(lambda: 1)
    for call in (f, f.refresh, f.peek, f.invalidate):
        with pytest.raises(InvalidCacheKey):
            call()
    with pytest.raises(InvalidCacheKey):
        f.prime(1)


@pytest.fixture(params=["sync", "async"])
def world_of_mistakes(request):
    return World("locmem", request.param)


def test_a_mistake_made_after_the_call_is_one_too(world_of_mistakes):
    """The alias vanishes while the function runs."""
    world = world_of_mistakes
    f = world.memoize(60)(lambda: vanish.enable() or 1)
    vanish = override_settings(CACHES={"default": {"BACKEND": LOCMEM}})
    try:
        with pytest.raises(InvalidCacheBackendError):
            f()
    finally:
        vanish.disable()
    caches["locmem"].clear()


LOCMEM = "django.core.cache.backends.locmem.LocMemCache"


def test_before_the_apps_are_ready_calls_compute_and_store_nothing(
    world_of_mistakes, monkeypatch
):
    from django.apps import apps

    world = world_of_mistakes
    runs = []
    f = world.memoize(60)(lambda: runs.append(1))
    monkeypatch.setattr(apps, "ready", False)
    f(), f(), f.refresh()
    assert len(runs) == 3
    monkeypatch.setattr(apps, "ready", True)
    assert f.peek() is None


def test_without_any_settings_a_call_computes():
    import subprocess

    script = (
        "from cache_memoize import cache_memoize\n"
        "@cache_memoize(60)\n"
        "def f(): return 1\n"
        "assert f() == f() == 1"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_the_dummy_cache_simply_computes(kind):
    world = World("dummy", kind)
    runs = []
    f = world.memoize(60)(lambda: runs.append(1))
    f(), f(), f.refresh(), f.invalidate(), f.prime(1)
    assert f.peek() is None
    assert len(runs) == 3
    assert world.clock.sleeps == []
    assert f.cache_info().errors == 0


# --- classes that change, threads that share -----------------------------------------


class Renamed:
    pass


@pytest.mark.backends(["locmem", "valkey", "pymemcache", "postgresql", "file"])
def test_a_class_that_was_renamed_is_computed_anew(world, monkeypatch):
    module = types.ModuleType("vanishing")
    module.Renamed = type("Renamed", (), {"__module__": "vanishing"})
    monkeypatch.setitem(sys.modules, "vanishing", module)
    results = [module.Renamed(), "new"]
    f = world.memoize(60)(lambda: results.pop(0))
    f()
    del module.Renamed
    assert f.peek() is None
    assert f() == "new" == f()


class Moody:
    def __init__(self):
        self.mood = 1

    def __setstate__(self, state):
        raise RuntimeError("not today")


@pytest.mark.backends(["locmem", "valkey", "pymemcache"])
def test_a_setstate_that_raises_is_computed_anew(world):
    results = [Moody(), "new"]
    f = world.memoize(60)(lambda: results.pop(0))
    f()
    assert f() == "new" == f()


@pytest.mark.backends(["locmem", "valkey", "redis", "django_redis", "file"])
def test_a_foreign_pickle_that_cannot_be_loaded_is_overwritten(world):
    f = world.memoize(60)(lambda: 1)
    key = world.cache.make_key(f.get_cache_key())
    broken = pickle.dumps(Renamed())[:-5]
    if world.alias == "locmem":
        world.cache.set(f.get_cache_key(), 1)
        world.cache._cache[key] = broken
    elif world.alias == "file":
        world.cache.set(f.get_cache_key(), 1)
        from pathlib import Path

        path = Path(world.cache._key_to_file(f.get_cache_key()))
        path.write_bytes(path.read_bytes()[:-3])
    elif world.alias == "django_redis":
        world.cache.client.get_client(write=True).set(key, broken)
    else:
        world.cache._cache.get_client(None, write=True).set(key, broken)
    assert f.peek() is None
    assert f() == 1
    assert f.peek().value == 1


@pytest.mark.backends(["pymemcache"])
def test_what_pymemcache_shows_as_nothing_is_overwritten_too(world):
    """It turns pickles that it cannot load into None, while the key stays taken."""
    f = world.memoize(60)(lambda: 1)
    key = world.cache.make_key(f.get_cache_key())
    world.cache._cache.set(key, b"no pickle", flags=1, noreply=False)
    assert f() == 1
    assert f.peek().value == 1
    assert f.cache_info().errors == 0


@pytest.mark.backends(["pymemcache", "pylibmc"])
def test_no_client_is_used_by_two_threads(backend):
    """Contexts travel into threads, and Django's cache objects with them."""

    @cache_memoize(60, prefix="shared", cache_alias=backend)
    def function(x):
        return x

    caches[backend].get("so-that-this-context-has-a-client")
    wrong, number = [], 8
    all_of_them = threading.Barrier(number)

    def close():
        all_of_them.wait(30)  # so that each thread does it
        close_connections()

    async def main(pool):
        def in_pool(function):
            return sync_to_async(function, thread_sensitive=False, executor=pool)

        async def one(x):
            for _ in range(20):
                got = await in_pool(function)(x)
                if got != x:
                    wrong.append((x, got))

        await asyncio.gather(*(one(x) for x in range(60)))
        await asyncio.gather(*(in_pool(close)() for _ in range(number)))

    with ThreadPoolExecutor(number) as pool:
        asyncio.run(main(pool))
    assert wrong == []


# --- the database as a cache, inside a transaction of the user's ----------------------


@pytest.mark.backends(["postgresql", "sqlite"])
def test_an_error_of_the_cache_leaves_the_users_transaction_alone(backend):
    from tests.conftest import DATABASES
    from tests.models import Post

    database = DATABASES[backend]

    @cache_memoize(60, prefix="atomic", cache_alias=backend)
    def function():
        return 1

    with transaction.atomic(using=database):
        post = Post.objects.using(database).create(title="kept")
        assert function() == 1 == function()
        function.invalidate()
        function.prime(3)  # for everybody, so not before the commit
        assert function() == 1
    assert Post.objects.using(database).get(pk=post.pk).title == "kept"
    function.invalidate()


@pytest.mark.backends(["sqlite"])
def test_a_queryset_is_evaluated_once_and_a_hit_runs_no_query(
    world, django_assert_num_queries
):
    from tests.models import Post

    Post.objects.create(title="one")

    def function():
        return Post.objects.order_by("pk")

    f = World("locmem", world.kind).memoize(60)(function)
    found = f()
    with django_assert_num_queries(0, connection=connection):
        assert [post.title for post in found] == ["one"]
        assert [post.title for post in f()] == ["one"]


def test_an_unreadable_first_answer_of_the_wrapper_is_a_miss(world_of_mistakes):
    f = world_of_mistakes.memoize(60)(lambda: 1)
    caches["locmem"].set(f.get_cache_key(), record.pack(record.LEASE, b"t" * 8)[:20])
    assert f() == 1
    assert f.peek().value == 1


def test_the_sync_store_is_finished_at_once():
    from cache_memoize.cache.store import run

    @types.coroutine
    def suspended():
        yield

    async def flow():
        await suspended()

    with pytest.raises(RuntimeError, match="was suspended"):
        run(flow())
    assert issubclass(store.AsyncStore, store.Store)
    assert async_to_sync(store.AsyncStore.sleep) and callable(connections.afetch)


def test_priming_before_the_apps_are_ready_stores_nothing(
    world_of_mistakes, monkeypatch
):
    from django.apps import apps

    f = world_of_mistakes.memoize(60)(lambda: 1)
    monkeypatch.setattr(apps, "ready", False)
    f.prime(5)
    monkeypatch.setattr(apps, "ready", True)
    assert f.peek() is None


# --- what is under our keys and is not ours ------------------------------------------


@pytest.mark.parametrize("foreign", [{"a": 1}, [1], None, b"x" * 40])
@pytest.mark.parametrize("tags", [None, "t"])
def test_foreign_values_are_healed_by_calls_and_refreshes(world, foreign, tags):
    runs = []
    f = world.memoize(60, tags=tags)(lambda: runs.append(1) or len(runs))
    for call in (f, f.refresh):
        world.cache.set(f.get_cache_key(), foreign, 60)
        assert call() == len(runs)
        assert f() == len(runs)
    assert len(runs) == 2
    assert f.cache_info().errors == 0
    assert f.cache_info().breaker == "closed"


@pytest.mark.backends(["valkey", "redis", "django_redis"])
def test_another_type_of_redis_under_a_key_is_healed(world):
    runs = []
    f = world.memoize(60)(lambda: runs.append(1) or len(runs))
    key = f.get_cache_key()
    client = backend_client(world)
    for call in (f, f.refresh):
        client.delete(world.cache.make_key(key))
        client.rpush(world.cache.make_key(key), "a", "list")
        assert call() == len(runs) == f()
    assert f.cache_info().breaker == "closed"


def backend_client(world):
    if hasattr(world.cache, "client"):
        return world.cache.client.get_client(write=True)
    return world.cache._cache.get_client(None, write=True)


@pytest.mark.backends(["locmem", "valkey", "pymemcache"])
def test_a_clock_that_is_set_back_does_not_make_values_live_longer(world, monkeypatch):
    asked = []
    command = store.Store._command

    def noting(self, name, *args):
        if name == "swap":
            asked.append(args[-1])
        return command(self, name, *args)

    monkeypatch.setattr(store.Store, "_command", noting)

    def function():
        world.clock.tick(-600)
        return 1

    f = world.memoize(60, stale=10)(function)
    f()
    world.clock.tick(590)
    f.refresh()
    assert max(asked) <= 70


@pytest.mark.backends(["pymemcache", "pylibmc", "django_redis"])
def test_a_block_that_somebody_deletes_is_written_again(backend, monkeypatch):
    """It is no sign of a server that keeps nothing."""
    from cache_memoize.cache.store import run
    from cache_memoize.protocol.invalidation import _mark

    world = World(backend, "sync")
    f = world.memoize(60)(lambda: 1)
    one, key = plan_of(f).store, f.get_cache_key()
    one.backend().swallows or pytest.skip("says so by itself")
    deleted = []
    original = type(one).add

    async def vanishing(self, key, new, seconds):
        if not deleted:
            deleted.append(1)
            return False  # another block was deleted before this one could look
        return await original(self, key, new, seconds)

    monkeypatch.setattr(type(one), "add", vanishing)
    run(_mark(one, "f", key, adds=frozenset([b"a token."]), seconds=10))
    assert world.raw(key).kind == record.BLOCK
    world.cache.delete(key)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
@pytest.mark.backends(["pymemcache", "pylibmc", "pylibmc_without_cas", "valkey"])
def test_children_of_a_server_that_has_called_already_have_sockets_of_their_own(
    backend,
):
    @cache_memoize(60, prefix="preloaded", cache_alias=backend)
    def function(x):
        return x

    assert [function(n) for n in range(20)] == list(range(20))
    children = []
    for _ in range(3):
        child = os.fork()
        if child == 0:
            wrong = sum(function(n % 20) != n % 20 for n in range(400))
            os._exit(min(wrong, 99))
        children.append(child)
    assert all(function(n % 20) == n % 20 for n in range(400))
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]


def test_prime_when_the_cache_fails_in_the_middle(anywhere, chaos, caplog):
    f = anywhere.memoize(60)(lambda: 1)
    original = type(plan_of(f).store).swap

    async def fail(self, *args):
        raise ConnectionError("away")

    for cls in (store.Store, store.AsyncStore):
        cls.swap = fail
    try:
        f.prime(5)
    finally:
        store.Store.swap = original
        del store.AsyncStore.swap
    assert "prime() could not store the value" in caplog.text
    anywhere.cache.clear()


def test_what_a_parent_had_is_left_alone_after_a_fork():
    before = connections._thread
    before.has.own["theirs"] = object()
    try:
        connections._after_fork()
        assert connections._thread.has.own == {}
        assert "theirs" in connections._parents[-1].own
    finally:
        del before.has.own["theirs"]
        connections._thread = before
        connections._parents.clear()


def test_a_key_that_is_refused_after_the_call_is_raised(anywhere, monkeypatch):
    """A mistake in the project, which must not pass for an outage."""

    async def refuse(self, *args):
        raise InvalidCacheKey("refused")

    f = anywhere.memoize(60)(lambda: 1)
    monkeypatch.setattr(store.Store, "swap", refuse)
    with pytest.raises(InvalidCacheKey):
        f()
    monkeypatch.undo()
    anywhere.cache.clear()


def test_if_the_breaker_opens_during_a_computation_its_result_is_offered_once(
    anywhere, monkeypatch
):
    """Other callers may be waiting for it."""
    commands = []

    def function():
        breaker.breaker_of(anywhere.alias).failure(0.0, hanging=True)
        command = store.Store._command
        monkeypatch.setattr(
            store.Store, "_command", lambda s, *a: commands.append(a) or command(s, *a)
        )
        return 1

    f = anywhere.memoize(60)(function)
    assert f() == 1
    assert [command for command, *_ in commands] == ["swap"]
    monkeypatch.undo()
    anywhere.cache.clear()
