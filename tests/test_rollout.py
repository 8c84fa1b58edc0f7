"""Two releases on one cache, and durations that no clock was made for."""

from __future__ import annotations

import datetime
import logging
import math

import pytest
from django.test import override_settings

from cache_memoize import process
from cache_memoize.cache import record, vouchers
from cache_memoize.protocol import threads as pool
from tests.conftest import ATOMIC, BACKENDS, World, counted

YEAR = 365 * 24 * 60 * 60


# --- a timeout that was shortened -----------------------------------------------------


@pytest.mark.parametrize("how", ["call", "map", "peek"])
@pytest.mark.parametrize("stored", [3600, None])
def test_a_shortened_timeout_is_valid_for_what_is_stored(world, how, stored):
    f, _ = counted(world, stored, prefix=f"shortened {how} {stored}")
    f(1)
    g, runs = counted(world, 60, prefix=f"shortened {how} {stored}")
    world.clock.tick(59)
    assert g(1) == 1 and g.map([1]) == [1] and g.peek(1).value == 1 and not runs
    world.clock.tick(2)
    if how == "peek":
        assert g.peek(1) is None
    else:
        runs.append(0)
        assert (g(1) if how == "call" else g.map([1])[0]) == 2
        assert g(1) == f(1) == 2


@pytest.mark.backends(ATOMIC)
def test_a_shortened_timeout_makes_an_entry_stale(world):
    f, _ = counted(world, 3600, stale=600, prefix="shortened and stale")
    f(1)
    g, runs = counted(world, 60, stale=600, prefix="shortened and stale")
    runs.append(0)
    world.clock.tick(61)
    assert g.peek(1).stale
    assert g(1) == 1
    assert pool.join()
    assert g(1) == 2


@pytest.mark.backends(["locmem"])
@pytest.mark.parametrize("timeout", [0.1, 0.7, 59.99, 1e9 + 1, 2**24 + 1])
def test_its_own_timeout_is_not_longer_than_itself(world, timeout):
    """Records hold timeouts in four bytes."""
    f, runs = counted(world, timeout)
    f(1)
    stored = world.raw(f.get_cache_key(1))
    assert stored.timeout <= f._memoized.plan.longest == record.cap(timeout)


@pytest.mark.backends(["locmem"])
def test_a_timeout_that_is_longer_or_known_later_changes_nothing(world):
    f, runs = counted(world, 60, prefix="lengthened")
    f(1)
    world.clock.tick(61)
    for timeout in (3600, None):
        g, _ = counted(world, timeout, prefix="lengthened")
        assert g.peek(1) is None
    h = world.memoize(timeout=lambda *_: 1, prefix="lengthened")(lambda x: 0)
    f(1)
    assert h(1) == 2


# --- releases that cannot read each other's entries -----------------------------------


@pytest.fixture
def minutes(monkeypatch):
    """Seconds that pass for the log."""
    passed = [0.0]
    monkeypatch.setattr(process.time, "monotonic", lambda: passed[0])
    return passed


def lines(caplog, text):
    return [each for each in caplog.messages if text in each]


@pytest.mark.backends(["locmem", "valkey"])
def test_with_another_secret_there_is_one_line_a_minute(backend, caplog, minutes):
    world = World(backend, "sync")
    f, runs = counted(world)
    for minute in range(1, 4):
        for secret in ("one", "another") * 3:
            with override_settings(SECRET_KEY=secret, CACHE_MEMOIZE={"SIGN": True}):
                before = len(runs)
                assert f(1) == before + 1, "a miss, and the right value"
        found = lines(caplog, f"cache {backend!r}: a record whose signature is wrong")
        assert len(found) == minute
        minutes[0] += 60


class Renamed:
    pass


@pytest.mark.backends(["locmem", "valkey"])
def test_with_another_class_there_is_one_line_a_minute(
    backend, caplog, minutes, monkeypatch
):
    caplog.set_level(logging.INFO, logger="cache_memoize")

    def one():
        return Renamed()

    def another():
        return Renamed()

    f, g = map(World(backend, "sync").memoize(60), (one, another))
    f(), g()
    for minute in range(1, 3):
        for each in (f, g, f, g):
            with monkeypatch.context() as patch:
                patch.delattr(f"{__name__}.Renamed")
                with pytest.raises(NameError):
                    each()
            each()
        assert len(lines(caplog, "unreadable entry")) == 2 * minute, "per function"
        minutes[0] += 61


def test_with_other_tags_each_release_computes_and_says_nothing(world, caplog):
    f, runs = counted(world, prefix="other tags", tags="old")
    g, others = counted(world, prefix="other tags", tags=["old", "new"])
    for number in range(1, 4):
        assert f(1) == number == f(1)
        assert g(1) == number == g(1)
    world.invalidate_tags("old")
    assert f(1) == 4 == g(1)
    assert not caplog.messages


# --- durations of decades -------------------------------------------------------------

DURATIONS = [
    *(years * YEAR for years in (1, 11, 12, 20, 31, 32, 60, 140, 9000)),
    30 * 24 * 60 * 60,
    30 * 24 * 60 * 60 + 1,
    2**31,
    2**31 + 1,
    2**32,
    1e300,
    math.inf,
    datetime.timedelta.max,
    datetime.timedelta(days=20 * 365),
]


@pytest.mark.backends(list(BACKENDS))
def test_what_is_kept_for_decades_is_stored(world):
    for number, duration in enumerate(DURATIONS):
        f, runs = counted(world, duration, prefix=f"decades {number}", tags="decades")
        assert [f(1), f(1)] == [1, 1], duration
        assert f.refresh(1) == 2 == f(1)
        f.prime(5, 1)
        assert f(1) == 5
        f.invalidate(1)
        assert f(1) == 3 == f(1), duration
        assert f.cache_info().errors == 0


@pytest.mark.parametrize("year, longest", [(2026, 11), (2036, 1), (2038, 0), (2100, 0)])
def test_after_2038_only_a_month_has_an_end_on_memcached(monkeypatch, year, longest):
    """And a lease has one at any time."""
    now = datetime.datetime(year, 2, 1).timestamp()
    monkeypatch.setattr(vouchers.time, "time", lambda: now)
    backend = vouchers.Voucher()
    month = 30 * 24 * 60 * 60
    assert backend.lifetime(month) == month and backend.lifetime(10) == 10
    assert (backend.longest // YEAR) == longest
    assert backend.lifetime(12 * YEAR) is None


@pytest.mark.backends(list(BACKENDS))
@pytest.mark.parametrize("option", ["stale", "wait", "lease", "hold"])
def test_any_duration_is_taken_in_any_option(world, option):
    for number, duration in enumerate(DURATIONS):
        if duration == math.inf and option in ("lease", "hold"):
            continue  # refused at decoration
        f, runs = counted(world, prefix=f"{option} {number}", **{option: duration})
        assert [f(1), f(1)] == [1, 1], duration
        f.invalidate(1)
        f(1)
        assert f.cache_info().errors == 0, duration
        world.cache.delete(f.get_cache_key(1))


@pytest.mark.backends(list(BACKENDS))
def test_the_mark_of_a_guard_is_kept_for_decades(world):
    for number, duration in enumerate(DURATIONS):
        options = {"store_result": False, "prefix": f"guard {number}"}
        f, runs = counted(world, duration, **options)
        f(1), f(1)
        assert len(runs) == 1, duration
        assert f.cache_info().errors == 0
