"""Awaited commands on Redis and Valkey: one connection for all tasks of a loop."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import tempfile
import threading
import time
from pathlib import Path

import pytest
import redis
import valkey
from asgiref.sync import async_to_sync, sync_to_async
from django.conf import settings
from django.core.cache import caches
from django.core.cache.backends.redis import RedisCache
from django.test import override_settings
from django_redis.client import DefaultClient

from cache_memoize import cache_memoize
from cache_memoize.cache import connections, multiplexed, record, store
from cache_memoize.cache.breaker import Breaker
from cache_memoize.cache.redis import Awaited
from cache_memoize.cache.store import AsyncStore
from cache_memoize.clock import Clock
from cache_memoize.process import LoopStandstill
from tests.conftest import close_connections
from tests.needs import need
from tests.proxy import Proxy
from tests.servers import SERVERS

DJANGO = "django.core.cache.backends.redis.RedisCache"
DJANGO_REDIS = "django_redis.cache.RedisCache"
DJANGO_VALKEY = "django_valkey.cache.ValkeyCache"


def on(location, backend=DJANGO, **settings):
    """Settings with this cache alone."""
    if isinstance(location, int):
        scheme = "valkey" if backend == DJANGO_VALKEY else "redis"
        location = f"{scheme}://127.0.0.1:{location}"
    cache = {"BACKEND": backend, "LOCATION": location, **settings}
    return override_settings(CACHES={"default": cache})


@pytest.fixture
def server():
    """A server of this test alone."""
    need("valkey")
    server = SERVERS["valkey"].another()
    server.start()
    yield server
    close_connections()
    server.stop()


@pytest.fixture
def own(server):
    with on(server.port, OPTIONS={"socket_timeout": 0.5}):
        yield server
        close_connections()


def clients(server):
    """The ids of the connections to a server, but for those that ask."""
    with redis.Redis(port=server.port, client_name="asks") as asking:
        return {c["id"] for c in asking.client_list() if c["name"] != "asks"}


def until(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        gc.collect()
        time.sleep(0.01)


def doubled(**options):
    @cache_memoize(60, prefix="awaited", **options)
    async def function(x):
        return 2 * x

    return function


def client():
    found = connections.awaited("default")
    assert isinstance(found, Awaited)
    return found


# --- one connection ------------------------------------------------------------------


@pytest.mark.parametrize("start", ["_start", "_start_soon"])  # as Python 3.11
def test_200_at_once_share_a_connection_and_leave_no_task(own, monkeypatch, start):
    monkeypatch.setattr(multiplexed, "_start", getattr(multiplexed, start))
    f = doubled(tags="t")

    async def main():
        for _ in range(2):
            assert await asyncio.gather(*map(f, range(200))) == [*range(0, 400, 2)]
        assert len(clients(own)) == 1
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())
    assert f.cache_info()[:2] == (200, 200)
    until(lambda: not clients(own))


def test_the_first_commands_of_a_loop_go_through_the_thread(own, monkeypatch):
    """A loop of async_to_sync() has no more, and would connect for each call."""
    monkeypatch.setattr(Awaited, "FIRST", 3)
    f = doubled()

    async def main():
        await f(0)  # get, add, swap
        assert len(clients(own)) == 1
        await f(0)
        assert len(clients(own)) == 2

    async_to_sync(main)()
    before = clients(own)
    assert [async_to_sync(f)(0) for _ in range(5)] == [0] * 5
    assert clients(own) == before


def test_two_runs_and_a_loop_that_ends_without_closing_leave_no_connection(own):
    f = doubled()
    assert [asyncio.run(f(x)) for x in (1, 2, 1)] == [2, 4, 2]
    until(lambda: not clients(own))
    loop = asyncio.new_event_loop()
    assert loop.run_until_complete(f(3)) == 6
    assert len(clients(own)) == 1
    loop.close()
    assert asyncio.run(f(3)) == 6
    with pytest.warns(ResourceWarning):  # as of all that was left open in that loop
        until(lambda: not clients(own))


def test_two_loops_in_two_threads_have_a_connection_each(own):
    f, both = doubled(), threading.Barrier(3)

    async def main():
        assert await f(1) == 2
        await asyncio.to_thread(both.wait)
        await asyncio.to_thread(both.wait)

    def run():
        asyncio.run(main())

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    both.wait(30)
    assert len(clients(own)) == 2
    both.wait(30)
    for thread in threads:
        thread.join()
    until(lambda: not clients(own))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_fork_leaves_the_parent_its_connection(own):
    f, loop = doubled(), asyncio.new_event_loop()
    assert loop.run_until_complete(f(1)) == 2
    before = clients(own)
    child = os.fork()
    if not child:
        right = False
        try:
            connections.opened("default")  # drops what the parent has
            gc.collect()
            right = asyncio.run(f(1)) == 2
        finally:
            os._exit(not right)
    assert os.waitpid(child, 0)[1] == 0
    assert loop.run_until_complete(f(1)) == 2
    assert clients(own) == before and f.cache_info()[:2] == (1, 1)
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


def test_other_settings_close_the_connection(own):
    async def main():
        await doubled()(1)
        with on(own.port, KEY_PREFIX="other"):
            await doubled()(1)
            until_one = time.monotonic() + 30
            while len(clients(own)) != 1:
                assert time.monotonic() < until_one
                await asyncio.sleep(0.01)
        return client()

    asyncio.run(main())


def test_a_key_that_cannot_be_sent_fails_alone(own):
    async def main():
        ask = client().ask
        first = ask("SET", "a", b"1")
        with pytest.raises(UnicodeEncodeError):
            ask("GET", "\ud800")
        assert await first == b"OK" and await ask("GET", "a") == b"1"

    asyncio.run(main())


def test_an_error_of_the_server_belongs_to_its_command(own):
    async def main():
        ask = client().ask
        asked = [ask("SET", "a", b"1"), ask("INCR", "a", "b"), ask("GET", "a")]
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert found[::2] == [b"OK", b"1"]
        assert isinstance(found[1], redis.ResponseError)
        with pytest.raises(redis.ResponseError, match="wrong number"):
            await client().get_many([])
        assert len(clients(own)) == 1

    asyncio.run(main())


@pytest.mark.parametrize("steps", range(12))
def test_a_caller_that_is_cancelled_harms_no_other(own, steps):
    """The answer to its command is read all the same, and is not another's."""

    async def main():
        await client().ask("MSET", "a", b"1", "b", b"2", "c", b"3")
        tasks = [asyncio.create_task(ask(key)) for key in "abcab"]
        for _ in range(steps):
            await asyncio.sleep(0)
        tasks[1].cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert found[:1] + found[2:] == [b"1", b"3", b"1", b"2"]
        assert found[1] == b"2" or isinstance(found[1], asyncio.CancelledError)
        assert await ask("c") == b"3"

    async def ask(key):
        return await client().ask("GET", key)

    asyncio.run(main())


