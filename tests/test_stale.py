"""Stale values: served at once while one caller refreshes them, and their expiry."""

from __future__ import annotations

import asyncio
import contextvars
import math
import threading
from contextlib import suppress

import pytest
from asgiref.sync import async_to_sync
from django.core.cache import caches
from django.core.cache.backends.base import InvalidCacheKey
from django.db import connection, transaction
from django.test import override_settings
from django.utils import timezone, translation

from cache_memoize import cache_memoize
from cache_memoize.cache import record
from cache_memoize.cache.store import Store
from cache_memoize.protocol import refresh
from cache_memoize.protocol import threads as pool
from cache_memoize.protocol.policy import Policy
from cache_memoize.stats.counters import moment
from tests.conftest import (
    ATOMIC,
    FakeClock,
    World,
    close_connections,
    in_thread,
    plan_of,
)
from tests.models import Post

SOME_ATOMIC = ["locmem", "valkey", "pymemcache", "file"]


def numbered(world, timeout=10, stale=100, **options):
    """A function that returns the number of its run; fails while ``trouble`` is set."""
    runs = []

    def function(x=0):
        runs.append(x)
        if function.trouble is not None:
            raise function.trouble
        return len(runs)

    function.trouble = None
    memoized = world.memoize(timeout, stale=stale, **options)(function)
    return memoized, runs, function


def later(f, *args):
    """Call, and let the refresh in the background end."""
    value = f(*args)
    assert pool.join()
    return value


# --- serving -------------------------------------------------------------------------


@pytest.mark.backends(ATOMIC)
def test_the_old_value_at_once_and_the_new_one_from_then_on(world):
    f, runs, _ = numbered(world)
    assert f(1) == 1
    world.clock.tick(9)
    assert later(f, 1) == 1 and runs == [1]
    world.clock.tick(2)
    assert f.peek(1).stale and f.peek(1).value == 1
    assert later(f, 1) == 1
    assert runs == [1, 1]
    assert not f.peek(1).stale
    assert later(f, 1) == 2 and len(runs) == 2
    info = f.cache_info()
    assert (info.hits, info.misses, info.stale) == (3, 1, 1)


@pytest.mark.backends(ATOMIC)
def test_after_timeout_and_stale_it_is_gone(world):
    f, runs, _ = numbered(world)
    assert f(1) == 1
    world.clock.tick(110.5)
    assert f.peek(1) is None
    assert f(1) == 2 == later(f, 1)
    assert f.cache_info().stale == 0


@pytest.mark.backends(ATOMIC)
def test_the_backend_keeps_it_for_timeout_and_stale_and_nothing_else(
    world, monkeypatch
):
    asked = []
    command = Store._command

    def noting(self, name, *args):
        if name in ("add", "swap", "set"):
            asked.append((name, math.ceil(args[-1])))
        return command(self, name, *args)

    monkeypatch.setattr(Store, "_command", noting)
    f, runs, _ = numbered(world)
    f(1)
    assert asked == [("add", 10), ("swap", 110)]
    asked.clear()
    world.clock.tick(12)
    later(f, 1)
    # Stamped, replaced; once more by a thread, if the loop ends before its task does.
    assert (asked[0], {*asked[1:]}) == (("swap", 98), {("swap", 110)})
    asked.clear()
    f.prime(5, 2)
    assert asked == [("add", 10), ("swap", 110)]


@pytest.mark.backends(ATOMIC)
def test_an_invalidated_value_is_never_served_stale(world):
    f, runs, _ = numbered(world, tags="t")
    assert f(1) == 1
    world.clock.tick(20)
    f.invalidate(1)
    assert f(1) == 2
    world.clock.tick(20)
    world.invalidate_tags("t")
    assert f(1) == 3
    world.clock.tick(20)
    f.invalidate_all()
    assert f(1) == 4 == f(1)


