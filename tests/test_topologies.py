"""Replicas, Sentinel, clusters, several nodes: what is read, and a failover."""

from __future__ import annotations

import signal
import threading
import time

import pytest
import redis
from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings
from django_valkey.async_cache.cache import AsyncValkeyCache

from cache_memoize import cache_memoize, checks, planning
from cache_memoize.cache import backends, vouchers
from cache_memoize.cache.backends import backend_of
from cache_memoize.cache.breaker import breaker_of
from cache_memoize.cache.connections import opened
from tests.conftest import close_connections, in_thread
from tests.needs import need
from tests.servers import SERVERS

DJANGO = "django.core.cache.backends.redis.RedisCache"
DJANGO_REDIS = "django_redis.cache.RedisCache"
DJANGO_VALKEY = "django_valkey.cache.ValkeyCache"
CLUSTER = "cache_memoize.cluster.RedisClusterCache"
DJANGO_VALKEY_CLUSTER = "django_valkey.cluster_cache.cache.ClusterValkeyCache"
PACKAGES = [DJANGO, DJANGO_REDIS, DJANGO_VALKEY]


def memoized(**options):
    """A function that returns the number of its run, and its runs."""
    runs = []

    def function(x):
        runs.append(x)
        return len(runs)

    return cache_memoize(60, prefix=f"topology {time.time_ns()}", **options)(
        function
    ), runs


def on(package, location, **options):
    return override_settings(
        CACHES={
            "default": {"BACKEND": package, "LOCATION": location, "OPTIONS": options}
        }
    )


@pytest.fixture
def pair(servers):
    """The URLs of a server, and of another one, which knows nothing of it."""
    need("valkey")
    one, two = SERVERS["valkey"].another(), SERVERS["valkey"].another()
    one.start(), two.start()
    yield [f"redis://127.0.0.1:{each.port}" for each in (one, two)]
    one.stop(), two.stop()


@pytest.mark.parametrize("tags", [None, "t"])
@pytest.mark.parametrize("package", PACKAGES)
def test_the_primary_is_read_and_no_replica(pair, package, tags):
    with on(package, pair):
        f, runs = memoized(tags=tags)
        assert [f(1), f(1), f.peek(1).value, f.map([1, 2])] == [1, 1, 1, [1, 2]]
        assert f.refresh(1) == 3 == f(1)
        f.prime(9, 1)
        assert f(1) == 9
        f.invalidate(1)
        assert f(1) == 4 == f(1) and f.cache_info().errors == 0
        cache, adapter = opened("default")
        adapter.set(cache, "key", b"1", 60)
        assert adapter.get(cache, "key") == b"1" and adapter.delete(cache, "key")
        with redis.Redis.from_url(pair[1]) as other:
            assert other.dbsize() == 0
            assert not {"get", "mget"}.intersection(
                name.removeprefix("cmdstat_") for name in other.info("commandstats")
            )


@pytest.mark.thorough
def test_sentinel_is_asked_for_the_primary_and_no_replica_is_read(servers):
    server = servers("sentinel")
    for port in server.replicas:
        server.ask(port, "CONFIG", "RESETSTAT")
    f, runs = memoized(cache_alias="sentinel")
    assert [f(1), f(1), f.map([1, 2]), f.peek(2).value] == [1, 1, [1, 2], 2]
    for port in server.replicas:
        stats = server.ask(port, "INFO", "commandstats")
        assert not {"cmdstat_get", "cmdstat_mget"} & stats.keys()


@pytest.mark.thorough
@pytest.mark.parametrize("package", [CLUSTER, DJANGO_VALKEY_CLUSTER])
def test_keys_of_all_nodes_are_read_at_once(servers, package):
    server = servers("cluster")
    ports = [port for port in server.nodes if port not in server.replicas]

    def counts(command):
        found = [server.ask(port, "INFO", "commandstats") for port in ports]
        return [each.get(f"cmdstat_{command}", {"calls": 0})["calls"] for each in found]

    with on(package, f"redis://127.0.0.1:{server.port}"):
        f, runs = memoized(tags="t")
        f.map(range(60))
        single, many = counts("get"), counts("mget")
        assert f.map(range(60)) == [*range(1, 61)] and len(runs) == 60
        assert counts("get") == single
        assert all(now > then for now, then in zip(counts("mget"), many, strict=True))
        f.invalidate_all()
        assert f(1) == 61 and f.cache_info().errors == 0