@pytest.mark.parametrize("steps", range(0, 24, 2))
def test_a_call_that_is_cancelled_leaves_no_lease(own, steps):
    f = doubled()

    async def main():
        await f(0)  # connects
        task = asyncio.create_task(f(1))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        there = await sync_to_async(caches["default"].get)(f.get_cache_key(1))
        assert there is None or record.parse(there).kind not in record.LEASES
        assert await f(1) == 2

    asyncio.run(main())


# --- a server that goes, or hangs ----------------------------------------------------


def test_a_server_that_was_restarted(own):
    f = doubled()

    async def main():
        await f(1)
        own.signal(signal.SIGSTOP)
        flying = [client().ask("GET", "a") for _ in range(3)]
        await asyncio.sleep(0.01)  # they are written
        own.stop()
        for each in flying:
            with pytest.raises(redis.ConnectionError):
                await each
        with pytest.raises(redis.ConnectionError):
            await client().ask("GET", "a")
        assert await f(1) == 2 and f.cache_info().errors == 1
        own.start()
        assert await client().ask("GET", "a") is None
        own.stop()  # while no caller waits
        own.start()
        await asyncio.sleep(0.01)
        assert await client().ask("GET", "a") is None
        assert len(clients(own)) == 1

    asyncio.run(main())


def test_a_server_that_hangs_costs_one_time_out_and_opens_the_breaker(own):
    f = doubled(wait=0)

    async def main():
        await f(1)
        own.signal(signal.SIGSTOP)
        began = time.monotonic()
        assert await asyncio.gather(*map(f, range(9))) == [*range(0, 18, 2)]
        assert 0.5 <= time.monotonic() - began < 3
        assert f.cache_info().breaker == "open"
        own.signal(signal.SIGCONT)
        assert await client().ask("PING") == b"PONG"

    asyncio.run(main())


def test_a_loop_that_is_busy_reads_an_answer_late_and_no_time_out(own):
    async def main():
        await client().ask("PING")
        for _ in range(3):
            asked = client().ask("PING")
            await asyncio.sleep(0.01)
            time.sleep(0.8)  # longer than the time-out of the socket
            assert await asked == b"PONG"

    asyncio.run(main())


