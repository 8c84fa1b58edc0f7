"""The private parts that are used, the commands that are sent, the size of an entry."""

from __future__ import annotations

import gzip
import itertools
import os
import pickle
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import redis
from django.core.cache import caches
from django.core.cache.backends.base import BaseCache
from django.core.cache.backends.filebased import FileBasedCache
from django.core.cache.backends.locmem import LocMemCache
from django.test import override_settings

from cache_memoize import cache_memoize
from cache_memoize.cache import backends, breaker, record, vouchers
from cache_memoize.cache.backends import backend_of
from cache_memoize.cache.connections import opened
from cache_memoize.cache.redis import SilentRedis
from cache_memoize.cache.store import Store, store_of
from tests.conftest import (
    ATOMIC,
    BACKENDS,
    PYLIBMC,
    World,
    close_connections,
    plan_of,
)
from tests.needs import need
from tests.servers import SERVERS

EXPECTED = {
    "locmem": backends.LocalMemory,
    "valkey": backends.Redis,
    "redis": backends.Redis,
    "django_redis": backends.DjangoRedis,
    "django_valkey": backends.DjangoRedis,
    "cluster": SilentRedis,
    "sentinel": backends.DjangoRedis,
    "pymemcache": backends.Memcached,
    "pylibmc": backends.PyLibMC,
    "pylibmc_without_cas": backends.UnshareableVoucher,
    "sqlite": backends.Database,
    "postgresql": backends.Database,
    "file": backends.Files,
    "unknown": vouchers.Voucher,
}


@pytest.mark.parametrize("alias", [alias for alias in EXPECTED if alias in BACKENDS])
def test_each_backend_is_known_for_what_it_is(alias):
    """Fails when Django or a client renames a private part: then mend backends.py."""
    if alias in PYLIBMC:
        need("pylibmc")
    found = backend_of(caches[alias])
    assert type(found) is EXPECTED[alias]
    assert found.atomic == (alias in ATOMIC)


def test_the_dummy_cache_is_known_too():
    assert not backend_of(caches["dummy"]).stores


@pytest.mark.parametrize("part", ["get", "set", "_set", "_has_expired"])
def test_a_subclass_that_does_a_thing_its_own_way_is_unknown(part):
    def own(self, *args, **kwargs):
        """Never called."""

    subclass = type("Own", (LocMemCache,), {part: own})
    assert type(backend_of(subclass("own", {}))) is vouchers.Voucher
    harmless = type("Harmless", (LocMemCache,), {"other": own})
    assert type(backend_of(harmless("own", {}))) is backends.LocalMemory


def test_a_django_redis_client_that_is_not_the_default_one_is_unknown():

    settings = {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": ["redis://127.0.0.1:1"],
        "OPTIONS": {"CLIENT_CLASS": "django_redis.client.ShardClient"},
    }
    with override_settings(CACHES={"default": settings}):
        assert type(backend_of(caches["default"])) is vouchers.Voucher


def test_swap_replaces_only_what_is_expected(backend):
    cache = caches[backend]
    how = backend_of(cache)
    old, new = record.pack(record.LEASE, b"old"), record.pack(record.LEASE, b"new")
    if isinstance(how, vouchers.Voucher):
        assert how.swap(cache, "key", old, new, 60) is False
        assert how.add(cache, "key", old, 60) is True
    assert how.delete(cache, "key") in (True, False)
    assert how.swap(cache, "key", old, new, 60) is False
    assert how.add(cache, "key", old, 60) is True
    assert how.add(cache, "key", new, 60) is False
    assert how.swap(cache, "key", new, old, 60) is False
    assert how.swap(cache, "key", old, new, None) is True
    assert how.get(cache, "key") == new
    assert how.delete(cache, "key") is True
    assert how.get(cache, "key") is None
    how.set(cache, "key", old, 60)
    assert cache.get("key")[:3] == b"old"
    how.set(cache, "key", new, None)
    assert cache.get("key")[:3] == b"new"
    how.delete(cache, "key")


@pytest.mark.backends(ATOMIC, lean=ATOMIC)
def test_of_several_swaps_at_once_one_succeeds(backend):
    """Also on a busy machine, where threads are switched in the middle."""
    rounds, start = 10_000 if backend == "locmem" else 25, threading.Barrier(4)
    won: list[int] = []

    def value(turn):
        return record.pack(record.LEASE, b"%08d" % turn)

    def swap_all():
        cache, how = opened(backend)
        start.wait()
        for turn in range(rounds):
            if how.swap(cache, "key", value(turn), value(turn + 1), 60):
                won.append(turn)

    def work(_):
        try:
            swap_all()
        except BaseException:
            start.abort()
            raise
        finally:
            close_connections()

    backend_of(caches[backend]).set(caches[backend], "key", value(0), 60)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(work, range(4)))
    finally:
        sys.setswitchinterval(interval)
    # A thread that is late finds nothing to replace, and the others go on.
    assert len(set(won)) == len(won)
    backend_of(caches[backend]).delete(caches[backend], "key")