@pytest.mark.parametrize("package", [CLUSTER, DJANGO_VALKEY_CLUSTER])
def test_copies_in_the_process_are_refused_in_a_cluster(one_node, package):
    with on(package, [one_node]):
        with pytest.raises(ImproperlyConfigured, match="and not in a cluster"):
            memoized(local="process")[0](1)
        f, runs = memoized(local=0.5)
        assert [f(1), f(1)] == [1, 1]


@pytest.mark.parametrize("option", ["read_from_replicas", "load_balancing_strategy"])
def test_replicas_of_a_cluster_are_not_read(option):
    refused = pytest.raises(ImproperlyConfigured, match=f"leave '{option}' out")
    with on(CLUSTER, "redis://127.0.0.1:1", **{option: True}), refused:
        memoized()[0](1)


def test_a_cluster_by_several_of_its_nodes(one_node):
    with on(CLUSTER, ["redis://127.0.0.1:1", one_node, "redis://localhost"]):
        f, runs = memoized(tags="t")
        assert [f(1), f(1), f.map([1, 2])] == [1, 1, [1, 2]]
        cache = caches["default"]
        cache.set_many({"a": 1, "b": 2}, 60)
        assert cache.get_many(["a", "b", "c"]) == {"a": 1, "b": 2}
        cache.delete_many(["a", "b"])
        assert cache.get("a") is None
        # Another thread, or request, has another object and the same client.
        other = in_thread(lambda: opened("default")[0])
        assert other is not cache and other._cache._cluster is cache._cache._cluster


def test_clients_of_other_packages_that_do_it_their_way_are_unknown():
    for package, client in [
        (DJANGO_REDIS, "django_redis.client.HerdClient"),
        (DJANGO_VALKEY, "django_valkey.client.HerdClient"),
    ]:
        with on(package, "redis://127.0.0.1:1", CLIENT_CLASS=client):
            assert type(backend_of(caches["default"])) is vouchers.Voucher
    with on(
        DJANGO_VALKEY,
        "valkey://127.0.0.1:1",
        CLIENT_CLASS="django_valkey.client.default.HashClient",
    ):
        assert type(backend_of(caches["default"])) is vouchers.Voucher
    with on(DJANGO_VALKEY, "valkey://127.0.0.1:1"):
        assert type(backend_of(caches["default"])) is backends.DjangoRedis


# --- what can never work -------------------------------------------------------------


def said(caplog, text):
    return [message for message in caplog.messages if text in message]


@pytest.mark.thorough
@pytest.mark.parametrize("package", PACKAGES)
def test_a_node_of_a_cluster_behind_a_client_for_one_server_is_named(
    servers, caplog, package
):
    server = servers("cluster")
    with on(package, f"redis://127.0.0.1:{server.port}"):
        f, runs = memoized()
        assert [f(x) for x in range(20)] == [*range(1, 21)]
        (line,) = said(caplog, "is a node of a cluster")
        assert "cache_memoize.cluster.RedisClusterCache" in line
        assert ids() == ["cache_memoize.E005"]
    with on(CLUSTER, f"redis://127.0.0.1:{server.port}"):
        assert ids() == []


def ids():
    with override_settings(ROOT_URLCONF="tests.urls"):
        f = cache_memoize(60, tags=(), prefix="checked")(len)
        found = [each.id for each in checks.check_deployment(None)]
        del f
        return [each for each in found if each == "cache_memoize.E005"]


@pytest.mark.parametrize("package", PACKAGES)
def test_a_read_only_replica_is_named(pair, caplog, package):
    with redis.Redis.from_url(pair[1]) as replica:
        replica.replicaof(*pair[0].removeprefix("redis://").split(":"))
    with on(package, pair[1]):
        f, runs = memoized()
        assert [f(1), f(1)] == [1, 2]
        (line,) = said(caplog, "is a read-only replica")
        assert "write the address of the primary first in LOCATION" in line
        assert ids() == ["cache_memoize.E005"]
    with on(package, pair[0]):
        assert ids() == []