def test_without_a_time_out_none_is_measured(server):
    async def main():
        assert await client().ask("PING") == b"PONG"
        assert client()._connection._timer is None

    with on(server.port, OPTIONS={"socket_timeout": None}):
        asyncio.run(main())
        close_connections()


@pytest.mark.parametrize("broken", ["send_packed_command", "connect"])
def test_what_cannot_be_written_fails_and_the_next_command_connects(own, broken):
    async def main():
        await client().ask("PING")
        line = client()._connection

        async def fail(*args, **kwargs):
            raise redis.ConnectionError("broken")

        setattr(line._connection, broken, fail)
        if broken == "connect":
            await line._connection.disconnect()
        with pytest.raises(redis.ConnectionError, match="broken"):
            await client().ask("PING")
        assert line.closed and await client().ask("PING") == b"PONG"
        other = client()._connection
        asked = [client().ask("BLPOP", "none", 30)]
        await asyncio.sleep(0.01)
        setattr(other._connection, "send_packed_command", fail)
        asked.append(client().ask("PING"))
        for each in asked:
            with pytest.raises(redis.ConnectionError, match="broken"):
                await each

    asyncio.run(main())


def test_a_loop_that_ends_tells_those_that_wait(own):
    """A program may cancel all tasks, and those of its own go on for a while."""

    async def main():
        await client().ask("PING")
        asked = client().ask("BLPOP", "none", 30)
        await asyncio.sleep(0.01)
        client()._connection._reader.cancel()
        with pytest.raises(redis.ConnectionError, match="loop ends"):
            await asked

    asyncio.run(main())


# --- the commands of the protocol ----------------------------------------------------

SETTINGS = {
    "django": (DJANGO, {}),
    "RESP2": (DJANGO, {"protocol": 2}),
    "nonce": (DJANGO, {"serializer": "tests.test_backends.Nonce"}),
    "django_redis": (DJANGO_REDIS, {}),
    "django_valkey": (DJANGO_VALKEY, {}),
    "gzip": (
        DJANGO_REDIS,
        {"COMPRESSOR": "django_redis.compressors.gzip.GzipCompressor"},
    ),
}


if "django_valkey" not in settings.CACHES:  # which needs a newer Django
    del SETTINGS["django_valkey"]


@pytest.mark.parametrize("kind", ["valkey", "redis"])  # SET ... IFEQ, and a script
@pytest.mark.parametrize("name", SETTINGS)
def test_every_command_does_what_it_does_in_a_thread(servers, name, kind):
    backend, options = SETTINGS[name]
    port = servers(kind).port

    async def main():
        do = client().do
        direct = connections.Direct("default", *connections.opened("default"))
        threaded = sync_to_async(lambda *args: store.run(direct.do(*args)))
        assert await do("get", "a") is None
        assert await do("add", "a", b"1", 60) is True
        assert await do("add", "a", b"2", 60) is False
        assert await do("get", "a") == b"1" == await threaded("get", "a")
        assert await do("swap", "a", b"2", b"3", 60) is False
        assert await do("swap", "a", b"1", b"3", None) is True
        assert await threaded("get", "a") == b"3"
        await do("set", "b", b"4", 60)
        assert await do("get_many", ["a", "b", "c"]) == {"a": b"3", "b": b"4"}
        assert await threaded("delete", "a") is True
        assert await do("delete", "a") is False
        assert await do("swap", "a", b"1", b"3", None) is False
        assert await do("delete", "b") is True

    with on(port, backend, OPTIONS=options):
        caches["default"].clear()
        asyncio.run(main())
        close_connections()


def test_where_only_a_transaction_replaces_a_thread_runs_it(own):
    async def main():
        here = client()
        here.backend._refused[here._values.server] = 2
        await here.do("set", "a", b"1", 60)
        assert await here.do("swap", "a", b"2", b"3", 60) is False
        assert await here.do("swap", "a", b"1", b"3", 60) is True
        assert await here.do("get", "a") == b"3"

    asyncio.run(main())


def test_a_value_that_cannot_be_read_does_not_hide_the_others(own):
    async def main():
        here = client()
        await here.do("set", "a", b"1", 60)
        await here.ask("SET", here.backend.full_key(here.cache, "b"), b"\x80nonsense")
        found = await here.do("get_many", ["a", "b"])
        assert found == {"a": b"1", "b": connections.UNREADABLE}
        with pytest.raises(KeyError):
            here._values = here._values._replace(decode={}.__getitem__)
            await here.do("get", "a")

        def broken(stored):
            raise OSError

        here._values = here._values._replace(decode=broken)
        with pytest.raises(OSError):
            await here.do("get_many", ["a"])

    asyncio.run(main())