@pytest.mark.backends(SOME_ATOMIC)
@pytest.mark.parametrize("how", ["invalidate", "tag", "prime", "refresh"])
def test_a_change_during_a_refresh_wins_over_it(backend, how):
    world, inside = World(backend, "sync"), []
    runs = []

    def function(x=0):
        runs.append(x)
        number = len(runs)
        if number == 2:  # the refresh in the background
            inside.append(1)
            in_thread(others[how])
        return number

    f = world.memoize(10, stale=100, tags="t")(function)
    others = {
        "invalidate": lambda: f.invalidate(1),
        "tag": lambda: world.invalidate_tags("t"),
        "prime": lambda: f.prime(30, 1),
        "refresh": lambda: f.refresh(1),
    }
    f(1)
    world.clock.tick(20)
    assert later(f, 1) == 1
    assert inside == [1]
    expected = {"invalidate": 3, "tag": 3, "prime": 30, "refresh": 3}[how]
    assert later(f, 1) == expected == later(f, 1)


@pytest.mark.backends(["unknown", "pylibmc_without_cas"])
def test_backends_that_do_not_replace_atomically_serve_nothing_stale(world):
    """An invalidation of the old value in between could not be noticed."""
    f, runs, _ = numbered(world, early_refresh=1)
    assert f(1) == 1
    world.clock.tick(9.9)
    world.clock.luck = 1 - 1e-16
    assert f(1) == 1
    world.clock.tick(2)
    assert f(1) == 2 == f(1)
    assert f.cache_info().stale == 0


def test_exceptions_are_not_served_stale(world):
    f, runs, function = numbered(world, cache_exceptions=ValueError)
    function.trouble = ValueError("stored")
    for _ in range(2):
        with pytest.raises(ValueError, match="stored"):
            f(1)
    assert len(runs) == 1
    function.trouble = None
    world.clock.tick(11)
    assert f(1) == 2 == f(1)


# --- one refreshes -------------------------------------------------------------------


@pytest.mark.backends([*SOME_ATOMIC, "postgresql"])
def test_of_eight_threads_one_refreshes_and_none_waits(backend):
    clock, runs = FakeClock(), []
    go_on, barrier = threading.Event(), threading.Barrier(8)

    @cache_memoize(10, stale=100, prefix="eight", cache_alias=backend, _clock=clock)
    def f():
        runs.append(1)
        if len(runs) > 1:
            assert go_on.wait(30)
        return len(runs)

    f()
    clock.tick(20)
    results = []

    def call():
        barrier.wait()
        results.append(f())
        close_connections()

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [1] * 8, "no caller waited for the refresh, which goes on"
    go_on.set()
    assert pool.join()
    assert len(runs) == 2 and f() == 2
    assert clock.sleeps == []


@pytest.mark.backends(ATOMIC)
def test_a_refresher_that_died_is_followed_by_another_after_its_lease(world):
    f, runs, _ = numbered(world)
    f(1)
    key = f.get_cache_key(1)
    world.clock.tick(20)
    there = world.raw(key)
    claim = record.Stamp(world.clock.time(), 10.0, 1)
    world.cache.set(key, record.restamp(there, claim), 90)
    assert later(f, 1) == 1 and len(runs) == 1
    world.clock.tick(10.1)
    assert later(f, 1) == 1
    assert later(f, 1) == 2


@pytest.mark.backends(["locmem", "valkey"])
def test_a_clock_that_jumps_does_not_keep_refreshers_away_for_long(world):
    f, runs, _ = numbered(world)
    f(1)
    world.clock.tick(20)
    key = f.get_cache_key(1)
    ahead = record.Stamp(world.clock.time() + 3600, 10.0, 1)
    stamped = record.restamp(world.raw(key), ahead)
    world.cache.set(key, stamped, 90)
    assert later(f, 1) == 1
    assert later(f, 1) == 2


# --- a refresh that fails ------------------------------------------------------------


@pytest.mark.backends(ATOMIC)
def test_a_failing_refresh_leaves_the_old_value_and_is_tried_after_growing_pauses(
    world, caplog, monkeypatch
):
    monkeypatch.setattr("cache_memoize.process.time.monotonic", world.clock.monotonic)
    f, runs, function = numbered(world, stale=1000)
    assert f(1) == 1
    function.trouble = ValueError("broken")
    world.clock.tick(11)
    tried, began = [], moment(world.clock.time())
    for _ in range(400):  # a hundred seconds, four callers a second
        before = len(runs)
        assert later(f, 1) == 1
        if len(runs) > before:
            tried.append(world.clock.monotonic())
        world.clock.tick(0.25)
    pauses = [b - a for a, b in zip(tried, tried[1:], strict=False)]
    assert pauses[:6] == [1, 2, 4, 8, 16, 32]
    assert caplog.text.count("a refresh failed (ValueError was raised)") == 2, (
        "once a minute"
    )
    assert "broken" in caplog.text
    info = f.cache_info()
    assert info.failed == len(tried) and info.old_since == began
    function.trouble = None
    world.clock.tick(120)
    later(f, 1)
    assert f(1) == len(runs), "it works again, and the pauses start anew"
    assert world.raw(f.get_cache_key(1)).stamp.attempts == 0
    assert f.cache_info().old_since is None and f.cache_info().failed == len(tried)


