"""The line of the callers that wait for one key: one of them goes to the cache."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
import time
from typing import Any

import pytest
from asgiref.sync import ThreadSensitiveContext, async_to_sync, sync_to_async
from django.core.cache import caches
from django.test import override_settings

from cache_memoize import cache_memoize
from cache_memoize.cache import record
from cache_memoize.cache.store import Store
from cache_memoize.protocol import waiting
from cache_memoize.protocol.call import Call
from tests.chaos import close
from tests.conftest import close_connections, in_thread, plan_of, until
from tests.needs import need
from tests.servers import SERVERS
from tests.test_stampede import Waiters, in_threads

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
EVERYWHERE = pytest.mark.backends(["locmem", "valkey", "pymemcache", "unknown"])
KINDS = pytest.mark.parametrize("kind", ["threads", "tasks"])
CALLERS = 24


@pytest.fixture
def commands(monkeypatch: Any) -> list[str]:
    """The commands to the cache but the first read of each call."""
    seen: list[str] = []
    command = Store._command

    def note(self: Store, name: str, *args: Any) -> Any:
        seen.append(name)
        return command(self, name, *args)

    monkeypatch.setattr(Store, "_command", note)
    return seen


@pytest.fixture(autouse=True)
def no_line_is_left_behind():
    yield
    assert waiting._lines == {}


def memoized(kind: str, body: Any, **options: Any) -> Any:
    """A memoized function of its own name, sync or async."""
    memoize = cache_memoize(60, prefix=f"line.{os.urandom(4).hex()}", **options)
    if kind == "threads":
        return memoize(body)

    async def abody(*args: Any) -> Any:
        return await asyncio.to_thread(body, *args)

    return memoize(abody)


def together(kind: str, f: Any, number: int = CALLERS) -> list[Any]:
    """The results, or errors, of so many callers at once."""
    if kind == "threads":
        return in_threads(number, f)

    async def call() -> list[Any]:
        return await asyncio.gather(
            *(f() for _ in range(number)), return_exceptions=True
        )

    return async_to_sync(call)()


@EVERYWHERE
@KINDS
def test_one_caller_goes_to_the_cache_for_all(backend, kind, commands):
    """And each gets an object of its own."""
    clock, runs = Waiters(CALLERS - 1), []

    def body():
        runs.append(1)
        assert clock.all.wait(30)
        return ["value"]

    f = memoized(kind, body, cache_alias=backend, _clock=clock)
    results = together(kind, f)
    assert results == [["value"]] * CALLERS and runs == [1]
    assert len({id(each) for each in results}) == CALLERS
    assert commands.count("add") <= 2, "each caller has tried to take the key"
    assert f.cache_info().waits == CALLERS - 1


@EVERYWHERE
@KINDS
def test_each_raises_an_exception_of_its_own(backend, kind):
    clock, runs = Waiters(CALLERS - 1), []

    def body():
        runs.append(1)
        assert clock.all.wait(30)
        raise ValueError("for all")

    f = memoized(kind, body, cache_alias=backend, _clock=clock)
    results = together(kind, f)
    assert {each.args for each in results} == {("for all",)} and runs == [1]
    assert len({id(each) for each in results}) == CALLERS


@EVERYWHERE
@KINDS
def test_no_caller_raises_an_exception_from_before_its_call(backend, kind, monkeypatch):
    """It stands in line, and finds the mark that it has found before."""
    clock = Waiters(1)
    f = memoized(kind, lambda: "value", cache_alias=backend, _clock=clock)
    old = record.dumps_exception(ValueError("old"))
    mark = record.pack(record.FAILED, b"failure!", old)
    caches[backend].set(f.get_cache_key(), mark, 60)

    async def swap(self: Store, *args: Any) -> bool:
        monkeypatch.undo()
        if kind == "threads":
            assert clock.all.wait(30)
        else:
            assert await asyncio.to_thread(clock.all.wait, 30)
        raise OSError("the first of the line cannot take the key")

    monkeypatch.setattr(Store, "swap", swap)
    assert together(kind, f, 2) == ["value"] * 2


@EVERYWHERE
@KINDS
def test_an_invalidation_while_they_wait(backend, kind):
    """One of them computes anew, and all get what it has read."""
    source, clock, runs = ["old"], Waiters(CALLERS - 1), []

    def body():
        runs.append(1)
        found = source[0]
        if found == "old":
            assert clock.all.wait(30)
            source[0] = "new"
            in_thread(f.invalidate)
        return found

    f = memoized(kind, body, cache_alias=backend, _clock=clock)
    results = together(kind, f)
    assert sorted(results) == ["new"] * (CALLERS - 1) + ["old"]
    assert len(runs) == 2 and f.peek().value == "new"


def with_lease(f: Any, backend: str) -> bytes:
    """Another process computes."""
    lease = record.pack(record.LEASE, os.urandom(8))
    caches[backend].set(f.get_cache_key(), lease, 60)
    return lease


@pytest.mark.leaves_lease
@EVERYWHERE
@KINDS
def test_each_waits_for_as_long_as_it_may(backend, kind):
    f = memoized(kind, lambda: "mine", cache_alias=backend, wait=0.3)
    lease = with_lease(f, backend)
    began = time.monotonic()
    assert together(kind, f) == ["mine"] * CALLERS
    assert 0.25 < time.monotonic() - began < 10
    assert caches[backend].get(f.get_cache_key()) == lease


@pytest.mark.leaves_lease
@EVERYWHERE
@KINDS
def test_a_function_that_does_not_wait_is_in_no_line(backend, kind):
    f = memoized(kind, lambda: "mine", cache_alias=backend, wait=0)
    with_lease(f, backend)
    assert together(kind, f) == ["mine"] * CALLERS


@EVERYWHERE
def test_a_task_that_is_cancelled_gives_its_place_to_the_next(backend):
    clock = Waiters(CALLERS)
    f = memoized("tasks", lambda: "mine", cache_alias=backend, _clock=clock)
    with_lease(f, backend)

    async def call() -> list[Any]:
        tasks = [asyncio.create_task(f()) for _ in range(CALLERS)]
        await asyncio.to_thread(clock.all.wait, 30)
        for task in tasks[: CALLERS // 2]:  # the first, and some behind it
            task.cancel()
        await asyncio.wait(tasks[: CALLERS // 2])
        found = record.pack(record.CLEARED, b"nothing!")
        await caches[backend].aset(f.get_cache_key(), found, 60)
        return await asyncio.gather(*tasks[CALLERS // 2 :])

    assert async_to_sync(call)() == ["mine"] * (CALLERS // 2)
    assert f.cache_info().computations == 1


@pytest.mark.leaves_lease
@pytest.mark.slow_server
@KINDS
def test_while_they_wait_for_a_server_that_stops_one_of_them_asks_it(kind):
    need("valkey")
    server, clock = SERVERS["valkey"].another(), Waiters(CALLERS)
    server.start()
    settings = {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": f"redis://127.0.0.1:{server.port}",
        "OPTIONS": {"socket_timeout": 0.5, "socket_connect_timeout": 0.5},
    }
    with override_settings(CACHES={"default": settings}):
        f = memoized(kind, lambda: "mine", _clock=clock)
        with_lease(f, "default")

        def stop() -> None:
            assert clock.all.wait(30)
            server.signal(signal.SIGSTOP)
            stopped.append(time.monotonic())

        stopped: list[float] = []
        thread = threading.Thread(target=stop)
        thread.start()
        try:
            assert together(kind, f) == ["mine"] * CALLERS
            assert time.monotonic() - stopped[0] < 4
            assert f.cache_info().errors <= 4, "as many as were first"
        finally:
            thread.join()
            server.signal(signal.SIGCONT)
            close()
            server.stop()


def test_a_caller_does_not_wait_for_itself():
    """A receiver of a signal may make the same call."""
    f = memoized("threads", lambda: 1, cache_alias="locmem")
    call = waiting.Call(f._memoized, plan_of(f), plan_of(f).store, f.get_cache_key())
    outer, inner = waiting.Place(call), waiting.Place(call)
    assert outer.join() is None and inner.join() is None
    inner.share(None)
    inner.leave()
    outer.leave()
    inner.leave()


def test_a_child_has_no_lines():
    f = memoized("threads", lambda: 1, cache_alias="locmem")
    call = waiting.Call(f._memoized, plan_of(f), plan_of(f).store, f.get_cache_key())
    waiting.Place(call).join()
    with waiting._lock:
        waiting._after_fork()
        assert not waiting._lock.locked() and waiting._lines == {}


def test_a_loop_that_was_closed_is_not_woken():
    loop = asyncio.new_event_loop()
    future = loop.create_future()
    future.add_done_callback(print)
    loop.close()
    f = memoized("threads", lambda: 1, cache_alias="locmem")
    plan_of(f).astore.wake(future, 1)


# --- the thread that the leader needs ------------------------------------------------


async def leading(backend: str, end: Any) -> tuple[Any, Any, list[str], asyncio.Task]:
    """Functions sync and async of one key, their runs, and a task that computes."""
    runs: list[str] = []
    begun = asyncio.Event()
    memoize = cache_memoize(
        60, prefix=f"thread.{os.urandom(4).hex()}", cache_alias=backend
    )

    @memoize
    async def af():
        runs.append("async")
        if len(runs) == 1:
            begun.set()
            await end()
        return "value"

    @memoize
    def f():
        runs.append("sync")
        return "value"

    task = asyncio.create_task(af())
    await begun.wait()
    return f, af, runs, task


@pytest.mark.backends(["locmem", "valkey", "pymemcache", "sqlite"])
@pytest.mark.parametrize("what", ["sync", "async"])
def test_a_caller_computes_if_it_holds_the_thread_that_the_leader_needs(backend, what):
    """It stores too: else each that comes after it in that thread would compute."""

    async def main() -> tuple[list[Any], list[str]]:
        called = asyncio.Event()

        async def end() -> None:
            await called.wait()
            await sync_to_async(lambda: None)()

        f, af, runs, task = await leading(backend, end)
        call = sync_to_async(f if what == "sync" else lambda: async_to_sync(af)())
        calls = [asyncio.create_task(call()) for _ in range(6)]
        asyncio.get_running_loop().call_soon(called.set)  # they have the thread first
        results = await asyncio.gather(*calls, task)
        await sync_to_async(close_connections)()
        return results, runs

    began, before = time.monotonic(), set(waiting._leaders)
    results, runs = async_to_sync(main)()
    assert results == ["value"] * 7 and runs == ["async", what]
    gc.collect()
    assert not set(waiting._leaders) - before
    assert time.monotonic() - began < 5, "a lease is 10 seconds"


@pytest.mark.backends(["locmem", "valkey"])
@pytest.mark.parametrize("what", ["sync", "async"])
def test_a_caller_waits_if_it_holds_another_thread(backend, what):
    """As each request has its own under ASGI."""
    waits = threading.Event()

    class Noting(Waiters):
        def note(self, who: Any) -> None:
            waits.set()

    async def end() -> None:
        await asyncio.to_thread(waits.wait, 5)

    async def main() -> tuple[list[Any], list[str]]:
        async with ThreadSensitiveContext():
            f, af, runs, task = await leading(backend, end)
        f._memoized.clock.__class__ = af._memoized.clock.__class__ = Noting
        f._memoized.clock.waiting = af._memoized.clock.waiting = set()
        async with ThreadSensitiveContext():
            call = sync_to_async(f if what == "sync" else lambda: async_to_sync(af)())
            results = await asyncio.gather(call(), task)
            await sync_to_async(close_connections)()
        return results, runs

    results, runs = asyncio.run(main())
    assert results == ["value"] * 2 and runs == ["async"]


@pytest.mark.backends(["locmem"])
def test_a_guard_whose_leader_needs_this_thread_runs_once(backend):
    """Its lease is a hit."""
    runs = []

    async def main() -> list[Any]:
        begun, ended = asyncio.Event(), asyncio.Event()
        memoize = cache_memoize(
            60, prefix="guard.thread", cache_alias=backend, store_result=False, wait=0
        )

        @memoize
        async def af():
            runs.append(1)
            begun.set()
            await ended.wait()

        task = asyncio.create_task(af())
        await begun.wait()
        answer = await sync_to_async(memoize(lambda: runs.append(2)))()
        ended.set()
        return [answer, await task]

    assert async_to_sync(main)() == [True, None] and runs == [1]


def test_code_of_no_loop_has_no_seat():
    assert waiting._seat_in_loop() is None


@EVERYWHERE
def test_a_caller_that_joins_during_a_look_is_not_handed_it(backend, monkeypatch):
    """What the first one has seen was invalidated before the other one began."""
    f = memoized("threads", lambda: "new", cache_alias=backend)
    results: dict[str, Any] = {}

    def call(name: str) -> None:
        results[name] = f()
        close_connections()

    first, late = (threading.Thread(target=call, args=[n]) for n in ("first", "late"))
    command, looked = Store._command, []

    async def look_and_stop(self: Store, name: str, *args: Any) -> Any:
        found = await command(self, name, *args)
        is_entry = name == "get" and found and record.parse(found).kind == record.ENTRY
        if threading.current_thread() is first and is_entry and not looked:
            looked.append(found)
            in_thread(f.invalidate)
            late.start()
            until(lambda: any(line.others for line in waiting._lines.values()))
        return found

    caches[backend].set(f.get_cache_key(), record.pack(record.LEASE, b"another!"), 60)
    first.start()
    until(lambda: waiting._lines)
    monkeypatch.setattr(Store, "_command", look_and_stop)
    f.prime("old")
    for thread in (first, late):
        thread.join()
    assert looked and results == {"first": "old", "late": "new"}
    f.invalidate()


def test_the_next_in_line_does_not_try_what_the_first_has_left_to_an_outage():
    f = memoized("threads", lambda: "mine")
    plan, results = plan_of(f), []
    first = waiting.Place(Call(f._memoized, plan, plan.store, f.get_cache_key()))
    assert first.join() is None
    thread = threading.Thread(target=lambda: results.append(f()))
    thread.start()
    until(lambda: any(line.others for line in waiting._lines.values()))
    plan.breaker.tripped = True
    try:
        first.leave()
        thread.join()
    finally:
        plan.breaker.tripped = False
    assert results == ["mine"] and not f.peek()
