"""The cache fails while eight threads call; and every command fails, one by one.

Real servers that are killed, stopped, full, slow; and a cache that does on command
what no server can be made to do. Callers see no error and nothing that is older than
an invalidation that returned; ``invalidate`` raises if it did not take effect; caching
goes on by itself.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import itertools
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.cache import caches
from django.test import override_settings

from cache_memoize import cache_memoize
from cache_memoize.cache import backends, breaker, record
from cache_memoize.clock import Clock
from cache_memoize.protocol import invalidation
from tests.chaos import (
    CHAOS,
    SHAPES,
    AtomicChaos,
    AtomicChaosCache,
    Crowd,
    Subject,
    close,
    crowd,
)
from tests.conftest import FakeClock
from tests.needs import is_full, need
from tests.proxy import Proxy
from tests.servers import SERVERS, free_port
from tests.test_stampede import ROOT, environment, in_threads

pytestmark = pytest.mark.slow_server
ALIAS = "faulty"
_MEMCACHED = "django.core.cache.backends.memcached."
_DJANGO = "django.core.cache.backends.redis.RedisCache"
_TIMEOUTS = {"socket_timeout": 0.3, "socket_connect_timeout": 0.3}
#: Client: the server, the backend, and its options, with short time-outs.
CLIENTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "valkey": ("valkey", _DJANGO, _TIMEOUTS),
    "redis": ("redis", _DJANGO, _TIMEOUTS),
    "django_redis": (
        "redis",
        "django_redis.cache.RedisCache",
        {"SOCKET_TIMEOUT": 0.3, "SOCKET_CONNECT_TIMEOUT": 0.3},
    ),
    "pymemcache": (
        "memcached",
        f"{_MEMCACHED}PyMemcacheCache",
        # It leaves a server alone for a minute if nothing is said.
        {"timeout": 0.3, "connect_timeout": 0.3, "dead_timeout": 0.3}
        | {"retry_timeout": 0.3},
    ),
    "pylibmc": (
        "memcached",
        f"{_MEMCACHED}PyLibMCCache",
        {
            "behaviors": {"cas": True, "_poll_timeout": 300, "connect_timeout": 300}
            | {"retry_timeout": 1}
        },
    ),
}
LEAN = ["valkey", "pymemcache"]
LEAN_SHAPES = ("plain", "tagged", "async, stale and tagged")
#: Where the client makes the difference, and where it is the server.
EACH_KIND = ["valkey", "django_redis", "pymemcache", "pylibmc"]
REDIS = ["valkey", "redis", "django_redis"]
MEMCACHED = ["pymemcache", "pylibmc"]
LOCMEM = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}


def on(clients, lean=LEAN):
    """Run the test with these clients; with ``lean`` ones only without ``--full``."""
    params = [
        pytest.param(c, marks=() if c in lean else pytest.mark.thorough)
        for c in clients
    ]
    return pytest.mark.parametrize("faulty", params, indirect=True)


class Faulty:
    """A server of this test alone, and a cache on it."""

    def __init__(self, client: str) -> None:
        self.client = client
        name, self._backend, self._options = CLIENTS[client]
        self.is_redis = name != "memcached"
        need(name)
        if client == "pylibmc":
            need("pylibmc")
        self.server = SERVERS[name].another()

    def cache(self, port: int | None = None, **options: Any) -> Any:
        """Settings with this cache, perhaps behind another port."""
        where = f"127.0.0.1:{port or self.server.port}"
        settings = {
            "BACKEND": self._backend,
            "LOCATION": f"redis://{where}" if self.is_redis else where,
            "OPTIONS": self._options | options,
        }
        return override_settings(CACHES={"default": LOCMEM, ALIAS: settings})

    def redis(self) -> Any:
        import redis

        return redis.Redis(port=self.server.port)

    def memcached(self) -> Any:
        from pymemcache import Client

        return contextlib.closing(Client(("127.0.0.1", self.server.port)))


@pytest.fixture
def faulty(request, monkeypatch):
    monkeypatch.setattr(breaker, "PAUSE", 0.2)
    faulty = Faulty(request.param)
    yield faulty
    faulty.server.stop()


@pytest.fixture
def up(faulty):
    """The server runs, and the cache is in the settings."""
    faulty.server.start()
    with faulty.cache():
        yield faulty
        close()


def subjects(*shapes: str, **options: Any) -> list[Subject]:
    if not shapes:
        shapes = tuple(SHAPES) if is_full() else LEAN_SHAPES
    return [Subject(ALIAS, shape, **options) for shape in shapes]


# --- real servers, while eight threads call -------------------------------------------


@pytest.mark.grows
@on(CLIENTS)
def test_killed_and_started_again(up):
    with crowd(subjects()) as members:
        up.server.stop()
        members.losses(3)
        members.rounds(2)
        members.until(members.errors, "is noticed")
        up.server.start()


@on(["valkey", "pymemcache", "pylibmc"], lean=[])
def test_restarted_at_once(up):
    with crowd(subjects()) as members:
        for _ in range(2):
            up.server.stop()
            up.server.start()
            members.rounds(1)


@pytest.mark.grows
@on(EACH_KIND)
def test_stopped_and_continued(up):
    """What was sent meanwhile is done when it goes on, in whatever order."""
    with crowd(subjects()) as members:
        up.server.signal(signal.SIGSTOP)
        members.losses(2)
        members.rounds(1)
        members.writes = False
        up.server.signal(signal.SIGCONT)


@on(EACH_KIND)
def test_a_thousand_calls_on_a_stopped_server_cost_one_time_out_per_thread(up):
    """At most: those that were under way when it stopped."""
    subject = Subject(ALIAS, "plain")
    assert subject.f() == subject.f()

    def calls() -> list[Any]:
        try:
            return [subject.f() for _ in range(125)]
        finally:
            close()

    up.server.signal(signal.SIGSTOP)
    try:
        # Without trials: each would cost one more.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(breaker, "PAUSE", 600)
            answers = in_threads(8, calls)
    finally:
        up.server.signal(signal.SIGCONT)
    assert answers == [[("plain", 0, b"")] * 125] * 8
    assert 1 <= subject.info.errors <= 8
    assert subject.info.breaker == "open"


@pytest.mark.grows
@on(REDIS)
def test_out_of_memory(up):
    """What is there is served; the rest is computed; deleting needs no memory."""
    with up.redis() as client, crowd(subjects()) as members:
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", 1)
        members.until(members.errors, "is noticed")
        client.config_set("maxmemory", 0)
    if up.client != "django_redis":  # that one makes sure, by writing
        assert members.lost == []


@pytest.mark.grows
@on(["valkey", "redis"])
def test_evicting_whatever_comes(up):
    with up.redis() as client, crowd(subjects()) as members:
        room = client.info("memory")["used_memory"] + 200_000
        client.config_set("maxmemory-policy", "allkeys-random")
        client.config_set("maxmemory", room)
        for number in range(300):
            client.set(f"flood:{number}", b"x" * 5_000)
        members.rounds(2)
        assert client.info("stats")["evicted_keys"] > 100
        client.config_set("maxmemory", 0)
    assert members.lost == []


@pytest.mark.grows
@on(MEMCACHED)
def test_evicting_the_oldest(faulty):
    """The smallest server there is, without the thread that keeps what is read."""
    faulty.server.arguments += ["-m", "2", "-o", "no_lru_maintainer"]
    faulty.server.start()
    with faulty.cache():
        mine = subjects()
        with crowd(mine) as members:
            flood(faulty.server.port)
            members.rounds(1)
            flood(faulty.server.port)
        assert members.lost == []
        keys = [subject.key for subject in mine]
        assert caches[ALIAS].get_many(keys)
        flood(faulty.server.port)
        assert caches[ALIAS].get_many(keys) == {}
        close()


def flood(port: int) -> None:
    """More entries of every size that ours may have than the server has room for."""
    with socket.create_connection(("127.0.0.1", port)) as client:
        for size in range(60, 300, 20):
            entries = (
                b"set flood:%d:%d 0 60 %d noreply\r\n%s\r\n"
                % (size, number, size, b"x" * size)
                for number in range(6_000)
            )
            client.sendall(b"".join(entries))
        client.sendall(b"version\r\n")
        assert client.recv(100), "all is done"


@pytest.mark.grows
@on(EACH_KIND, lean=["pymemcache"])
def test_answering_slowly_and_later_than_the_time_out(up):
    """A late answer is nobody's: least of all that of the next question."""
    with Proxy(up.server.port) as proxy, up.cache(proxy.port):
        with crowd(subjects()) as members:
            proxy.delay = 0.02
            members.rounds(1)
            proxy.delay = 0.35
            members.losses(1)
            members.rounds(1)
            members.until(members.errors, "is noticed")
            proxy.delay = 0.0
        close()