@pytest.mark.parametrize("how", ["another call", "prime", "refresh"])
def test_the_next_stored_result_ends_the_time_of_old_values(how):
    world = World("locmem", "sync")
    f, _, function = numbered(world)
    f(1)
    world.clock.tick(11)
    function.trouble = ValueError("broken")
    later(f, 1)
    assert f.cache_info().old_since == moment(world.clock.time())
    function.trouble = None
    {"another call": f, "prime": lambda x: f.prime(5, x), "refresh": f.refresh}[how](2)
    assert f.cache_info().old_since is None


@pytest.mark.backends(SOME_ATOMIC)
def test_after_the_hard_end_the_exception_reaches_the_caller(world):
    f, runs, function = numbered(world)
    f(1)
    function.trouble = ValueError("broken")
    world.clock.tick(50)
    assert later(f, 1) == 1
    world.clock.tick(61)
    with pytest.raises(ValueError, match="broken"):
        f(1)


@pytest.mark.backends(SOME_ATOMIC)
def test_a_refresh_by_hand_tells_its_caller_and_keeps_the_old_value(world):
    f, runs, function = numbered(world)
    f(1)
    world.clock.tick(20)
    function.trouble = ValueError("broken")
    with pytest.raises(ValueError, match="broken"):
        f.refresh(1)
    assert later(f, 1) == 1
    assert f.cache_info().failed == 1
    function.trouble = None
    assert f.refresh(1) == len(runs) == f(1)


class Once:
    """Options that accept the first result only, and results that cannot be stored."""

    def __init__(self, kind):
        self.kind, self.options = kind, {}
        if kind in ("cache_if", "cache_if raises"):
            self.options["cache_if"] = lambda result, x=0: self.judge(result, True)
        if kind in ("timeout", "timeout raises", "negative"):
            self.options["timeout"] = lambda result, x=0: self.judge(result, 10)

    def judge(self, result, accepted):
        if self.accepts(result):
            return accepted
        if "raises" in self.kind:
            raise KeyError(self.kind)
        return -1 if self.kind == "negative" else 0

    @staticmethod
    def accepts(result):
        return result == 1

    def spoil(self, result):
        if not self.accepts(result) and self.kind == "pickle":
            return lambda: result
        return b"x" * 2_000_000 if result != 1 and self.kind == "size" else result


KINDS = [
    "cache_if",
    "cache_if raises",
    "timeout",
    "timeout raises",
    "negative",
    "pickle",
    "size",
]


def refresh_by_hand(f):
    with suppress(KeyError, ValueError):
        f.refresh(1)


def refresh_as_an_argument(f):
    with suppress(KeyError, ValueError):
        f(1, _refresh=True)


def refresh_many(f):
    for _ in f.warm([1]):
        pass


def refresh_in_place(f):
    inline = override_settings(CACHE_MEMOIZE={"REFRESH": "inline"})
    with inline, suppress(KeyError, ValueError):
        f(1)


@pytest.mark.parametrize("kind", KINDS[:-1])
@pytest.mark.parametrize(
    "refreshed",
    [
        lambda f: later(f, 1),
        refresh_in_place,
        refresh_by_hand,
        refresh_as_an_argument,
        refresh_many,
    ],
)
@pytest.mark.backends(["pymemcache", "locmem", "valkey"], lean=["pymemcache", "locmem"])
def test_a_refresh_whose_result_is_not_stored_leaves_the_old_value(
    world, kind, refreshed
):
    assert_old_value_stays(world, kind, refreshed)


@pytest.mark.backends(["pymemcache"])
def test_a_result_that_is_too_big_leaves_the_old_value(world):
    for refreshed in (lambda f: later(f, 1), refresh_by_hand):
        assert_old_value_stays(world, "size", refreshed)