@pytest.mark.backends(["sqlite", "postgresql"])
def test_an_expired_row_goes_to_one_caller(backend):
    """DatabaseCache.add() would tell two callers that they won."""
    cache, how = caches[backend], backend_of(caches[backend])
    cache.set("key", b"old", -5)
    assert how.add(cache, "key", b"first", 60) is True
    assert how.add(cache, "key", b"second", 60) is False
    assert cache.get("key") == b"first"
    cache.delete("key")


@pytest.mark.backends(["sqlite"])
def test_a_set_whose_insert_loses_against_another_one_is_not_dropped(
    backend, monkeypatch
):
    cache, how = caches[backend], backend_of(caches[backend])
    add = type(cache).add

    def lose(self, key, value, timeout):
        add(self, key, b"somebody else's", timeout)
        return False

    monkeypatch.setattr(type(cache), "add", lose)
    how.set(cache, "key", b"ours", 60)
    assert cache.get("key") == b"ours"
    cache.delete("key")


@pytest.mark.backends(["sqlite", "postgresql"])
def test_local_times_work_as_well(backend, settings):
    settings.USE_TZ = False
    cache, how = caches[backend], backend_of(caches[backend])
    assert how.add(cache, "key", b"first", 60) is True
    assert how.swap(cache, "key", b"first", b"second", 60) is True
    assert cache.get("key") == b"second"
    cache.delete("key")


# --- how many commands ---------------------------------------------------------------


@pytest.fixture
def commands(monkeypatch, nothing_left_behind):
    sent = []
    command = Store._command

    def note(self, name, *args):
        sent.append(name)
        return command(self, name, *args)

    monkeypatch.setattr(Store, "_command", note)
    from cache_memoize import planning as memoized

    for fetch in ("fetch", "afetch"):
        original = getattr(memoized, fetch)

        def wrapper(alias, key, original=original):
            sent.append("get")
            return original(alias, key)

        monkeypatch.setattr(memoized, fetch, wrapper)
    return sent


@pytest.mark.backends(ATOMIC, lean=ATOMIC)
def test_the_commands_of_every_path(commands, world):
    f = world.memoize(60)(lambda: 1)

    def sent(call, *args):
        commands.clear()
        call(*args)
        return " ".join(commands)

    assert sent(f) == "get add swap"  # miss, claim, settle
    assert sent(f) == "get"  # hit
    # The last command looks whether results were made with the call.
    assert sent(f.refresh) == "get swap swap read_many"
    assert sent(f.peek) == "get"
    late, hides = backend_of(world.cache).late, backend_of(world.cache).swallows
    # One command for the key and its tags, if an answer of nothing is believed.
    is_sure = not hides and plan_of(f).store.answers_in_order()
    first, removed = "read_many" if is_sure else "get", "swap" if late else "remove"
    assert sent(f.invalidate) == f"{first} {removed} read_many"
    nothing = "read_many" if is_sure else "get read_many"
    assert sent(f.invalidate) == nothing
    claimed = "get swap swap read_many" if late else "get add swap read_many"
    assert sent(f.refresh) == claimed
    assert sent(f.prime, 1) == "get swap swap read_many"
    world.cache.clear()
    assert sent(f.invalidate) == ("get add read_many" if hides else nothing)
    world.cache.clear()


@pytest.mark.backends(ATOMIC, lean=ATOMIC)
def test_every_adapter_does_the_same(backend):
    cache, adapter = opened(backend)
    assert adapter.add(cache, "same", b"1", 60)
    assert not adapter.add(cache, "same", b"2", 60)
    assert not adapter.swap(cache, "same", b"2", b"3", 60)
    assert adapter.get(cache, "same") == b"1"
    assert adapter.swap(cache, "same", b"1", b"4", None)
    assert adapter.get_many(cache, ["same", "other"]) == {"same": b"4"}
    adapter.set(cache, "same", b"5", 60)
    assert adapter.get(cache, "same") == b"5"
    if adapter.late:
        assert adapter.delete(cache, "same")
    else:
        assert not adapter.remove(cache, "same", b"4")
        assert adapter.remove(cache, "same", b"5")
        assert not adapter.remove(cache, "same", b"5")
    assert adapter.get(cache, "same") is None
    assert not adapter.swap(cache, "same", b"5", b"6", 60)
    assert adapter.get(cache, "same") is None


class Nonce:
    """A serializer whose encoding of a value is another one each time."""

    def dumps(self, value):
        return os.urandom(8) + pickle.dumps(value)

    def loads(self, data):
        return pickle.loads(data[8:])