@pytest.mark.grows
@on(EACH_KIND, lean=["valkey"])
def test_answers_that_get_lost(up):
    """The command was done, and nobody knows."""
    with Proxy(up.server.port) as proxy, up.cache(proxy.port):
        with crowd(subjects()) as members:
            answers = itertools.count(1)
            proxy.loses = lambda answer: next(answers) % 5 == 0
            members.losses(2)
            members.rounds(2)
            proxy.loses = lambda answer: False
        close()


class Jumping(Clock):
    """A clock that somebody sets."""

    offset = 0.0

    def time(self) -> float:
        return super().time() + self.offset


@on(["valkey"], lean=[])
def test_a_clock_that_is_set_by_an_hour(up):
    clock = Jumping()
    with crowd(subjects(_clock=clock)) as members:
        for offset in (3600, 0, -3600, 3600, 0):
            clock.offset = offset
            members.rounds(1)
            members.hits(2)
    assert members.lost == []


@on(["valkey"])
@pytest.mark.parametrize("refreshes", [False, True])
def test_a_clock_that_is_set_back_does_not_make_an_entry_last(up, refreshes):
    """The server bounds it by the timeout."""
    clock = FakeClock()
    subject = Subject(ALIAS, "plain", _clock=clock)
    with up.redis() as client:
        if refreshes:
            subject.f()
        clock.on_sleep = lambda: None
        subject.during = lambda: clock.tick(-600)
        subject.f.refresh()
        subject.during = lambda: None
        assert client.ttl(caches[ALIAS].make_key(subject.key)) <= 60
        subject.f.refresh()
        assert client.ttl(caches[ALIAS].make_key(subject.key)) <= 60