def assert_old_value_stays(world, kind, refreshed):
    once, runs = Once(kind), []

    def function(x):
        runs.append(x)
        return once.spoil(len(runs))

    options = {"timeout": 10, "stale": 100} | once.options
    f = world.memoize(**options)(function)
    assert f(1) == 1
    world.clock.tick(20)
    refreshed(f)
    assert len(runs) == 2
    assert f.peek(1).value == 1 and f.peek(1).stale
    assert later(f, 1) == 1 and len(runs) == 2  # no other refresh for a while
    info = f.cache_info()
    assert info.failed == 1 and info.old_since == moment(world.clock.time())
    world.clock.tick(80)
    assert f.peek(1).value == 1
    world.clock.tick(11)
    assert f.peek(1) is None


@pytest.mark.parametrize("kind", KINDS[:-1])
def test_nor_does_one_of_a_fresh_entry_without_stale(kind):
    world, once, runs = World("locmem", "sync"), Once(kind), []

    def function(x):
        runs.append(x)
        return once.spoil(len(runs))

    f = world.memoize(**({"timeout": 10} | once.options))(function)
    assert f(1) == 1
    refresh_by_hand(f)
    assert f(1) == 1 and len(runs) == 2
    world.clock.tick(11)
    assert f.peek(1) is None


@pytest.mark.parametrize("kind", ["cache_if", "pickle"])
def test_nor_does_an_early_one(kind):
    world, once, runs = World("locmem", "sync"), Once(kind), []

    def function(x):
        runs.append(x)
        world.clock.tick(1)
        return once.spoil(len(runs))

    world.clock.luck = 1 - 1e-9
    f = world.memoize(10, early_refresh=1, **once.options)(function)
    assert f(1) == 1
    assert later(f, 1) == 1 and len(runs) == 2
    assert f.peek(1).value == 1
    assert f.cache_info().failed == 1


@pytest.mark.backends(SOME_ATOMIC)
def test_a_caller_that_refreshes_itself_and_gets_the_old_value_counts_as_well(world):
    f, runs, function = numbered(world)
    f(1)
    world.clock.tick(11)
    function.trouble = ValueError("broken")
    with override_settings(CACHE_MEMOIZE={"REFRESH": "inline"}):
        assert f(1) == 1 and len(runs) == 2
    assert f.cache_info().failed == 1


def test_a_new_result_that_is_not_stored_frees_the_waiting_callers():
    """Without an old value there is nothing to keep."""
    world = World("locmem", "sync")
    f, runs, _ = numbered(world, cache_if=lambda result, x=0: False)
    assert f.refresh(1) == 1
    assert f.peek(1) is None
    assert f(1) == 2 and not world.clock.sleeps


@pytest.mark.django_db(transaction=True)
def test_a_refresh_that_has_written_in_a_transaction_takes_the_old_value_along():
    """What it returned is not to be stored, and the row has changed."""
    world, wrote = World("locmem", "sync"), []

    def function(x):
        if wrote:
            transaction.set_autocommit(False)
            Post.objects.create(title="a")
        return len(wrote)

    f = world.memoize(10, stale=100)(function)
    assert f(1) == 0
    wrote.append(1)
    try:
        assert f.refresh(1) == 1
    finally:
        transaction.rollback()
        transaction.set_autocommit(True)
    assert f.peek(1) is None


# --- where it runs -------------------------------------------------------------------


@pytest.mark.backends(SOME_ATOMIC)
def test_inline_the_caller_that_found_it_gets_the_new_value(world):
    misses = []
    f, runs, function = numbered(world, miss_callable=lambda x: misses.append(x))
    with override_settings(CACHE_MEMOIZE={"REFRESH": "inline"}):
        f(1)
        world.clock.tick(20)
        assert f(1) == 2
        function.trouble = ValueError("broken")
        world.clock.tick(20)
        assert f(1) == 2, "a stale value is at hand"
        assert len(runs) == 3
        assert f(1) == 2 and len(runs) == 3
    info = f.cache_info()
    assert (info.hits, info.misses, info.stale) == (2, 2, 2)
    assert misses == [1, 1]


