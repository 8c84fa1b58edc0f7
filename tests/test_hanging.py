"""Servers that hang, and processes that are too busy to hear them.

Real servers that are stopped (SIGSTOP), clients that hide their errors, and threads
that hold the GIL.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import caches
from django.core.files import locks
from django.test import override_settings

from cache_memoize import cache_memoize
from cache_memoize.admin.overview import Overview
from cache_memoize.cache import backends, breaker, store
from cache_memoize.cache.breaker import breaker_of
from cache_memoize.describe import list_functions
from cache_memoize.process import Standstill
from cache_memoize.stats import sitewide
from cache_memoize.stats.reporter import reporter
from tests.chaos import close
from tests.needs import need
from tests.proxy import Proxy
from tests.servers import SERVERS

pytestmark = pytest.mark.slow_server
_DJANGO_REDIS = "django_redis.cache.RedisCache"
_MEMCACHED = "django.core.cache.backends.memcached"
#: Seconds of the time-outs of all clients.
TIMEOUT = 0.3
_SHORT = {"SOCKET_TIMEOUT": TIMEOUT, "SOCKET_CONNECT_TIMEOUT": TIMEOUT}
#: Client: the server, the backend, its options, and the time-outs that a call and an
#: invalidation may take.
CLIENTS: dict[str, tuple[str, str, dict[str, Any], int, int]] = {
    "redis": (
        "valkey",
        "django.core.cache.backends.redis.RedisCache",
        {"socket_timeout": TIMEOUT, "socket_connect_timeout": TIMEOUT},
        1,
        1,
    ),
    "django-redis": ("valkey", _DJANGO_REDIS, _SHORT, 1, 1),
    "django-redis that hides errors": (
        "valkey",
        _DJANGO_REDIS,
        _SHORT | {"IGNORE_EXCEPTIONS": True},
        1,
        1,
    ),
    # Vouchers: one more command, and one more look.
    "herd client that hides errors": (
        "valkey",
        _DJANGO_REDIS,
        _SHORT
        | {"IGNORE_EXCEPTIONS": True}
        | {"CLIENT_CLASS": "django_redis.client.HerdClient"},
        4,
        3,
    ),
    "pymemcache": (
        "memcached",
        f"{_MEMCACHED}.PyMemcacheCache",
        {"timeout": TIMEOUT, "connect_timeout": TIMEOUT},
        1,
        1,
    ),
    "pymemcache that hides errors": (
        "memcached",
        f"{_MEMCACHED}.PyMemcacheCache",
        {"timeout": TIMEOUT, "connect_timeout": TIMEOUT, "ignore_exc": True},
        3,
        3,
    ),
}


@pytest.fixture(params=CLIENTS)
def stopped(request: Any) -> Iterator[tuple[Any, int, int]]:
    """A server that is stopped after it has answered once, and the time-outs that a
    call and an invalidation may take."""
    name, backend, options, calls, invalidations = CLIENTS[request.param]
    need(name)
    server = SERVERS[name].another()
    where = f"127.0.0.1:{server.port}"
    settings = {
        "BACKEND": backend,
        "LOCATION": where if name == "memcached" else f"redis://{where}",
        "OPTIONS": options,
    }
    server.start()
    with override_settings(CACHES={"default": settings}):
        try:
            yield server, calls, invalidations
        finally:
            close()
            server.stop()


def took(action: Any) -> float:
    began = time.monotonic()
    action()
    return time.monotonic() - began


def test_the_first_hidden_failure_counts(stopped, monkeypatch, caplog):
    """A call, each try after a pause, and an invalidation end after few time-outs."""
    server, calls, invalidations = stopped
    f = cache_memoize(60, prefix="hanging")(lambda x: x)
    assert [f(1), f(1)] == [1, 1] and f.cache_info().hits == 1
    server.signal(signal.SIGSTOP)
    try:
        assert took(lambda: f(1)) < (calls + 0.9) * TIMEOUT
        assert f.cache_info().breaker == "open"
        assert took(lambda: f(2)) < TIMEOUT, "it is left alone"
        with monkeypatch.context() as patch:
            patch.setattr(breaker, "PAUSE", 0.0)
            f(1)  # the next pause is over at once
            for _ in range(2):
                assert took(lambda: f(1)) < (calls + 0.9) * TIMEOUT
        breaker_of("default").__init__()

        def invalidate() -> None:
            with pytest.raises(Exception, match="(?s)."):
                f.invalidate(1)

        assert took(invalidate) < (invalidations + 0.9) * TIMEOUT
    finally:
        server.signal(signal.SIGCONT)
    said = [one.getMessage() for one in caplog.records if "left alone" in one.msg]
    assert len(said) in (1, 2), "once, and once more as the breaker was made anew"


@pytest.mark.parametrize("stopped", ["redis", "pymemcache"], indirect=True)
def test_a_page_of_the_admin_waits_for_one_time_out_per_cache(stopped, monkeypatch):
    """However many functions it has; and says which cache does not answer."""
    server, _, _ = stopped
    functions = [cache_memoize(60, prefix=f"page{n}")(lambda x: x) for n in range(8)]
    monkeypatch.setattr(sitewide, "_rests", {})
    reporter.add(sitewide.tell)
    try:
        for f in functions:
            f(1)
        reporter.flush_stats()
        for f in functions:
            f(2)
        server.signal(signal.SIGSTOP)
        mine = [i for i in list_functions() if i.alias == "default"]
        assert took(lambda: Overview(mine)) < 2.9 * TIMEOUT
        assert Overview(mine).silent == ["default"]
        assert took(lambda: Overview(mine)) < 0.9 * TIMEOUT
    finally:
        server.signal(signal.SIGCONT)
        reporter.remove(sitewide.tell)


# --- a process that is stopped while it holds the lock of a folder --------------------

_HOLDER = """
import fcntl, os, signal, sys
file = open(sys.argv[1], "ab")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
"""


def lock_file() -> str:
    return f"{caches['file']._dir}/cache_memoize.lock"


@pytest.mark.backends(["file"])
def test_a_process_that_is_stopped_inside_a_file_store(world, monkeypatch):
    """Hits are served; others compute, and wait once at most; invalidations raise."""
    monkeypatch.setattr(backends, "LOCK_TIMEOUT", 0.5)
    runs = []
    f = world.memoize(60)(lambda x: runs.append(x) or x)
    assert f(1) == 1
    command = [sys.executable, "-c", _HOLDER, lock_file()]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout and holder.stdout.readline() == b"held\n"
        try:
            assert [f(1), f(1)] == [1, 1] and runs == [1]
            assert took(lambda: f(2)) < 2
            assert took(lambda: f(2)) < 0.5 and runs == [1, 2, 2]
            with pytest.raises(BlockingIOError, match="cache_memoize.lock.*fuser"):
                f.invalidate(1)
            assert f(1) == 1 and f.cache_info().breaker == "closed"
        finally:
            holder.kill()
    assert [f(2), f(2)] == [2, 2] and runs == [1, 2, 2, 2]
    f.invalidate(1)
    assert f.peek(1) is None


@pytest.mark.backends(["file"])
def test_a_lock_that_goes_from_hand_to_hand_is_waited_for(backend, monkeypatch):
    """However long that takes: each holder is a new one."""
    monkeypatch.setattr(backends, "LOCK_TIMEOUT", 0.4)
    f = cache_memoize(60, prefix="handed", cache_alias=backend)(lambda: 1)
    held = threading.Event()

    def hold() -> None:
        with Path(lock_file()).open("ab") as file:
            locks.lock(file, locks.LOCK_EX)
            held.set()
            for _ in range(80):
                os.utime(lock_file())
                time.sleep(0.01)

    f.invalidate()
    caches[backend].add("folder", 1)  # makes it
    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(10)
    assert f() == 1 and f.peek() is not None
    thread.join()


# --- a busy process ------------------------------------------------------------------


@contextlib.contextmanager
def busy(seconds: float) -> Iterator[None]:
    """Another thread holds the GIL for so long, again and again."""
    end = threading.Event()

    def hold() -> None:
        while not end.is_set():
            ctypes.PyDLL(None).usleep(int(seconds * 1e6))

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


@pytest.mark.backends(["valkey", "django_redis", "pymemcache", "sqlite", "unknown"])
def test_a_busy_process_beside_a_healthy_server(backend, monkeypatch):
    """Every answer comes late, because it is read late."""
    monkeypatch.setattr(store, "SLOW", 0.05)
    monkeypatch.setattr(Standstill, "STEP", 0.001)  # a fiftieth of that, as ever
    runs = []

    @cache_memoize(60, prefix="busy", cache_alias=backend)
    def f(x):
        runs.append(x)
        return x

    with busy(0.08):
        for _ in range(3):
            assert [f(1), f(2)] == [1, 2]
        f.invalidate(1)
    assert f.cache_info().breaker == "closed"
    assert runs == [1, 2]
    assert f(1) == 1 and runs == [1, 2, 1]


def test_a_server_that_takes_long_beside_an_idle_process(servers, monkeypatch):
    monkeypatch.setattr(store, "SLOW", 0.05)
    server = servers("valkey")
    with Proxy(server.port) as proxy:
        settings = {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": f"redis://127.0.0.1:{proxy.port}",
        }
        with override_settings(CACHES={"default": settings}):
            f = cache_memoize(60, prefix="slow")(lambda x: x)
            assert f(1) == 1 and f.cache_info().breaker == "closed"
            proxy.delay = 0.1
            assert f(2) == 2 and f.cache_info().breaker == "open"
            close()


def test_a_standstill_is_measured():
    with Standstill() as standstill, busy(0.1):
        time.sleep(0.01)
    assert standstill.seconds > 0.05


def test_without_a_thread_nothing_is_measured(monkeypatch):
    def start(self):
        raise RuntimeError("can't start new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", start)
    with Standstill() as standstill:
        pass
    assert standstill.seconds == 0.0