@pytest.mark.grows
@on(MEMCACHED)
def test_values_that_are_too_big_for_a_while(up):
    mine = subjects()
    with crowd(mine) as members:
        for subject in mine:
            subject.payload = b"x" * 2_000_000
        members.until(members.errors, "is noticed")
        for subject in mine:
            subject.payload = b""
    assert members.lost == []


@pytest.mark.grows
@on(EACH_KIND, lean=["valkey"])
def test_garbage_under_every_key(up):
    """Entries, leases, marks and the tokens of tags are truncated, and replaced by
    what nobody can read."""
    mine = subjects()
    keys = [subject.key for subject in mine]
    keys += sorted({tag for key in keys for tag in getattr(key, "tags", ())})
    with crowd(mine) as members, vandal(up) as ways:
        for way in ways:
            for key in keys:
                way(key)
            members.rounds(1)
    assert members.lost == []


@contextlib.contextmanager
def vandal(up: Faulty) -> Iterator[list[Callable[[str], object]]]:
    """Ways to spoil what stands under a key: through the cache, and behind its back."""
    cache = caches[ALIAS]
    gone = pickled_of_a_class_that_is_gone()

    def cut(size: int) -> Callable[[str], object]:
        def way(key: str) -> None:
            with contextlib.suppress(Exception):  # what the last way left there
                there = cache.get(key)
                # Never the whole: a lease or a token that was deleted would be back.
                cache.set(key, there[: min(size, len(there) - 1)], 60)

        return way

    def rename(key: str) -> None:
        with contextlib.suppress(Exception):
            found = record.parse(cache.get(key))
            if found.kind in record.ENTRIES:
                cache.set(key, gone + found.raw[found.end :], 60)

    ways = [*map(cut, (1, 26, 30, -1)), rename]
    for foreign in ("text", 5, None, {"a": "dict"}, b"", [b"x" * 26]):
        ways.append(functools.partial(cache.set, value=foreign, timeout=60))
    raw = [b"", b"\x80", b"12", b"{", gone, gone[:-5], b"\x00" * 26]
    with up.redis() if up.is_redis else up.memcached() as client:
        for number, piece in enumerate(raw):
            # To Memcached's clients these say what it is: a number, a pickle, zlib.
            flags = 2 ** (number % 5)
            how = {} if up.is_redis else {"noreply": False, "flags": flags}

            def way(key: str, piece: bytes = piece, how: Any = how) -> None:
                client.set(cache.make_key(key), piece, 60, **how)

            ways.append(way)
        yield ways