def test_a_server_that_takes_no_several_keys_is_asked_one_by_one():
    f, node = doubled(tags="t"), SERVERS["valkey_cluster"].another()
    need("valkey")
    node.start()

    async def main():
        assert [await f(1), await f(1), await f(2)] == [2, 2, 4]

    try:
        with on(node.port):
            asyncio.run(main())
            close_connections()
    finally:
        node.stop()
    assert f.cache_info()[:2] == (1, 2)


def test_records_are_signed(own):
    f = doubled()
    with override_settings(CACHE_MEMOIZE={"SIGN": True}):

        async def main():
            assert [await f(1), await f(1)] == [2, 2]
            raw = await sync_to_async(caches["default"].get)(f.get_cache_key(1))
            f2 = doubled(tags="t")
            assert [await f2(1), await f2(1), await f2.amap([1])] == [2, 2, [2]]
            return raw

        assert record.parse(asyncio.run(main()))
        assert f.cache_info()[:2] == (1, 1)


@pytest.mark.parametrize("slow", ["server", "loop"])
def test_a_late_answer_opens_the_breaker_unless_the_loop_was_busy(
    server, monkeypatch, slow
):
    monkeypatch.setattr(store, "SLOW", 0.25)

    async def be_busy():
        while True:
            time.sleep(0.2)
            await asyncio.sleep(0)

    async def main():
        commands = AsyncStore("default", Breaker(), Clock())
        await commands.get("a")
        if slow == "server":
            proxy.delay = 1
        busy = asyncio.create_task(be_busy() if slow == "loop" else asyncio.sleep(0))
        await commands.get("a")
        await commands.add("b", b"new", 60)
        busy.cancel()
        assert commands.breaker.tripped is (slow == "server")

    with Proxy(server.port) as proxy, on(proxy.port):
        asyncio.run(main())
        close_connections()


def test_a_standstill_of_the_loop_is_measured():
    async def main():
        with LoopStandstill() as standstill:
            await asyncio.sleep(0.03)
            time.sleep(0.2)
            await asyncio.sleep(0.01)
        return standstill.seconds

    assert 0.15 < asyncio.run(main()) < 5


# --- the settings of the client ------------------------------------------------------


def connect(location, options, backend=DJANGO):
    """Return what the server says of a connection made from these settings, which is
    the same for the connection of a thread."""

    async def main():
        about = await client().ask("CLIENT", "INFO")
        return dict(each.split("=", 1) for each in about.decode().split())

    with on(location, backend, OPTIONS=options):
        found = asyncio.run(main())
        cache = caches["default"]
        own = cache._cache if backend == DJANGO else cache.client
        other = own.get_client(write=True).client_info()
        close_connections()
    for part in ("user", "db", "name", "resp", "lib-name", "lib-ver"):
        assert found[part] == str(other[part])
    return found


def test_a_user_a_database_and_a_name(server):
    with redis.Redis(port=server.port) as asking:
        asking.acl_setuser(
            "ours", enabled=True, passwords="+secret", keys="*", commands=["+@all"]
        )
        asking.config_set("requirepass", "other")
    plain = f"redis://127.0.0.1:{server.port}"
    options = {"username": "ours", "password": "secret", "db": 3, "client_name": "us"}
    found = connect(plain, options)
    assert (found["user"], found["db"], found["name"]) == ("ours", "3", "us")
    found = connect(f"redis://:other@127.0.0.1:{server.port}/2", {"protocol": 2})
    assert (found["user"], found["db"], found["resp"]) == ("default", "2", "2")
    found = connect(f"{plain}/1", {"PASSWORD": "other"}, DJANGO_REDIS)
    assert (found["user"], found["db"]) == ("default", "1")
    with pytest.raises(redis.AuthenticationError):
        connect(plain, {"password": "wrong"})
    pool = {"pool_class": "redis.BlockingConnectionPool", "password": "other"}
    assert connect(plain, pool)["user"] == "default"


def test_a_unix_socket(server):
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "socket")
        server.stop()
        server.arguments += ["--unixsocket", path]
        server.start()
        assert connect(f"unix://{path}?db=2", {})["db"] == "2"


