"""Tests that travel in time, with time-machine and with freezegun: expiry, stale, age.

In memory everything travels. A server has a clock of its own, which does not.
"""

from __future__ import annotations

import datetime
import itertools
import time

import pytest
from asgiref.sync import async_to_sync
from django.core.cache import caches

from cache_memoize import cache_memoize
from cache_memoize.protocol import threads
from cache_memoize.testing import assert_hits
from tests.conftest import in_thread

freezegun = pytest.importorskip("freezegun")
time_machine = pytest.importorskip("time_machine")

#: Caches by whose clock they forget: that of a server, or ours.
SERVERS = ["valkey", "django_redis", "pymemcache"]
OURS = ["locmem", "sqlite", "postgresql", "file"]
START = datetime.datetime(2031, 5, 6, 7, 8, 9, tzinfo=datetime.UTC)
_numbers = itertools.count()


class TimeMachine:
    def __init__(self, start):
        self.travel = time_machine.travel(start, tick=False)

    def __enter__(self):
        self.traveller = self.travel.start()
        return self

    def __exit__(self, *error):
        self.travel.stop()

    def shift(self, seconds):
        self.traveller.shift(seconds)


class Freezegun(TimeMachine):
    def __init__(self, start):
        self.travel = freezegun.freeze_time(start)

    def shift(self, seconds):
        self.traveller.tick(datetime.timedelta(seconds=seconds))


@pytest.fixture(params=[TimeMachine, Freezegun])
def travel(request):
    return request.param


class Counted:
    """A memoized function that gives the number of its run."""

    def __init__(self, timeout, *, kind="sync", **options):
        self.runs = 0

        def function():
            self.runs += 1
            return self.runs

        async def afunction():
            return function()

        options.setdefault("prefix", f"travel{next(_numbers)}")
        decorate = cache_memoize(timeout, **options)
        self.memoized = decorate(function if kind == "sync" else afunction)
        self.kind = kind

    def __call__(self):
        if self.kind == "sync":
            return self.memoized()
        return async_to_sync(self.memoized)()

    def age(self):
        return self.memoized.peek().age


# --- on every cache ------------------------------------------------------------------


@pytest.mark.backends([*OURS, *SERVERS])
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_an_entry_expires_when_its_time_has_come(backend, travel, kind):
    with travel(START) as clock:
        f = Counted(10, cache_alias=backend, kind=kind)
        assert (f(), f()) == (1, 1)
        clock.shift(9)
        assert f() == 1 and f.age() == 9
        clock.shift(2)
        assert f.memoized.peek() is None
        assert (f(), f()) == (2, 2)
        assert f.age() == 0


@pytest.mark.backends([*OURS, *SERVERS])
def test_a_stale_entry_is_served_and_refreshed(backend, travel):
    with travel(START) as clock:
        f = Counted(10, stale=60, cache_alias=backend)
        f()
        clock.shift(11)
        entry = f.memoized.peek()
        assert (entry.value, entry.age, entry.stale) == (1, 11, True)
        with assert_hits(1, f.memoized):
            assert f() == 1
            assert threads.join()
        assert f.runs == 2 and f() == 2 and f.age() == 0
        clock.shift(71)  # too old to be served
        assert f.memoized.peek() is None
        assert f() == 3


@pytest.mark.backends([*OURS, *SERVERS])
def test_back_again_an_entry_is_from_the_future_for_up_to_an_hour(backend, travel):
    """Clocks of several hosts differ; more than an hour apart, one of them is wrong."""
    with travel(START) as clock:
        f = Counted(10, cache_alias=backend)
        f()
        clock.shift(-3500)
        assert f() == 1 and f.age() == 0
        clock.shift(-200)
        assert (f(), f()) == (2, 2)
        clock.shift(3700)
        assert f() == 3


@pytest.mark.backends([*OURS, *SERVERS])
def test_an_entry_is_there_when_the_journey_is_over(backend, travel):
    """Made in the past, it has expired; made in the future, it is computed anew."""
    f = Counted(10, cache_alias=backend)
    now = datetime.datetime.now(datetime.UTC)
    for days in (-400, 400):
        with travel(now + datetime.timedelta(days=days)):
            f()
        before = f.runs
        assert (f(), f()) == (before + 1, before + 1)


def test_the_whole_world_in_memory_travels(travel, memoize_cache):
    with travel(START) as clock:
        f = Counted(None, cache_alias="pymemcache")
        cache = caches["pymemcache"]
        cache.set("other", 1, 40 * 24 * 3600)
        f()
        clock.shift(39 * 24 * 3600)
        assert cache.get("other") == 1
        clock.shift(2 * 24 * 3600)
        assert cache.get("other") is None
        assert f() == 1


def test_a_refresh_ahead_of_time_comes_when_its_time_has_come(travel, memoize_cache):
    with travel(START) as clock:
        f = Counted(10, early_refresh=1, stale=5)
        f()
        clock.shift(9.9)
        assert f() == 1 and threads.join()
        clock.shift(2)
        assert f() == 1 and threads.join()
        assert f() == 2


# --- what does not travel ------------------------------------------------------------


@pytest.mark.backends(SERVERS)
def test_a_server_forgets_by_a_clock_of_its_own(backend, travel):
    """While time stands still for us, it passes there."""
    with travel(START):
        f = Counted(1, cache_alias=backend)
        f()
        key = f.memoized.get_cache_key()
        while caches[backend].get(key) is not None:
            time.sleep(0.05)  # not for the time: for the condition
        assert f() == 2


def test_in_memory_nothing_is_forgotten_while_time_stands_still(travel, memoize_cache):
    with travel(START):
        f = Counted(0.05)
        f()
        time.sleep(0.1)  # what passes for the machine
        assert f() == 1


@pytest.mark.backends(["pymemcache"])
def test_memcached_gets_dates_for_more_than_thirty_days(backend, travel):
    """In the past, such a date is over for the server: nothing is kept."""
    f = Counted(40 * 24 * 3600, cache_alias=backend)
    now = datetime.datetime.now(datetime.UTC)
    with travel(now - datetime.timedelta(days=100)):
        assert (f(), f()) == (1, 2)
    with travel(now + datetime.timedelta(days=100)):
        assert (f(), f()) == (3, 3)


def test_the_first_frames_of_a_thread_do_not_travel_with_freezegun(memoize_cache):
    """It leaves alone what runs close to ``threading``; time-machine does not."""
    for travel, travels in [(TimeMachine, True), (Freezegun, False)]:
        with travel(START):
            there = in_thread(time.time)
            assert (there == START.timestamp()) is travels
            f = Counted(10)
            f()
            assert in_thread(f.memoized) == 1  # it looks twice, and deeper