@pytest.mark.backends(["locmem"])
def test_context_language_and_time_zone_of_the_caller_go_along(world):
    variable = contextvars.ContextVar("variable", default="lost")
    seen = []

    def function():
        zone = timezone.get_current_timezone_name()
        seen.append((variable.get(), translation.get_language(), zone))
        return len(seen)

    f = world.memoize(10, stale=100)(function)
    f()
    world.clock.tick(20)
    with translation.override("de"), timezone.override("Asia/Tokyo"):
        token = variable.set("kept")
        f()
        variable.reset(token)
        assert pool.join()
    assert seen[1] == ("kept", "de", "Asia/Tokyo")


@pytest.mark.backends(["locmem"])
def test_a_result_of_changed_arguments_is_not_stored_under_the_old_key(world, caplog):
    """The refresh shares the objects with the caller, which goes on using them."""
    argument, runs = [1], []

    def function(numbers):
        runs.append(list(numbers))
        if len(runs) == 2:
            argument.append(99)
        return sum(numbers)

    f = world.memoize(10, stale=100)(function)
    f([1])
    world.clock.tick(20)
    assert later(f, argument) == 1
    assert "was changed during the call" in caplog.text
    assert later(f, [1]) == 1
    world.clock.tick(2)
    assert later(f, [1]) == 1 and later(f, [1]) == 1
    assert runs == [[1], [1], [1]]


@pytest.mark.backends(["locmem", "valkey"])
def test_arguments_that_changed_before_the_refresh_began_stop_it(backend, monkeypatch):
    world, jobs, runs, argument = World(backend, "sync"), [], [], [1]
    monkeypatch.setattr(pool, "submit", lambda job: jobs.append(job) or True)

    def function(numbers):
        runs.append(list(numbers))
        return sum(numbers)

    f = world.memoize(10, stale=100)(function)
    f([1])
    world.clock.tick(20)
    assert f(argument) == 1
    argument.append(2)
    jobs.pop()()
    assert runs == [[1]]
    assert f([1]) == 1 and len(jobs) == 1, "the next caller may begin at once"


@pytest.mark.backends(["locmem", "valkey"])
def test_a_full_queue_serves_stale_and_starts_no_refresh(backend, monkeypatch):
    world = World(backend, "sync")
    f, runs, _ = numbered(world)
    monkeypatch.setattr(pool, "QUEUE", 2)
    for n in range(20):
        f(n)
    started = len(runs)
    world.clock.tick(20)
    go_on = threading.Event()
    for _ in range(pool.THREADS):
        assert pool.submit(lambda: go_on.wait(30))
        while pool._jobs:
            threading.Event().wait(0.001)
    assert [f(n) for n in range(20)] == list(range(1, 21))
    assert len(pool._jobs) == 2
    assert len(runs) == started
    claimed = [world.raw(f.get_cache_key(n)).stamp.attempts for n in range(20)]
    assert claimed == [1, 1] + [0] * 18, "and later callers may refresh"
    go_on.set()
    assert pool.join()
    assert len(runs) == started + 2


def test_a_queue_that_fills_up_in_between_releases_the_right(monkeypatch):
    world = World("locmem", "sync")
    f, runs, _ = numbered(world)
    f(1)
    world.clock.tick(20)
    monkeypatch.setattr(pool, "submit", lambda job: False)
    assert f(1) == 1
    assert world.raw(f.get_cache_key(1)).stamp == record.NO_STAMP
    world.cache.clear()


def test_when_no_thread_can_be_started_the_caller_does_it(monkeypatch):
    """For instance at the end of the process."""
    world = World("locmem", "sync")
    f, runs, _ = numbered(world)
    f(1)
    world.clock.tick(20)

    def refuse(thread):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert f(1) == 2
    monkeypatch.undo()
    world.cache.clear()


def test_many_refreshes_use_few_threads():
    world = World("locmem", "sync")
    names = set()

    def function(x):
        names.add(threading.current_thread().name)
        alive.append(sum(t.name == "cache_memoize" for t in threading.enumerate()))
        return x

    alive = []
    f = world.memoize(10, stale=100)(function)
    for n in range(100):
        f(n)
    world.clock.tick(20)
    for n in range(100):
        f(n)
    assert pool.join()
    assert max(alive) <= pool.THREADS
    assert len(alive) == 200 and "cache_memoize" in names
    world.cache.clear()