def test_the_connection_for_loops_is_set_up_as_the_other_one(own):
    """Of the client library, the pool's class and keyword arguments are used."""
    parts = "host port db password username socket_timeout socket_connect_timeout"
    parts += " client_name protocol socket_keepalive health_check_interval"
    options = {"client_name": "us", "socket_connect_timeout": 7, "protocol": 2}
    options |= {"health_check_interval": 9, "retry_on_timeout": True}
    with on(f"redis://ours:secret@127.0.0.1:{own.port}/4", OPTIONS=options):
        pool = caches["default"]._cache.get_client().connection_pool
        there = pool.connection_class(**pool.connection_kwargs)
        here = multiplexed.twin_of(caches["default"]._cache.get_client())()
        assert type(here) is redis.asyncio.Connection
        assert {part: getattr(here, part) for part in parts.split()} == {
            part: getattr(there, part) for part in parts.split()
        }
    with on(f"rediss://127.0.0.1:{own.port}", OPTIONS={"ssl_cert_reqs": "none"}):
        here = multiplexed.twin_of(caches["default"]._cache.get_client())()
        assert type(here) is redis.asyncio.SSLConnection


class OtherCache(RedisCache):
    def __init__(self, server, params):
        super().__init__(server, params)
        self._class = type("OtherClient", (self._class,), {})


class TenantCache(RedisCache):
    def make_key(self, key, version=None):
        return f"tenant:{key}"


class OtherConnection(redis.Connection):
    pass


class OtherPool(redis.ConnectionPool):
    pass


class OtherClient(DefaultClient):
    pass


class OtherRedis(redis.Redis):
    pass


def tenant(key, prefix, version):
    return f"tenant:{key}"


OTHERS = {
    "a client": (f"{__name__}.OtherCache", {}),
    "a client of django-redis": (
        DJANGO_REDIS,
        {"OPTIONS": {"CLIENT_CLASS": f"{__name__}.OtherClient"}},
    ),
    "a client of redis-py": (
        DJANGO_REDIS,
        {"OPTIONS": {"REDIS_CLIENT_CLASS": f"{__name__}.OtherRedis"}},
    ),
    "Sentinel": (
        DJANGO_REDIS,
        {
            "OPTIONS": {
                "CONNECTION_FACTORY": "django_redis.pool.SentinelConnectionFactory",
                "SENTINELS": [("127.0.0.1", 1)],
            }
        },
    ),
    "a pool": (DJANGO, {"OPTIONS": {"pool_class": OtherPool}}),
    "a connection": (DJANGO, {"OPTIONS": {"connection_class": OtherConnection}}),
    "text": (DJANGO, {"OPTIONS": {"decode_responses": True}}),
    "a setting": (DJANGO, {"OPTIONS": {"unheard_of": 1}}),
    "a key function": (DJANGO, {"KEY_FUNCTION": tenant}),
    "a method for keys": (f"{__name__}.TenantCache", {}),
    "a serializer": (DJANGO, {"OPTIONS": {"serializer": "not.there"}}),
    "another backend": ("django.core.cache.backends.locmem.LocMemCache", {}),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_not_known_goes_through_the_thread(server, name):
    backend, settings = OTHERS[name]

    async def main():
        return [connections.awaited("default") for _ in range(2)]

    with on(server.port, backend, **settings):
        assert asyncio.run(main()) == [None, None]
        close_connections()


@pytest.mark.parametrize("protocol", [2, 3])
def test_valkey_py_has_the_same_classes(server, protocol):
    async def main():
        make = multiplexed.twin_of(valkey.Valkey(port=server.port, protocol=protocol))
        line = multiplexed.Multiplexed(make())
        assert await line.ask("PING") == b"PONG"
        asked = [line.ask("INCR", "a", "b"), line.ask("SET", "a", "b")]
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert isinstance(found[0], valkey.ResponseError) and found[1] == b"OK"
        server.stop()
        server.start()
        await asyncio.sleep(0.01)
        assert await line.ask("PING") == b"PONG"
        await line._connection.disconnect()

    asyncio.run(main())


@pytest.mark.parametrize("name", ["a key function", "a method for keys"])
def test_a_place_is_not_known_from_afar_where_keys_are_made(name):
    backend, settings = OTHERS[name]
    with on(1, backend, **settings):
        assert connections.place_from_afar("default", "key") is None
    with on(1):
        assert connections.place_from_afar("default", "key") is not None


def test_without_the_asyncio_classes_the_thread_is_used(own, monkeypatch):
    monkeypatch.delattr("redis.asyncio.connection.Connection")

    async def main():
        assert connections.awaited("default") is None
        return [await f(1), await f(1)]

    f = doubled()
    assert asyncio.run(main()) == [2, 2] and f.cache_info()[:2] == (1, 1)


def test_outside_of_a_loop_there_is_no_connection(own):
    assert connections.awaited("default") is None