#: Commands that the user of a server is forbidden, and the ways that are refused then.
FORBIDDEN = {
    "nothing": ([], {"valkey": None, "redis": 1}),
    "scripts": (["-eval", "-evalsha"], {"valkey": None, "redis": 2}),
}
OPTIONS = {
    "plain": {},
    "nonce": {"serializer": f"{__name__}.Nonce"},
    "gzip": {"COMPRESSOR": "django_redis.compressors.gzip.GzipCompressor"},
}


@pytest.mark.parametrize("forbidden", FORBIDDEN)
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", ["valkey", "redis"])
def test_redis_replaces_by_what_the_server_allows(
    name, options, forbidden, monkeypatch
):
    """And compares what was decoded, where an encoding is not the same twice."""
    need(name)
    server = SERVERS[name].another()
    server.start()
    seconds = itertools.count(1_700_000_000)
    monkeypatch.setattr(gzip, "time", SimpleNamespace(time=seconds.__next__))
    client = redis.Redis(port=server.port)
    commands, ways = FORBIDDEN[forbidden]
    client.acl_setuser(
        "default",
        enabled=True,
        nopass=True,
        keys="*",
        channels="*",
        commands=["+@all", *commands],
    )
    package = (
        "django_redis.cache"
        if options == "gzip"
        else ("django.core.cache.backends.redis")
    )
    cache = {
        "BACKEND": f"{package}.RedisCache",
        "LOCATION": f"redis://127.0.0.1:{server.port}",
        "OPTIONS": OPTIONS[options],
    }
    try:
        with override_settings(CACHES={"default": cache}):
            adapter = opened("default")[1]
            test_every_adapter_does_the_same("default")
            refused = [
                n for at, n in adapter._refused.items() if str(server.port) in at
            ]
            assert (refused or [None]) == [ways[name]]
            found = []
            f = cache_memoize(60, prefix="ways")(lambda: found.append(1) or len(found))
            assert [f(), f(), f.refresh(), f()] == [1, 1, 2, 2]
            f.invalidate()
            assert [f(), f()] == [3, 3]
    finally:
        client.close()
        server.stop()


def test_a_redis_that_refuses_every_way_says_so(monkeypatch):
    def refused(*operands):
        raise redis.ResponseError("unknown command")

    monkeypatch.setattr("cache_memoize.cache.redis._WAYS", [refused] * 2)
    monkeypatch.setattr("cache_memoize.cache.redis._by_watching", refused)
    cache, adapter = opened("valkey")
    with pytest.raises(redis.ResponseError, match="unknown command"):
        adapter.swap(cache, "key", b"1", b"2", 60)


@pytest.mark.parametrize(
    "package", ["django_redis.cache", "django.core.cache.backends.redis"]
)
def test_the_server_that_takes_writes_replaces(package):
    """Not its replicas, which the cache reads from."""
    servers = ["redis://127.0.0.1:1", "redis://127.0.0.1:2"]
    cache = {"BACKEND": f"{package}.RedisCache", "LOCATION": servers}
    with override_settings(CACHES={"default": cache}):
        cache, adapter = opened("default")
        client = adapter.values(cache, "key").client
        assert client.connection_pool.connection_kwargs["port"] == 1


@pytest.mark.backends(["pylibmc"])
def test_what_went_before_it_was_replaced_is_a_lost_race_and_no_trouble(backend):
    cache, adapter = opened(backend)
    cache.set("gone", b"1", 60)
    key = adapter.full_key(cache, "gone")
    _, version = cache._cache.gets(key)
    cache.delete("gone")
    assert adapter.compare_and_set(cache._cache, key, b"2", version, 60) is False

    class Broken:
        def cas(self, *args, **kwargs):
            raise ConnectionError("the server is away")

    with pytest.raises(ConnectionError):
        adapter.compare_and_set(Broken(), key, b"2", version, 60)


@pytest.mark.backends(ATOMIC)
def test_an_untagged_call_has_one_key_and_no_other(backend):
    world = World(backend, "sync")
    f = world.memoize(60, prefix="onekey")(lambda: 1)
    f(), f.refresh(), f()
    assert world.cache.get(vouchers.Voucher.voucher_key(f.get_cache_key())) is None
    assert world.raw(f.get_cache_key())


@pytest.mark.parametrize("value", [1, list(range(20)), "x" * 10_000])
@pytest.mark.parametrize("alias", ["locmem", "unknown"])
def test_an_entry_adds_48_bytes_at_most(alias, value):
    f = cache_memoize(60, prefix="size", cache_alias=alias)(lambda: value)
    f()
    cache = caches[alias]
    stored = cache._cache[cache.make_key(f.get_cache_key())]
    assert len(stored) - len(pickle.dumps(value, pickle.HIGHEST_PROTOCOL)) <= 48
    cache.clear()