@pytest.mark.django_db(transaction=True, databases=["default"])
def test_a_refresh_leaves_no_database_connection_open():
    from django.db import connections

    world, seen = World("locmem", "sync"), []

    def function():
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        seen.append(connections["default"])
        return len(seen)

    f = world.memoize(10, stale=100)(function)
    f()
    world.clock.tick(20)
    assert later(f) == 1
    assert seen[1] is not seen[0] and seen[1].connection is None
    world.cache.clear()


@pytest.mark.django_db
def test_in_a_test_case_the_caller_does_it():
    """No other thread sees the rows of an open test."""
    for kind in ("sync", "async"):
        world = World("locmem", kind)
        f, runs, _ = numbered(world)
        f(1)
        world.clock.tick(20)
        assert f(1) == 2
    world.cache.clear()


# --- in a loop -----------------------------------------------------------------------


def afunction(clock, alias="locmem"):
    runs = []

    @cache_memoize(10, stale=100, prefix="a", cache_alias=alias, _clock=clock)
    async def f(x=0):
        runs.append(x)
        if len(runs) > 1:
            await f.gate.wait()
        return len(runs)

    f.gate = asyncio.Event()
    return f, runs


@pytest.mark.backends(["locmem", "valkey"])
def test_a_refresh_in_the_loop_survives_the_request(backend):
    clock = FakeClock()
    f, runs = afunction(clock, backend)

    async def request():
        assert await f() == 1

    async def main():
        await request()
        clock.tick(20)
        task = asyncio.create_task(request())
        await task
        cancelled = asyncio.create_task(asyncio.sleep(60))
        await asyncio.sleep(0)
        cancelled.cancel()
        while len(runs) < 2:
            await asyncio.sleep(0)
        assert await f() == 1, "the refresh goes on; no caller waits"
        f.gate.set()
        await asyncio.gather(*refresh._tasks)
        assert await f() == 2

    async_to_sync(main)()
    assert not refresh._tasks


@pytest.mark.backends(["locmem", "valkey"])
def test_when_the_loop_ends_a_thread_goes_on(backend):
    """Under WSGI a loop lives as long as one request."""
    clock = FakeClock()
    f, runs = afunction(clock, backend)
    f.gate.set()
    async_to_sync(f)()
    clock.tick(20)
    assert async_to_sync(f)() == 1
    assert pool.join()
    assert async_to_sync(f)() == len(runs) > 1


def test_too_many_refreshes_in_loops_serve_stale_and_start_no_more(monkeypatch):
    clock = FakeClock()
    f, runs = afunction(clock)
    monkeypatch.setattr(refresh, "TASKS", 2)

    async def main():
        for n in range(5):
            f.gate.set()
            await f(n)
        f.gate.clear()
        clock.tick(20)
        assert [await f(n) for n in range(5)] == [1, 2, 3, 4, 5]
        assert len(refresh._tasks) == 2
        f.gate.set()
        await asyncio.gather(*refresh._tasks)
        assert len(runs) == 7

    async_to_sync(main)()
    caches["locmem"].clear()


# --- early refresh -------------------------------------------------------------------


@pytest.mark.parametrize(
    "age, timeout, cost, beta, luck, early",
    [
        (50, 60, 1, 1, 0.0, False),  # -ln(1) = 0: only at the timeout itself
        (60, 60, 1, 1, 0.0, True),
        (50, 60, 1, 1, 1 - math.exp(-9.99), False),
        (50, 60, 1, 1, 1 - math.exp(-10.01), True),
        (50, 60, 2, 1, 1 - math.exp(-5.01), True),
        (50, 60, 1, 2, 1 - math.exp(-5.01), True),
        (50, 60, 1, 2, 1 - math.exp(-4.99), False),
        (0, math.inf, 1e9, 9, 1 - 1e-16, False),
        (59, 60, 0, 1, 1 - 1e-16, False),
    ],
)
def test_early_is_the_formula_of_xfetch(age, timeout, cost, beta, luck, early):
    policy = Policy("f", early_refresh=beta)
    assert policy.is_early(age, timeout, cost, luck) is early
    if early:  # the hit path hands it over before that
        assert age >= timeout - policy.early_zone * cost