def pickled_of_a_class_that_is_gone() -> bytes:
    module: Any = types.ModuleType("vanishing")
    module.Gone = type("Gone", (), {"__module__": "vanishing"})
    sys.modules["vanishing"] = module
    try:
        return pickle.dumps(module.Gone())
    finally:
        del sys.modules["vanishing"]


#: What stands there. Memcached's clients believe its flags: a pickle, a number, zlib.
FOREIGN = {
    "a dict": lambda up, key: caches[ALIAS].set(key, {"a": "dict"}, 60),
    "nothing": lambda up, key: caches[ALIAS].set(key, None, 60),
    "broken pickle": lambda up, key: spoil(up, key, flags=1),
    "broken number": lambda up, key: spoil(up, key, flags=2),
    "broken zlib": lambda up, key: spoil(up, key, flags=8),
    "broken text": lambda up, key: spoil(up, key, flags=16),
}


def rpush(up: Faulty, key: str) -> None:
    with up.redis() as client:
        client.delete(caches[ALIAS].make_key(key))
        client.rpush(caches[ALIAS].make_key(key), "a list")


def spoil(up: Faulty, key: str, flags: int) -> None:
    full_key = caches[ALIAS].make_key(key)
    if up.is_redis:
        with up.redis() as client:
            client.set(full_key, b"\x80junk")
    else:
        with up.memcached() as client:
            client.set(full_key, b"\x80junk", 60, noreply=False, flags=flags)


@on(EACH_KIND)
@pytest.mark.parametrize("what", FOREIGN)
@pytest.mark.parametrize(
    "does", [pytest.param("call", marks=pytest.mark.thorough), "refresh"]
)
def test_what_is_foreign_is_a_miss_and_no_trouble(up, what, does):
    overwrites(up, FOREIGN[what], does)


@on(["valkey", "django_redis"])
@pytest.mark.parametrize("does", ["call", "refresh"])
def test_a_key_of_another_type_is_a_miss_and_no_trouble(up, does):
    overwrites(up, rpush, does)


def overwrites(up: Faulty, write: Callable[[Faulty, str], object], does: str) -> None:
    for subject in subjects("plain", "tagged", "stale"):
        for key in (subject.key, *getattr(subject.key, "tags", ())):
            write(up, key)
            errors = subject.info.errors
            operation = subject.f if does == "call" else subject.f.refresh
            assert operation()[:2] == subject.f()[:2] == (subject.shape, 0)
            assert subject.f.peek(), "it is cached again"
            assert subject.info.errors == errors
            assert subject.info.breaker == "closed"


@on(["valkey", "redis"])
def test_a_client_that_asks_again_does_not_wait_for_its_own_lease(up):
    """The answer to ``add`` gets lost; the second time the key is taken."""
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    clock = FakeClock()
    subject = Subject(ALIAS, "plain", _clock=clock)
    lost: list[bytes] = []

    def the_first(answer: bytes) -> bool:
        if lost or answer != b"+OK\r\n":
            return False
        lost.append(answer)
        return True

    again = {"retry": Retry(NoBackoff(), 3)}
    with Proxy(up.server.port) as proxy, up.cache(proxy.port, **again):
        caches[ALIAS].get("to-be-connected")
        proxy.loses = the_first
        subject.f()
        assert len(lost) == 1
        assert clock.sleeps == []
        assert subject.f() and subject.info.hits == 1
        close()