def test_every_alias_of_the_tests_is_tested():
    from django.conf import settings

    assert set(settings.CACHES) | {*PYLIBMC} == {*BACKENDS, "default", "dummy"}


class Minimal(BaseCache):
    """Only what Django demands of a backend; not even touch()."""

    entries: dict[str, object] = {}

    def __init__(self, location, params):
        super().__init__(params)

    def get(self, key, default=None, version=None):
        return self.entries.get(key, default)

    def set(self, key, value, timeout=None, version=None):
        self.entries[key] = value

    def add(self, key, value, timeout=None, version=None):
        return self.entries.setdefault(key, value) is value

    def delete(self, key, version=None):
        return self.entries.pop(key, None) is not None


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_backend_that_nobody_knows_needs_the_public_api_only(kind):
    settings = {"BACKEND": f"{__name__}.Minimal"}
    with override_settings(CACHES={"default": settings}):
        world = World("default", kind)
        f = world.memoize(60)(lambda: 1)
        assert f() == f() == 1
        assert f.cache_info()[:4] == (1, 1, 0, 0)
        f.invalidate()
        assert f.peek() is None
        Minimal.entries.clear()


@pytest.mark.parametrize("target", ["there", "not there"])
def test_the_lock_of_files_follows_no_link(tmp_path, target):
    """Another user may have put one into the folder."""
    files = "django.core.cache.backends.filebased.FileBasedCache"
    folder, victim = tmp_path / "cache", tmp_path / "victim"
    folder.mkdir()
    if target == "there":
        victim.write_text("precious")
    (folder / "cache_memoize.lock").symlink_to(victim)
    runs = []

    @cache_memoize(60, prefix=f"lock {target}")
    def f():
        runs.append(1)
        return len(runs)

    cache = {"BACKEND": files, "LOCATION": folder}
    with override_settings(CACHES={"default": cache}):
        assert [f(), f()] == [1, 2]
    assert victim.exists() == (target == "there")
    breaker.breaker_of("default").__init__()  # a cache that takes nothing opens it
    with override_settings(CACHES={"default": {**cache, "LOCATION": tmp_path / "own"}}):
        assert [f(), f()] == [3, 3]
    lock = tmp_path / "own" / "cache_memoize.lock"
    assert lock.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("mode", "is_open"),
    [(0o700, False), (0o755, False), (0o777, True), (0o1777, True), (0o702, True)],
)
def test_a_folder_to_which_everybody_may_write_is_known(tmp_path, mode, is_open):
    cache = FileBasedCache(str(tmp_path), {})
    tmp_path.chmod(mode)
    found = backends.Files().open_folder(cache)
    assert found == (str(tmp_path) if is_open else None)


@pytest.mark.backends(["valkey"])
def test_a_transaction_of_redis_that_loses_a_race_replaces_nothing(
    backend, monkeypatch
):
    cache, adapter = opened(backend)
    adapter.set(cache, "race", b"old", 60)
    values, others = adapter.values(cache, "race"), []

    def decode(found):
        others and adapter.set(cache, "race", others.pop(), 60)
        return values.decode(found)

    ours = values._replace(decode=decode)
    own = backends.Redis()
    own._refused[ours.server] = 2  # neither IFEQ nor a script
    monkeypatch.setattr(own, "values", lambda *args: ours)
    others.append(b"other")
    assert not own.swap(cache, "race", b"old", b"new", 60)
    assert adapter.get(cache, "race") == b"other"
    with pytest.raises(redis.ResponseError, match="expire"):
        own.swap(cache, "race", b"other", b"new", -1)
    assert own.swap(cache, "race", b"other", b"new", 60)
    assert adapter.get(cache, "race") == b"new"


@pytest.mark.backends(["django_redis"], lean=["django_redis"])
def test_an_error_that_is_no_outage_is_raised_as_it_is(backend):
    cache, adapter = opened(backend)
    key = cache.make_key("garbage")
    cache.client.get_client().set(key, b"no pickle")
    with pytest.raises(pickle.UnpicklingError):
        adapter.get(cache, "garbage")


def test_in_a_cluster_keys_are_not_read_in_their_order():
    def cache(backend, location=""):
        return {"BACKEND": backend, "LOCATION": location}

    cluster, one = "redis://localhost:1", "django.core.cache.backends.redis.RedisCache"
    told = {
        "default": cache("cache_memoize.cluster.RedisClusterCache", cluster),
        "one": cache(one, "redis://localhost:1"),
        "unknown": cache("tests.backends.UnknownCache"),
    }
    with override_settings(CACHES=told):
        found = [store_of(alias).answers_in_order() for alias in told]
    assert found == [False, True, False]