@pytest.fixture(scope="module")
def node_with_all_slots():
    """A cluster of one node, which has all slots."""
    need("valkey")
    server = SERVERS["valkey_cluster"].another()
    server.start()
    yield f"redis://127.0.0.1:{server.port}"
    server.stop()


@pytest.fixture
def one_node(node_with_all_slots):
    with redis.Redis.from_url(node_with_all_slots) as client:
        client.flushall()
    return node_with_all_slots


@pytest.mark.parametrize("package", [DJANGO, CLUSTER, DJANGO_VALKEY_CLUSTER])
def test_one_node_with_all_slots_can_work(one_node, package):
    with on(package, [one_node]):
        assert ids() == []
        f, runs = memoized(tags="t")
        assert [f(1), f(1), f.map([1, 2])] == [1, 1, [1, 2]] and len(runs) == 2
        f.invalidate(1)
        assert [f(1), f(1)] == [3, 3] and f.cache_info().errors == 0


def test_a_serializer_that_takes_no_bytes_is_named_at_the_first_call(
    caplog, monkeypatch
):
    monkeypatch.setattr(planning, "checked_aliases", set())
    with on(DJANGO, "redis://127.0.0.1:1", serializer="tests.backends.Json"):
        f, runs = memoized()
        assert f(1) == 1
    (line,) = said(caplog, "cannot store bytes")
    assert line.startswith("the cache 'default' cannot store bytes, so nothing")


def test_of_a_serializer_that_cannot_be_made_nothing_is_known():
    with on(DJANGO, "redis://127.0.0.1:1", serializer="no.such.Serializer"):
        cache, backend = opened("default")
        assert backend.takes_bytes(cache)


def test_a_cache_of_coroutines_is_refused():
    with pytest.raises(ImproperlyConfigured, match="name a cache for sync code"):
        backend_of(AsyncValkeyCache("valkey://127.0.0.1:1", {}))


# --- several nodes of Memcached ------------------------------------------------------

PYMEMCACHE = "django.core.cache.backends.memcached.PyMemcacheCache"
PYLIBMC = "django.core.cache.backends.memcached.PyLibMCCache"


@pytest.mark.slow_server
def test_keys_of_a_memcached_that_is_away_stay_there():
    """pymemcache would move them after two failures: then they are invalidated on
    another node, and old on the one that comes back."""
    need("memcached")
    one, two = SERVERS["memcached"].another(), SERVERS["memcached"].another()
    one.start(), two.start()
    options = {"timeout": 0.2, "connect_timeout": 0.2}
    options |= {"retry_timeout": 0.1, "dead_timeout": 0.5}
    truth = dict.fromkeys(range(2), 0)
    try:
        with on(PYMEMCACHE, [f"127.0.0.1:{s.port}" for s in (one, two)], **options):
            # An invalidation needs the key of all calls of a function, too: of few
            # functions are all keys of one call on the other node.
            functions = [
                cache_memoize(60, prefix=f"several nodes {n}")(lambda x: truth[x])
                for n in range(60)
            ]
            for f in functions:
                assert f.map(truth) == [0, 0] == f.map(truth)
                assert f.cache_info().hits == 2
            one.signal(signal.SIGSTOP)
            invalidated = set()
            for _ in range(4):
                for key in truth:
                    truth[key] += 1
                    for f in functions:
                        try:
                            f.invalidate(key)
                        except Exception:
                            invalidated.discard((f, key))
                            # Closed: the other node is to be asked, too.
                            breaker_of("default").__init__()
                        else:
                            invalidated.add((f, key))
                            assert f(key) == truth[key]
                time.sleep(0.2)
            assert 0 < len(invalidated) < 120
            one.signal(signal.SIGCONT)
            time.sleep(1)
            for _ in range(2):
                assert all(f(key) == truth[key] for f, key in invalidated)
                time.sleep(0.6)
    finally:
        one.stop(), two.stop()