@pytest.mark.backends(ATOMIC)
def test_a_value_is_refreshed_early_by_luck_and_by_one(world):
    def function(x=0):
        runs.append(x)
        world.clock.tick(1 if len(runs) == 1 else 0)
        return len(runs)

    runs = []
    f = world.memoize(60, early_refresh=1)(function)
    f()
    world.clock.tick(50)  # age 51, cost 1: nine left
    world.clock.luck = 1 - math.exp(-8.99)
    assert later(f) == 1 and len(runs) == 1
    world.clock.luck = 1 - math.exp(-9.01)
    assert later(f) == 1 and len(runs) == 2
    assert later(f) == 2 and len(runs) == 2
    info = f.cache_info()
    assert (info.hits, info.misses, info.stale) == (3, 1, 0)


def test_zero_is_never_early(world):
    f, runs, _ = numbered(world, stale=0)
    f()
    world.clock.luck = 1 - 1e-16
    world.clock.tick(9.99)
    assert f() == 1 and len(runs) == 1


# --- jitter --------------------------------------------------------------------------


@pytest.mark.parametrize("luck, lives", [(0.0, 60), (0.5, 45), (0.999, 30.03)])
def test_jitter_shortens_by_up_to_its_fraction(world, luck, lives):
    f, runs, _ = numbered(world, timeout=60, stale=0, jitter=0.5)
    world.clock.luck = luck
    f()
    assert world.raw(f.get_cache_key()).timeout == pytest.approx(lives)
    world.clock.tick(lives - 0.01)
    assert f() == 1
    world.clock.tick(0.02)
    assert f() == 2


def test_jitter_does_not_change_unlimited_and_zero():
    for timeout in (0.0, math.inf):
        assert Policy("f", jitter=1.0).with_jitter(timeout, 0.7) == timeout
    assert Policy("f").with_jitter(60.0, 0.9) == 60.0


# --- options -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, words",
    [
        ({"stale": -1}, "stale= of .* must not be negative"),
        ({"stale": "1h"}, "stale= of .* takes seconds"),
        ({"jitter": 2}, "jitter= of .* from 0 to 1"),
        ({"jitter": -0.1}, "jitter= of .* from 0 to 1"),
        ({"jitter": True}, "jitter= of .* takes a number"),
        ({"jitter": None}, "jitter= of .* takes a number"),
        ({"early_refresh": -1}, "early_refresh= of .* of 0 or more"),
        ({"early_refresh": math.inf}, "early_refresh= of .* of 0 or more"),
        ({"early_refresh": math.nan}, "early_refresh= of .* of 0 or more"),
        ({"hold": None}, "hold= of .* must not be unlimited"),
        ({"hold": -1}, "hold= of .* must not be negative"),
        ({"stale": 1, "store_result": False}, "is a guard"),
        ({"early_refresh": 1, "store_result": False}, "is a guard"),
    ],
)
def test_options_that_cannot_be_right_are_refused_at_decoration(options, words):
    with pytest.raises((TypeError, ValueError), match=words):
        cache_memoize(60, **options)(close_connections)


def test_stale_without_a_limit():
    world = World("locmem", "sync")
    f, runs, _ = numbered(world, stale=None)
    f()
    world.clock.tick(1e8)
    assert later(f) == 1 and later(f) == 2
    world.cache.clear()


# --- what seldom happens -------------------------------------------------------------


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_stop_during_an_inline_refresh_goes_to_the_caller(kind, stop):
    world = World("locmem", kind)
    f, runs, function = numbered(world)
    f(1)
    world.clock.tick(20)
    function.trouble = stop()
    with override_settings(CACHE_MEMOIZE={"REFRESH": "inline"}), pytest.raises(stop):
        f(1)
    function.trouble = None
    assert f(1) == 1, "the old value is still there"
    assert pool.join()
    world.cache.clear()


def test_an_exception_that_is_cached_replaces_the_stale_value():
    world = World("locmem", "sync")
    f, runs, function = numbered(world, cache_exceptions=ValueError)
    f(1)
    world.clock.tick(20)
    function.trouble = ValueError("the new result")
    assert later(f, 1) == 1
    with pytest.raises(ValueError, match="the new result"):
        f(1)
    assert len(runs) == 2
    world.cache.clear()