@pytest.mark.thorough
@pytest.mark.parametrize("faulty", ["valkey"], indirect=True)
def test_a_cluster_refuses_commands_over_several_slots(faulty):
    """Then the keys of a tagged call are read one by one."""
    faulty.server = SERVERS["valkey_cluster"].another()
    faulty.server.start()
    with faulty.cache():
        with pytest.raises(Exception, match="(?i)slot"):
            caches[ALIAS].get_many(["a", "b"])
        with crowd(subjects()) as members:
            members.rounds(2)
        assert members.errors() == 0
        assert members.lost == []
        close()


# --- a cache that fails on command ----------------------------------------------------

CHAOTIC = {
    "atomic": "tests.chaos.AtomicChaosCache",
    "voucher": "tests.chaos.ChaosCache",
}
ALL = 1000
#: What is done to every command in turn: to that one, or to all from there on.
HOWS = {
    "refuse": (1, ALL),
    "lose": (1, ALL),
    "hang": (1, ALL),
    "slow": (1, ALL),
    "swallow": (1, ALL),
    "deafen": (1, ALL),
    "truncate": (1, ALL),
    "replace": (1, ALL),
    "overtake": (1,),
}
#: An operation that sends more commands than this does not end.
MOST = 60


class Trouble(Exception):
    """The function's own."""


@pytest.fixture
def chaotic(request, monkeypatch):
    monkeypatch.setitem(backends._found, AtomicChaosCache, AtomicChaos())
    settings = {"default": LOCMEM, ALIAS: {"BACKEND": CHAOTIC[request.param]}}
    with override_settings(CACHES=settings, CACHE_MEMOIZE={"REFRESH": "inline"}):
        yield request.param
        CHAOS.off()
        caches[ALIAS].clear()


def call(subject):
    return subject.f()


def refresh(subject):
    return subject.f.refresh()


def fail(subject):
    subject.trouble = Trouble()
    try:
        with pytest.raises(Trouble):
            subject.f.refresh()
    finally:
        subject.trouble = None


def publish(subject):
    with contextlib.suppress(Exception):  # the floor rises only if it returned
        subject.publish()


def prime(subject):
    subject.f.prime((subject.shape, subject.now, b""))


def peek(subject):
    found = subject.f.peek()
    return found and found.value


OPERATIONS = [call, refresh, fail, publish, prime, peek]


LEAN_CHAOS = {("atomic", "tagged"), ("atomic", "stale")}


def on_chaos():
    for kind, shape in itertools.product(CHAOTIC, SHAPES):
        if (kind, shape) == ("voucher", "async"):
            continue
        lean = shape == "plain" or (kind, shape) in LEAN_CHAOS
        marks = () if lean else pytest.mark.thorough
        yield pytest.param(kind, shape, marks=marks)


@pytest.mark.parametrize("chaotic, shape", list(on_chaos()), indirect=["chaotic"])
def test_every_command_of_every_operation_fails(chaotic, shape):
    subject = Subject(ALIAS, shape, _clock=CHAOS.clock)
    subject.pause = 0
    # Each call of an async function makes a loop; on a backend that may wait, each
    # command is a thread's.
    hows = ("lose", "deafen", "overtake") if subject.is_async else tuple(HOWS)
    hows = hows[::2] if subject.is_async and chaotic == "voucher" else hows
    trials = 0
    for operation, warm in itertools.product(OPERATIONS, (False, True)):
        for how in hows:
            if operation is prime and how in ("hang", "overtake"):
                continue  # its value is older than what overtakes it
            for many in HOWS[how][: 1 if subject.is_async else 2]:
                for at in range(MOST):
                    trials += 1
                    if not named_trial(subject, operation, warm, how, at, many):
                        break
                else:
                    raise AssertionError(f"{operation.__name__}, {how}: no end")
    assert trials > 100


def named_trial(subject, operation, *args):
    try:
        return trial(subject, operation, *args)
    except BaseException as error:
        error.add_note(f"{operation.__name__}: {args}")
        raise