@pytest.mark.parametrize("cas", [True, False])
def test_nor_does_pylibmc_move_keys(cas):
    need("pylibmc")
    nodes = ["127.0.0.1:1", "127.0.0.1:2"]
    behaviors = {"cas": cas, "auto_eject": True, "distribution": "consistent"}
    with on(PYLIBMC, nodes, behaviors=behaviors):
        assert opened("default")[0]._cache.behaviors["auto_eject"] == 0
        assert caches["default"]._cache.behaviors["auto_eject"] == 1
    with on(PYLIBMC, nodes[:1], behaviors=behaviors):
        assert opened("default")[0]._cache.behaviors["auto_eject"] == 1


# --- a failover ----------------------------------------------------------------------


class Source:
    """Numbers that only grow, and the callers of a function that reads them."""

    def __init__(self, keys=20, **options):
        self.truth = dict.fromkeys(range(keys), 0)
        self.stale: list[tuple[int, int, int]] = []
        self.calls = self.lost = 0
        self.ending = threading.Event()

        @cache_memoize(60, prefix=f"failover {time.time_ns()}", **options)
        def read(key):
            return self.truth[key]

        self.read = read
        self.threads = [threading.Thread(target=self._call) for _ in range(3)]
        self.threads.append(threading.Thread(target=self._change))
        #: By key: the least number that a call may return.
        self.least = dict(self.truth)

    def _call(self):
        while not self.ending.is_set():
            for key in self.truth:
                least = self.least[key]
                found = self.read(key)
                self.calls += 1
                if found < least:
                    self.stale.append((key, found, least))
        close_connections()

    def _change(self):
        while not self.ending.is_set():
            for key in self.truth:
                self.truth[key] += 1
                number = self.truth[key]
                try:
                    self.read.invalidate(key)
                except Exception:  # not invalidated, and the caller knows
                    self.lost += 1
                else:
                    self.least[key] = number
                time.sleep(0.002)
        close_connections()

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *raised):
        self.ending.set()
        for thread in self.threads:
            thread.join(30)


def until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.thorough
@pytest.mark.leaves_lease
@pytest.mark.parametrize(
    "package", [CLUSTER, DJANGO_VALKEY_CLUSTER], ids=["ours", "valkey"]
)
def test_a_primary_of_a_cluster_dies(package):
    need("cluster")
    server = SERVERS["cluster"].another()
    server.start()
    dies = next(port for port in server.nodes if port not in server.replicas)
    left = [port for port in server.nodes if port != dies]
    name = server.ask(dies, "CLUSTER", "MYID").decode()
    try:
        with on(package, [f"redis://127.0.0.1:{left[0]}"]), Source() as source:
            until(lambda: source.calls > 500)
            server.kill(dies)
            until(lambda: all(map(server.serves, left[:2])) and fails(server, name))
            hits = source.read.cache_info().hits
            until(lambda: source.read.cache_info().hits > hits + 500)
        assert not source.stale
    finally:
        server.stop()


def fails(server, name):
    """Whether the others take a node for dead, and another one has its slots."""
    port = server.replicas[-1]
    for line in server.ask(port, "CLUSTER NODES").items():
        if line[1]["node_id"] == name:
            return "fail" in line[1]["flags"].split(",") and not line[1]["slots"]
    return False


@pytest.mark.thorough
@pytest.mark.leaves_lease
@pytest.mark.parametrize("local", [None, "process"])
def test_the_primary_of_a_sentinel_dies(local):
    need("sentinel")
    server = SERVERS["sentinel"].another()
    server.start()
    options = {
        "CLIENT_CLASS": "django_redis.client.SentinelClient",
        "CONNECTION_FACTORY": "django_redis.pool.SentinelConnectionFactory",
        "SENTINELS": [("127.0.0.1", server.port)],
    }
    primary = server.primary
    try:
        database = 2 if local else 1  # pools are known by their URL
        location = f"redis://memoize/{database}"
        with on(DJANGO_REDIS, location, **options), Source(local=local) as source:
            until(lambda: source.calls > 500)
            server.kill(primary)
            until(lambda: server.primary != primary)
            hits = source.read.cache_info().hits
            until(lambda: source.read.cache_info().hits > hits + 500)
        assert not source.stale
    finally:
        server.stop()
