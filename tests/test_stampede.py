"""One computation per key at a time, without deadlocks."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
import types
from contextlib import suppress
from contextvars import Context, copy_context
from pathlib import Path

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.core.cache import caches

from cache_memoize import cache_memoize
from cache_memoize.cache import record
from cache_memoize.cache.backends import LocalMemory, backend_of
from cache_memoize.cache.breaker import breaker_of
from cache_memoize.cache.redis import Awaited
from cache_memoize.cache.store import Store, run
from cache_memoize.cache.tokens import Look
from cache_memoize.clock import Clock
from cache_memoize.protocol import threads, transactions
from cache_memoize.protocol.call import Call
from cache_memoize.protocol.claim import _Caller, _step, claim
from tests.conftest import FakeClock, World, close_connections, in_thread, plan_of
from tests.test_clocks import call_of

ROOT = Path(__file__).parents[1]
SHARED = ["valkey", "redis", "django_redis", "pymemcache", "pylibmc", "file"]


class Waiters(Clock):
    """Real time, in small steps; reports when a number of callers wait."""

    def __init__(self, expected):
        self.expected = expected
        self.waiting = set()
        self.all = threading.Event()

    def sleep(self, seconds):
        self.note(threading.get_ident())
        time.sleep(min(seconds, 0.002))

    async def asleep(self, seconds):
        self.note(asyncio.current_task())
        await asyncio.sleep(min(seconds, 0.002))

    def wait(self, future, seconds):
        self.note(threading.get_ident())
        return super().wait(future, seconds)

    async def await_future(self, future, seconds):
        self.note(asyncio.current_task())
        return await super().await_future(future, seconds)

    def note(self, who):
        self.waiting.add(who)
        if len(self.waiting) == self.expected:
            self.all.set()


def in_threads(number, call):
    results = []

    def work():
        try:
            results.append(call())
        except Exception as error:
            results.append(error)
        finally:
            close_connections()

    threads = [threading.Thread(target=work) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.mark.backends(
    ["locmem", *SHARED, "postgresql", "sqlite", "unknown", "pylibmc_without_cas"]
)
def test_a_cold_key_is_computed_once_by_eight_threads(backend):
    clock, runs = Waiters(7), []

    @cache_memoize(60, prefix="cold", cache_alias=backend, _clock=clock)
    def function():
        runs.append(1)
        assert clock.all.wait(30)
        return "value"

    assert in_threads(8, function) == ["value"] * 8
    assert runs == [1]


@pytest.mark.backends(["locmem", "valkey", "pymemcache", "file", "postgresql"])
def test_a_cold_key_is_computed_once_by_loops_and_threads_together(backend):
    """Two event loops with four tasks each, and four threads: one lease for all."""
    clock, runs = Waiters(11), []

    def body():
        runs.append(1)
        assert clock.all.wait(30)
        return "value"

    memoize = cache_memoize(60, prefix="mixed", cache_alias=backend, _clock=clock)

    @memoize
    def function():
        return body()

    @memoize
    async def afunction():
        return await asyncio.to_thread(body)

    async def together():
        return await asyncio.gather(*(afunction() for _ in range(4)))

    results = []
    extra = [
        threading.Thread(
            target=lambda: results.extend(in_thread(async_to_sync(together)))
        )
        for _ in range(2)
    ]
    for thread in extra:
        thread.start()
    results += in_threads(4, function)
    for thread in extra:
        thread.join()
    assert results == ["value"] * 12
    assert runs == [1]


@pytest.fixture(scope="module")
def four_processes():
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.worker"],
            env=environment(),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    yield workers
    for worker in workers:
        worker.communicate(timeout=60)
        assert worker.returncode == 0


@pytest.mark.thorough
@pytest.mark.backends(SHARED)
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_cold_key_is_computed_once_by_four_processes(
    backend, kind, tmp_path, four_processes
):
    log = tmp_path / "computations"
    for line, answer in ((f"{backend} {kind} 8 {log}", "ready"), ("go", "done")):
        for worker in four_processes:
            print(line, file=worker.stdin, flush=True)
        assert [w.stdout.readline() for w in four_processes] == [f"{answer}\n"] * 4
    assert len(log.read_text().splitlines()) == 1


def environment():
    """Return the environment of a process with the servers and folders of this one."""
    from tests.servers import SERVERS
    from tests.settings import FOLDER

    ports = {f"MEMOIZE_{name.upper()}": str(s.port) for name, s in SERVERS.items()}
    return os.environ | ports | {"MEMOIZE_FOLDER": FOLDER, "PYTHONPATH": str(ROOT)}


# --- holders that die, fail, or take their time --------------------------------------


def test_a_dead_holder_is_waited_for_until_its_lease_runs_out(world):
    f = world.memoize(60)(lambda_free())
    key = f.get_cache_key()
    world.cache.add(key, record.pack(record.LEASE, b"deadhand"), 10)

    def run_out():
        if len(world.clock.sleeps) == 5:
            in_thread(lambda: world.cache.delete(key))

    world.clock.on_sleep = run_out
    assert f() == 1 == f()
    assert len(world.clock.sleeps) == 5
    # Growing, jittered pauses: 10 ms first, a half more each time, with random = 0.5.
    expected = [0.0075 * 1.5**n for n in range(5)]
    assert world.clock.sleeps == pytest.approx(expected)


def lambda_free():
    runs = []

    def function():
        runs.append(1)
        return len(runs)

    return function


@pytest.mark.leaves_lease
@pytest.mark.parametrize("wait, budget", [(None, 10), (3, 3), (0, 0)])
def test_a_living_holders_lease_is_never_taken(world, wait, budget):
    """A caller that has waited long enough computes and does not change the key."""
    f = world.memoize(60, wait=wait)(lambda_free())
    key, lease = f.get_cache_key(), record.pack(record.LEASE, b"livehand")
    world.cache.add(key, lease, 60)
    assert f() == 1
    assert sum(world.clock.sleeps) == pytest.approx(budget)
    assert f() == 2
    assert world.cache.get(key) == lease


def test_a_computation_never_waits_so_circles_cannot_form(backend):
    """Sync; the asynchronous twin is below, because a sync body cannot await."""
    world = World(backend, "sync")
    memoized = {}

    def first(n=2):
        return ["first", *(memoized["second"](n - 1) if n else [])]

    def second(n=2):
        return ["second", *(memoized["first"](n - 1) if n else [])]

    memoized["first"] = world.memoize(60)(first)
    memoized["second"] = world.memoize(60)(second)
    assert memoized["first"]() == ["first", "second", "first"]
    assert world.clock.sleeps == []


@pytest.mark.backends(["locmem", "valkey"])
def test_recursion_with_the_same_arguments_computes_and_does_not_block(backend):
    clock, depth = FakeClock(), []

    @cache_memoize(60, prefix="self", cache_alias=backend, _clock=clock)
    def function():
        depth.append(1)
        return function() + 1 if len(depth) < 5 else 0

    assert function() == 4
    assert clock.sleeps == []
    assert function() == 4 and len(depth) == 5


@pytest.mark.backends(["locmem", "valkey"])
def test_async_recursion_and_child_tasks_do_not_block(backend):
    clock, depth = FakeClock(), []

    @cache_memoize(60, prefix="aself", cache_alias=backend, _clock=clock)
    async def function():
        depth.append(1)
        if len(depth) < 4:
            (inner,) = await asyncio.gather(function())
            return inner + 1
        return 0

    assert async_to_sync(function)() == 3
    assert clock.sleeps == []


@pytest.mark.backends(["locmem", "valkey", "pymemcache", "file"])
def test_crossed_calls_in_two_threads_end(backend):
    barrier = threading.Barrier(2)

    def memoize(function):
        prefix = f"crossed.{function.__name__}"
        options = {"cache_alias": backend, "ignore": ["inner"], "prefix": prefix}
        return cache_memoize(60, **options)(function)

    @memoize
    def one(inner=None):
        if inner:
            barrier.wait()
            inner()
        return 1

    @memoize
    def two(inner=None):
        if inner:
            barrier.wait()
            inner()
        return 2

    threads = [
        threading.Thread(target=lambda: (one(two), close_connections())),
        threading.Thread(target=lambda: (two(one), close_connections())),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    one.invalidate(), two.invalidate()


@pytest.mark.backends(["locmem", "valkey", "pymemcache", "file"])
@pytest.mark.parametrize("inherits", [False, True])
def test_a_circle_through_a_thread_without_the_context_lasts_one_wait(
    backend, inherits
):
    """The computation waits for the thread, and the thread for the computation."""
    clock, runs = FakeClock(), []

    @cache_memoize(60, prefix="pool", cache_alias=backend, wait=3, _clock=clock)
    def function():
        runs.append(1)
        if len(runs) > 1:
            return "inner"
        context = copy_context() if inherits else Context()
        return "outer", in_thread(lambda: context.run(function))

    assert function() == ("outer", "inner")
    assert sum(clock.sleeps) == pytest.approx(0 if inherits else 3)
    assert function() == ("outer", "inner") and len(runs) == 2


class Unpicklable(ValueError):
    def __init__(self, *args):
        super().__init__(*args)
        self.lock = threading.Lock()


@pytest.mark.backends(["locmem", "valkey", "pymemcache", "file", "unknown"])
@pytest.mark.parametrize("error", [ValueError("always"), Unpicklable("always")])
def test_waiters_of_a_holder_that_fails_raise_its_exception(backend, error):
    """Where it cannot be stored, they compute at once: they neither queue up behind one
    another nor wait in vain."""
    clock, runs = Waiters(7), []

    @cache_memoize(60, prefix="fails", cache_alias=backend, _clock=clock)
    def function():
        runs.append(time.monotonic())
        if len(runs) == 1:
            assert clock.all.wait(30)
        raise error

    results = in_threads(8, function)
    assert [type(r) for r in results] == [type(error)] * 8
    assert {r.args for r in results} == {("always",)}
    assert len(runs) == (8 if type(error) is Unpicklable else 1)
    with pytest.raises(ValueError, match="always"):
        function()  # who comes later computes
    assert len(runs) == (9 if type(error) is Unpicklable else 2)


@pytest.mark.backends(["locmem", "valkey", "pymemcache", "file"])
@pytest.mark.parametrize("wait", [0, 5])
@pytest.mark.parametrize("sign", [True, False])
def test_an_exception_is_in_the_cache_only_if_callers_may_wait_for_it(
    backend, settings, wait, sign
):
    """It may hold credentials, as the headers of a request."""
    settings.CACHE_MEMOIZE = {"SIGN": sign}

    @cache_memoize(60, prefix="secret", cache_alias=backend, wait=wait)
    def function():
        error = ConnectionError("refused")
        error.headers = {"Authorization": "Bearer 5ecret"}
        raise error

    with pytest.raises(ConnectionError):
        function()
    mark = caches[backend].get(function.get_cache_key())
    assert (b"5ecret" in mark) is bool(wait)


@pytest.mark.backends(["locmem", "valkey", "pymemcache", "file"])
def test_waiters_of_a_holder_that_is_to_exit_are_served_by_one_of_them(backend):
    clock, runs = Waiters(7), []

    @cache_memoize(60, prefix="exits", cache_alias=backend, _clock=clock)
    def function():
        runs.append(1)
        if len(runs) == 1:
            assert clock.all.wait(30)
            raise SystemExit
        time.sleep(0.05)
        return "value"

    def call():
        with suppress(SystemExit):
            return function()

    assert in_threads(8, call).count("value") == 7
    assert len(runs) == 2 and function.peek().value == "value"


@pytest.mark.backends(["locmem", "valkey", "pymemcache", "file"])
@pytest.mark.parametrize("how", ["refuses", "raises"])
def test_a_server_that_replaces_nothing_keeps_no_caller_waiting(
    backend, how, monkeypatch
):
    """As one that forbids scripts, or a Memcached without cas."""
    adapter = type(backend_of(caches[backend]))

    def swap(self, *args):
        if how == "raises":
            raise OSError("no permission")
        return False

    monkeypatch.setattr(adapter, "swap", swap)
    f = World(backend, "sync").memoize(60)(lambda: 1)
    for _ in range(2):
        assert f() == 1
        assert caches[backend].get(f.get_cache_key()) is None
        breaker_of(backend).__init__()
    caches[backend].set(f.get_cache_key(), "foreign")
    f.invalidate()
    assert caches[backend].get(f.get_cache_key()) in (None, b"") or f.peek() is None


@pytest.mark.backends(["locmem", "valkey", "pymemcache", "file"])
def test_a_lease_whose_answer_was_lost_is_freed_by_its_owner(backend, monkeypatch):
    add = Store.add

    async def lost(self, *args):
        await add(self, *args)
        raise OSError("the answer was lost")

    monkeypatch.setattr(Store, "add", lost)
    f = World(backend, "sync").memoize(60)(lambda: 1)
    assert f() == 1
    monkeypatch.undo()
    assert record.parse(caches[backend].get(f.get_cache_key())).kind == record.FAILED
    assert f() == f.peek().value == 1


def test_a_waiter_that_finds_the_lease_of_the_next_failure_computes(world):
    """The computation that it waited for failed, and another caller has the key."""
    f = world.memoize(60)(lambda_free())
    key = f.get_cache_key()
    world.cache.set(key, record.pack(record.LEASE, b"failing!"), 10)
    world.clock.on_sleep = lambda: in_thread(
        lambda: world.cache.set(key, record.pack(record.RETRY, b"nextone!"), 10)
    )
    assert f() == 1
    assert len(world.clock.sleeps) == 1
    world.cache.delete(key)


@pytest.mark.leaves_lease
def test_a_waiter_that_finds_the_next_lease_raises_the_exception_before_it(world):
    """Else a busy function that fails is computed by each caller that did not see the
    mark in time."""
    runs = []
    f = world.memoize(60)(lambda: runs.append(1))
    key, error = f.get_cache_key(), record.dumps_exception(ValueError("broken"))
    world.cache.set(key, record.pack(record.LEASE, b"failing!"), 10)

    def fail():
        world.cache.set(key, record.pack(record.FAILED, b"failing!", error), 10)
        assert run(claim(call_of(f))).lease is not None

    world.clock.on_sleep = lambda: in_thread(fail)
    with pytest.raises(ValueError, match="broken"):
        f()
    assert record.parse(world.cache.get(key)).kind == record.RETRY
    assert len(world.clock.sleeps) == 1 and runs == []


def test_a_newcomer_takes_the_key_over_from_a_failure_and_stores(world):
    f = world.memoize(60)(lambda_free())
    key = f.get_cache_key()
    world.cache.set(key, record.pack(record.FAILED, b"failure!"), 10)
    assert f() == 1 == f()
    assert world.clock.sleeps == []


def test_a_failed_mark_after_waiting_is_not_stored_over(world):
    f = world.memoize(60)(lambda_free())
    key = f.get_cache_key()
    mark = record.pack(record.FAILED, b"failure!")
    world.cache.set(key, record.pack(record.LEASE, b"failing!"), 10)
    world.clock.on_sleep = lambda: in_thread(lambda: world.cache.set(key, mark, 10))
    assert f() == 1
    assert world.cache.get(key) == mark


def test_a_computation_that_outlasts_its_lease_gets_longer_ones(world):
    key = None

    def function():
        world.clock.tick(25)
        if len(leases) < 1:  # the lease has run out: the key is empty
            in_thread(lambda: world.cache.delete(key))
        leases.append(1)
        return len(leases)

    leases = []
    f = world.memoize(600)(function)
    key = f.get_cache_key()
    call = Call(f._memoized, plan_of(f), plan_of(f).store, key)
    assert call.lease_seconds() == 10
    assert f() == 1
    assert f.peek() is None, "the right to store had run out"
    assert call.lease_seconds() == 75
    assert f() == 2 == f()


@pytest.mark.backends(["locmem"])
def test_a_guard_whose_run_takes_longer_than_a_caller_waits_is_not_run_twice(backend):
    clock, runs = FakeClock(), []

    @cache_memoize(300, store_result=False, cache_alias=backend, _clock=clock)
    def guard():
        runs.append(1)
        # Meanwhile another caller comes, and gives up waiting.
        assert in_thread(guard) is True
        return "ran"

    assert guard() == "ran" and guard() is True
    assert runs == [1]
    assert sum(clock.sleeps) == pytest.approx(10)


@pytest.mark.backends(["locmem", "valkey", "pymemcache", "file", "unknown"])
def test_a_guard_runs_once_when_calls_arrive_at_the_same_moment(backend):
    clock, runs = Waiters(7), []

    @cache_memoize(
        60, prefix="guard", store_result=False, cache_alias=backend, _clock=clock
    )
    def guard():
        runs.append(1)
        assert clock.all.wait(30)
        return "ran"

    assert sorted(map(str, in_threads(8, guard))) == ["True"] * 7 + ["ran"]
    assert runs == [1]


def test_sync_code_inside_an_event_loop_does_not_put_the_loop_to_sleep():
    clock = FakeClock()

    @cache_memoize(60, cache_alias="locmem", _clock=clock)
    def function():
        return "value"

    key = function.get_cache_key()
    caches["locmem"].set(key, record.pack(record.LEASE, b"thistask"), 10)

    async def main():
        return function()

    assert asyncio.run(main()) == "value"
    assert clock.sleeps == []
    caches["locmem"].clear()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
@pytest.mark.backends(["valkey", "file", "pymemcache"])
def test_a_fork_while_a_lease_is_held(backend):
    """The child calls, waits and gets the value; both sides go on working."""
    clock = Clock()

    @cache_memoize(60, prefix="forked", cache_alias=backend, _clock=clock)
    def function(n):
        if n == 1 and not child:
            child.append(os.fork())
            if child[0] == 0:
                os._exit(0 if function(2) == 2 else 1)
            _, status = os.waitpid(child[0], 0)
            assert status == 0
        return n

    child = []
    assert function(0) == 0
    assert function(1) == 1 and function(2) == 2 and function(1) == 1


@pytest.mark.backends(["valkey", "file"])
def test_a_holder_that_is_killed_costs_its_lease_and_no_more(backend, tmp_path):
    script = (
        "import os, django; os.environ['DJANGO_SETTINGS_MODULE'] = 'tests.settings'; "
        "django.setup(); from cache_memoize import cache_memoize\n"
        f"@cache_memoize(60, prefix='killed', cache_alias={backend!r}, lease=1)\n"
        "def f():\n    print('computing', flush=True); import sys; sys.stdin.read()\n"
        "f()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        env=environment(),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout.readline() == "computing\n"
        holder.send_signal(signal.SIGKILL)
        holder.wait()

    @cache_memoize(60, prefix="killed", cache_alias=backend, lease=1, wait=30)
    def f():
        return "value"

    assert f() == "value"
    assert f.peek().value == "value"


# --- cancellation --------------------------------------------------------------------


@pytest.mark.backends(["locmem", "valkey", "pymemcache", "file"])
def test_cancelling_the_leader_harms_no_caller_and_leaves_nothing(backend):
    runs = []

    @cache_memoize(60, prefix="cancel", cache_alias=backend)
    async def function():
        runs.append(1)
        if len(runs) == 1:
            started.set()
            await asyncio.sleep(60)
        return "value"

    async def main():
        global started
        started = asyncio.Event()
        leader = asyncio.create_task(function())
        await started.wait()
        followers = [asyncio.create_task(function()) for _ in range(5)]
        await asyncio.sleep(0)
        leader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leader
        assert await function() == "value"  # a newcomer
        assert await asyncio.gather(*followers) == ["value"] * 5
        assert await function() == "value"
        assert len(asyncio.all_tasks()) == 1

    async_to_sync(main)()


@pytest.mark.backends(["locmem", "valkey"])
def test_cancelling_a_follower_or_all_callers_leaves_nothing(backend):
    release = None

    @cache_memoize(60, prefix="all", cache_alias=backend)
    async def function():
        await release.wait()
        return "value"

    async def main():
        nonlocal release
        release = asyncio.Event()
        tasks = [asyncio.create_task(function()) for _ in range(4)]
        await asyncio.sleep(0.05)
        tasks[-1].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks[-1]
        release.set()
        assert await asyncio.gather(*tasks[:-1]) == ["value"] * 3
        await function.ainvalidate()
        release.clear()
        tasks = [asyncio.create_task(function()) for _ in range(4)]
        await asyncio.sleep(0.05)
        for task in tasks:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(d) for d in done] == [asyncio.CancelledError] * 4
        release.set()
        assert await function() == "value" == await function()

    async_to_sync(main)()


@pytest.mark.backends(["locmem", "valkey"])
def test_of_the_waiters_of_a_cancelled_leader_one_takes_over(backend):
    """Also if one leader after the other is cancelled."""
    runs, tasks = [], []

    @cache_memoize(60, prefix="storm", cache_alias=backend, _clock=Waiters(0))
    async def function():
        runs.append(asyncio.current_task())
        if len(runs) <= 5:
            await asyncio.sleep(60)
        return "value"

    async def main():
        tasks.extend(asyncio.create_task(function()) for _ in range(50))
        for number in range(1, 6):
            while len(runs) < number:
                await asyncio.sleep(0.002)
            runs[-1].cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert [d for d in done if d != "value"] == [
            d for d in done if isinstance(d, asyncio.CancelledError)
        ]
        assert done.count("value") == 45
        assert len(runs) == 6
        assert (await function.apeek()).value == "value"

    async_to_sync(main)()


@pytest.mark.backends(["locmem", "valkey"])
def test_a_task_that_outlives_the_computation_that_began_it_waits_again(backend):
    clock, runs, tasks = Waiters(1), [], []

    @cache_memoize(60, prefix="inner", cache_alias=backend, _clock=clock)
    async def inner():
        runs.append(1)
        await go_on.wait()
        return "value"

    @cache_memoize(60, prefix="outer", cache_alias=backend)
    async def outer():
        tasks.append(asyncio.create_task(later()))

    async def later():
        await outer_has_ended.wait()
        return await inner()

    async def main():
        nonlocal go_on, outer_has_ended
        go_on, outer_has_ended = asyncio.Event(), asyncio.Event()
        await outer()
        leader = asyncio.create_task(inner())
        while not runs:
            await asyncio.sleep(0.002)
        outer_has_ended.set()
        while not clock.waiting:
            await asyncio.sleep(0.002)
        go_on.set()
        assert [await leader, await tasks[0]] == ["value"] * 2
        assert len(runs) == 1

    go_on = outer_has_ended = None
    async_to_sync(main)()


@pytest.mark.backends(["locmem"])
def test_a_coroutine_that_is_closed_in_the_middle_frees_its_key(backend, monkeypatch):
    """It may not await anything: a thread does it."""
    monkeypatch.setattr(transactions, "has_connected", False)  # so no thread is asked

    @types.coroutine
    def stop():
        yield

    @cache_memoize(60, prefix="closed", cache_alias=backend)
    async def function():
        await stop()

    coroutine = function()
    coroutine.send(None)
    coroutine.close()
    assert threads.join()
    assert record.parse(caches[backend].get(function.get_cache_key())).kind == (
        record.CLEARED
    )


@pytest.mark.backends(["valkey", "pymemcache", "file"])
def test_cancelling_while_the_lease_is_being_written_frees_the_key(
    backend, monkeypatch
):
    """The thread that talks to the cache goes on; its lease must not be an orphan."""
    command = Store._command
    running, go_on = threading.Event(), threading.Event()
    monkeypatch.setattr(Awaited, "FIRST", 99)  # through the thread

    async def slow(self, name, *args):
        result = await command(self, name, *args)
        if name == "add":
            running.set()
            assert go_on.wait(30)
        return result

    monkeypatch.setattr(Store, "_command", slow)

    @cache_memoize(60, prefix="orphan", cache_alias=backend)
    async def function():
        return "value"

    async def main():
        task = asyncio.create_task(function())
        await asyncio.to_thread(running.wait)
        task.cancel()
        await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        there = await sync_to_async(caches[backend].get)(function.get_cache_key())
        assert record.parse(there).kind == record.CLEARED
        assert await function() == "value" == await function()

    async_to_sync(main)()


# --- more going on than one caller can follow ----------------------------------------


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_caller_that_loses_every_race_computes_and_stores_nothing(kind, monkeypatch):
    """It must not go on without a limit, nor take a busy cache for a broken one."""
    world = World("locmem", kind)
    f = world.memoize(60)(lambda_free())
    key, now = f.get_cache_key(), world.clock.time()
    monkeypatch.setattr(LocalMemory, "swap", lambda *args: False)
    unreadable = record.pack(record.ENTRY, b"t" * 8, b"no", start=now, timeout=60)
    for there in (record.pack(record.FAILED, b"t" * 8), unreadable):
        world.cache.set(key, there, 60)
        f()
        assert world.cache.get(key) == there
        f.refresh()  # the others may all fail, and leave an older value
        assert world.cache.get(key) is None
    assert f.cache_info()[:4] == (0, 4, 0, 0)
    world.cache.delete(key)


@pytest.mark.slow_server
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_time_out_that_the_client_hides_is_not_waited_for_again(kind, monkeypatch):
    world = World("unknown", kind)

    def slow(self, key, *args, **kwargs):
        world.clock.tick(2)
        return False

    f = world.memoize(60)(lambda_free())
    monkeypatch.setattr(type(world.cache), "add", slow)
    assert f() == 1
    assert world.clock.monotonic() == 4, "the cache was asked once more"
    assert f() == 2
    assert world.clock.monotonic() == 4
    assert f.cache_info()[:4] == (0, 2, 0, 1)
    assert f.cache_info().breaker == "open"


# --- clients that send a command twice -----------------------------------------------


@pytest.mark.backends(["locmem", "valkey", "unknown"])
@pytest.mark.parametrize("tags", [None, "t"])
@pytest.mark.parametrize("name", ["call", "refresh"])
def test_a_caller_does_not_wait_for_its_own_lease(world, monkeypatch, tags, name):
    """The answer to the first try was lost, and the client tried again."""
    f = world.memoize(60, tags=tags)(lambda_free())
    f(), f.invalidate()
    original = Store.take

    async def twice(self, key, old, lease, seconds):
        assert await original(self, key, old, lease, seconds)
        return await original(self, key, old, lease, seconds)

    monkeypatch.setattr(Store, "take", twice)
    assert (f if name == "call" else f.refresh)() == 2
    assert world.clock.sleeps == []
    monkeypatch.undo()
    assert f() == 2, "and it was stored"


@pytest.mark.backends(["locmem"])
def test_an_error_of_freeing_a_key_takes_no_block_away(backend, monkeypatch):
    """The lease has expired meanwhile, and a transaction blocks the key."""

    def swap(self, *args):
        raise OSError("the connection was lost")

    def function():
        caches[backend].set(f.get_cache_key(), block, 60)
        monkeypatch.setattr(LocalMemory, "swap", swap)
        raise ValueError

    block = record.pack_blocks(b"written.", {b"a token.": 10.0}, time.time())
    f = World(backend, "sync").memoize(60)(function)
    with pytest.raises(ValueError):
        f()
    assert caches[backend].get(f.get_cache_key()) == block


@pytest.mark.backends(["locmem"])
def test_a_waiter_that_cannot_read_the_exception_computes(backend):
    f = World(backend, "sync").memoize(60)(lambda: 1)
    call = Call(f._memoized, plan_of(f), plan_of(f).store, f.get_cache_key())
    caller = _Caller(call)
    caller.awaited = b"a token."
    mark = record.parse(record.pack(record.FAILED, caller.awaited, b"no pickle"))
    claimed = run(_step(caller, Look(mark)))
    assert claimed.found is None and claimed.lease is None