def trial(subject, operation, warm, how, at, many):
    """One operation while its n-th command fails; whether it had so many."""
    CHAOS.clock.catch_up()
    breaker.breaker_of(ALIAS).__init__()
    caches[ALIAS].clear()
    subject.begin_anew()
    if warm:
        subject.f()
        CHAOS.clock.tick(0.2)  # past the timeout of those that may be stale
    CHAOS.on(how, at, many)
    CHAOS.meanwhile = subject.publish
    got = operation(subject)
    happened, late = CHAOS.happened, CHAOS.late
    CHAOS.off()
    assert got is None or not subject.is_wrong(got, 0), (got, "at once")
    reads_well(subject, "afterwards")
    subject.publish()
    for command in late:
        command()
    reads_well(subject, "after what came late")
    CHAOS.clock.tick(30)
    hits = subject.info.hits
    for _ in range(4):
        reads_well(subject, "later")
        if subject.info.hits > hits:
            return happened
    raise AssertionError("it is not cached again")


def reads_well(subject, when):
    got = subject.f()
    assert not subject.is_wrong(got, subject.floor), (got, subject.floor, when)


# --- what the trials above must see ---------------------------------------------------


@pytest.mark.parametrize("chaotic", ["atomic"], indirect=True)
def test_an_invalidation_that_hides_its_loss_is_seen_by_the_chaos(chaotic, monkeypatch):
    for step in ("_invalidate_now", "_renew_now"):
        monkeypatch.setattr(invalidation, step, hiding(getattr(invalidation, step)))
    subject = Subject(ALIAS, "plain", _clock=CHAOS.clock)
    with pytest.raises(AssertionError, match="afterwards"):
        trial(subject, publish, True, "refuse", 0, 1)


def hiding(mark):
    async def hides(*args, **options):
        with contextlib.suppress(Exception):
            await mark(*args, **options)

    return hides


@on(["valkey"])
def test_a_store_that_does_not_compare_is_seen_by_the_crowd(up, monkeypatch):
    def swap(self, cache, key, old, new, seconds):
        cache.set(key, new, seconds)
        return True

    monkeypatch.setattr(backends.Redis, "swap", swap)
    subject = Subject(ALIAS, "plain")
    subject.pause = 0.005
    with Crowd([subject]) as members:
        members.until(lambda: False, "wrong is seen")
    assert members.wrong


@on(["valkey"])
def test_an_invalidation_that_hides_its_loss_is_seen_by_the_subject(up, monkeypatch):
    for step in ("_invalidate_now", "_renew_now"):
        monkeypatch.setattr(invalidation, step, hiding(getattr(invalidation, step)))
    subject = Subject(ALIAS, "plain")
    subject.f()
    with up.cache(port=1):
        subject.publish()
    breaker.breaker_of(ALIAS).__init__()
    assert subject.is_wrong(subject.f(), subject.floor)


# --- a server that loads the project before it forks ----------------------------------

#: Children of a process that has called, with threads that wait, and with locks held.
FORKS = """
import os, random, sys, threading, time
import django
django.setup()
from cache_memoize import cache_memoize
from cache_memoize.cache import breaker
from cache_memoize.protocol import threads as pool
from cache_memoize.clock import Clock
from cache_memoize.cache.store import Store

alias = sys.argv[1]
memoize = cache_memoize(60, prefix="forked", cache_alias=alias, lease=2)
f = memoize(lambda x: x)
runs = []
stale = cache_memoize(0.05, prefix="old", cache_alias=alias, lease=2, stale=60)
g = stale(lambda x: runs.append(x) or x)

def use(rounds, first=0):
    return all(
        f(x) == x == g(x)
        for n in range(rounds)
        for x in [(first + 3 * n) % 8]
    )

def together(rounds, first):
    right = []
    threads = [
        threading.Thread(target=lambda n=n: right.append(use(rounds, first + n)))
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    right.append(use(rounds, first))
    for thread in threads:
        thread.join()
    return right == [True] * 5

forked, used, ready = threading.Event(), threading.Barrier(4), threading.Barrier(5)

def parked(lock):
    use(8)
    used.wait()  # or another one would need the lock
    with lock:
        ready.wait()
        forked.wait()

def child(number, out):
    right = together(50, number)
    breaker.breaker_of(alias).failure(0.0)  # needs the lock
    before, looks = len(runs), 0
    while len(runs) == before and looks < 100:  # a thread of this process refreshes
        looks += 1
        time.sleep(0.05)
        g(0)
    os.write(out, Clock().token())
    return right and pool.join() and looks < 100

def ended(pid):
    for _ in range(300):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status == 0
        time.sleep(0.05)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    return False

use(8)
free = [threading.Lock() for _ in range(2)]
locks = [breaker.breaker_of(alias)._lock, pool._lock, *free]
assert pool.join()
threads = [threading.Thread(target=parked, args=(lock,)) for lock in locks]
for thread in threads:
    thread.start()
ready.wait()
random.seed(1)
come, out = os.pipe()
children = []
for number in range(3):
    pid = os.fork()
    if not pid:
        right = False
        try:
            right = child(number, out)
        finally:
            os._exit(not right)
    children.append(pid)
forked.set()
right = together(50, 5)
for thread in threads:
    thread.join()
right = [right, *map(ended, children)]
os.close(out)
tokens = os.read(come, 100)
different = len({tokens[n : n + 8] for n in range(0, len(tokens), 8)})
print(right, different)
"""
#: The same as a site: gunicorn loads it once and forks its workers.
SITE = """
import os, sys
import django
django.setup()
from pathlib import Path
from cache_memoize import cache_memoize

truth = Path(__file__).with_name("truth")

@cache_memoize(60, prefix="preloaded", cache_alias=os.environ["ALIAS"], lease=2)
def function(x):
    return x, int(truth.read_text())

for x in range(8):
    function(x)

def app(environ, start_response):
    x = int(environ["PATH_INFO"][1:])
    got = function(x)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{got[0]} {got[1]} {os.getpid()}".encode()]
"""
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