def test_arguments_that_changed_before_a_task_began_stop_it():
    clock, runs, argument = FakeClock(), [], [1]

    @cache_memoize(10, stale=100, prefix="at", cache_alias="locmem", _clock=clock)
    async def f(numbers):
        runs.append(list(numbers))
        return sum(numbers)

    async def main():
        await f([1])
        clock.tick(20)
        assert await f(argument) == 1
        argument.append(2)
        await asyncio.gather(*refresh._tasks)
        assert runs == [[1]]

    async_to_sync(main)()
    caches["locmem"].clear()


def test_an_error_of_cache_if_in_a_task_is_logged(caplog):
    clock, wrong = FakeClock(), []

    def cache_if(result):
        if wrong:
            raise KeyError("cache_if")
        return True

    options = {"prefix": "ci", "cache_alias": "locmem", "cache_if": cache_if}

    @cache_memoize(10, stale=100, _clock=clock, **options)
    async def f():
        return 1

    async def main():
        await f()
        clock.tick(20)
        wrong.append(1)
        assert await f() == 1
        await asyncio.gather(*refresh._tasks, return_exceptions=True)
        await asyncio.sleep(0)

    async_to_sync(main)()
    assert "a refresh failed" in caplog.text
    caches["locmem"].clear()


@pytest.mark.parametrize("tried", [True, False])
def test_a_cache_that_is_down_after_a_failed_refresh(monkeypatch, tried, caplog):
    world = World("locmem", "sync")
    f, runs, function = numbered(world)
    f(1)
    world.clock.tick(20)

    def fail(self, key, version=None):
        raise ConnectionError("away")

    def trouble():
        monkeypatch.setattr(type(world.cache), "make_and_validate_key", fail)
        if not tried:
            plan_of(f).breaker.tripped = True
            plan_of(f).breaker._retry_at = 1e9
        raise ValueError("broken")

    f._memoized.func = lambda x: trouble()
    assert later(f, 1) == 1
    assert ("the cache failed after the call" in caplog.text) is tried
    monkeypatch.undo()
    world.cache.clear()


def test_releasing_a_right_that_one_does_not_have_does_nothing():
    from cache_memoize.cache.store import run
    from cache_memoize.protocol import settle
    from cache_memoize.protocol.call import Call, Claim

    world = World("locmem", "sync")
    f, _, _ = numbered(world)
    call = Call(f._memoized, plan_of(f), plan_of(f).store, "k")
    assert run(settle.postpone_refresh(call, Claim(), tried=True)) is None


@pytest.mark.parametrize("when", ["release", "postpone", "prime"])
def test_mistakes_of_the_project_are_raised_from_every_step(monkeypatch, when):
    """A key that the backend refuses is no outage."""
    world = World("locmem", "sync")
    f, runs, function = numbered(world)
    f(1)
    world.clock.tick(20)

    async def refuse(self, *args):
        raise InvalidCacheKey("refused")

    def broken(x):
        monkeypatch.setattr(Store, "swap", refuse)
        raise ValueError("broken")

    f._memoized.func = broken
    with (
        override_settings(CACHE_MEMOIZE={"REFRESH": "inline"}),
        pytest.raises(InvalidCacheKey),
    ):
        if when == "postpone":
            f(1)
        elif when == "prime":
            monkeypatch.setattr(Store, "swap", refuse)
            f.prime(5, 2)
        else:
            monkeypatch.setattr(Store, "swap", refuse)
            from cache_memoize.cache.store import run
            from cache_memoize.protocol import settle
            from cache_memoize.protocol.call import Call, Claim

            call = Call(f._memoized, plan_of(f), plan_of(f).store, "k")
            lease = record.pack(record.LEASE, b"a token.")
            run(settle.release(call, Claim(lease=lease)))
    monkeypatch.undo()
    world.cache.clear()


def test_a_refresh_during_hold_leaves_the_valid_entry(monkeypatch):
    """The tag is young for this function only: another one has no hold."""
    world = World("locmem", "sync")
    f, runs, _ = numbered(world, prefix="shared", tags="t")
    held, held_runs, _ = numbered(world, prefix="shared", hold=5, tags="t")
    held_runs.append(0)
    assert f(1) == 1
    assert held.refresh(1) == 2
    assert f.peek(1).value == 1
    world.cache.clear()