@needs_fork
@pytest.mark.backends(["locmem", "valkey", "django_redis", "pymemcache", "pylibmc"])
def test_children_of_a_process_that_has_called_work(backend):
    """They have neither its threads nor its locks nor its connections."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKS, backend],
        env=environment() | {"DJANGO_SETTINGS_MODULE": "tests.settings"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout == "[True, True, True, True] 3\n", done.stderr[-3000:]


@needs_fork
@pytest.mark.backends(["valkey", "pymemcache", "pylibmc"])
@pytest.mark.parametrize("threads", [1, pytest.param(4, marks=pytest.mark.thorough)])
def test_a_preloading_server(backend, threads, tmp_path):
    pytest.importorskip("gunicorn")
    (tmp_path / "site_of_test.py").write_text(SITE)
    truth = tmp_path / "truth"
    truth.write_text("1")
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "--preload", "-w", "3"]
        + ["--threads", str(threads), "-b", f"127.0.0.1:{port}", "site_of_test:app"],
        env=environment()
        | {"DJANGO_SETTINGS_MODULE": "tests.settings", "ALIAS": backend}
        | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
        cwd=tmp_path,
        stderr=subprocess.PIPE,
    )
    try:
        workers: set[int] = set()
        for _ in range(20):  # until more than one worker has answered
            found = visits(port, server)
            assert {got[:2] for got in found} == {(x, 1) for x in range(8)}
            workers |= {got[2] for got in found}
            if len(workers) > 1:
                break
        assert len(workers) > 1
        truth.write_text("2")
        memoize = cache_memoize(60, prefix="preloaded", cache_alias=backend)
        here = memoize(lambda x: (x, 2))
        for x in range(8):
            here.invalidate(x)
        found = visits(port, server)
        assert {got[:2] for got in found} == {(x, 2) for x in range(8)}
    finally:
        server.terminate()
        log = server.communicate(timeout=60)[1].decode()
        assert "Traceback" not in log, log[-3000:]


def visits(port: int, server: Any) -> list[tuple[int, ...]]:
    """What eight visitors got, each of them 24 times; all must be right."""
    wrong = []

    def visit(x: int) -> tuple[int, ...]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        with contextlib.closing(connection):
            connection.request("GET", f"/{x}")
            answer = connection.getresponse()
            assert answer.status == 200
            got = tuple(map(int, answer.read().split()))
        if got[0] != x:
            wrong.append((x, got))
        return got

    for _ in range(600):
        if reachable(port):
            break
        assert server.poll() is None, server.stderr.read().decode()
        time.sleep(0.05)
    found = in_threads(8, lambda: [visit(n % 8) for n in range(24)])
    assert wrong == []
    return [got for mine in found for got in mine]


def reachable(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
