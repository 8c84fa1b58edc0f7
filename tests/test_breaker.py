"""When a cache is left alone: the circuit breaker, with the time in our hands."""

from __future__ import annotations

import itertools
import threading

import pytest

from cache_memoize.cache import breaker
from cache_memoize.cache.breaker import (
    PAUSE,
    THRESHOLD,
    WINDOW,
    Breaker,
    breaker_of,
)


def tripped(now=100.0):
    breaker = Breaker()
    assert breaker.failure(now, hanging=True)
    return breaker


def test_a_new_breaker_is_closed():
    breaker = Breaker()
    assert not breaker.tripped and not breaker.blocks(0.0)
    assert breaker.state(0.0) == "closed"
    assert breaker.success() is False


def test_three_failures_in_a_row_open_it_and_only_the_third_says_so():
    breaker = Breaker()
    assert [breaker.failure(now) for now in (100.0, 101.0)] == [False, False]
    assert breaker.state(101.0) == "closed" and not breaker.blocks(101.0)
    assert breaker.failure(102.0) is True
    assert breaker.state(102.0) == "open" and breaker.blocks(102.0)
    assert breaker.failure(102.5) is False
    assert THRESHOLD == 3


def test_one_that_hangs_opens_it_at_once():
    """A hanging server costs once."""
    breaker = Breaker()
    assert breaker.failure(100.0, hanging=True) is True
    assert breaker.blocks(100.0)


def test_failures_that_are_far_apart_do_not_add_up():
    breaker = Breaker()
    for number in range(10):
        assert breaker.failure(100.0 + number * (WINDOW + 0.001)) is False
    assert not breaker.tripped


def test_failures_just_within_the_window_do():
    breaker = Breaker()
    results = [breaker.failure(100.0 + number * WINDOW) for number in range(3)]
    assert results == [False, False, True]


def test_a_success_in_between_starts_the_count_anew():
    breaker = Breaker()
    for now in (100.0, 101.0):
        breaker.failure(now)
    assert breaker.success() is False  # it was not open
    assert breaker.failure(102.0) is False
    assert breaker.failure(103.0) is False
    assert breaker.failure(104.0) is True


def test_it_stays_open_for_five_seconds():
    breaker = tripped(100.0)
    assert all(breaker.blocks(100.0 + passed) for passed in (0.0, 2.5, 4.999))
    assert PAUSE == 5.0


def test_then_one_caller_tries_and_the_others_go_on_without():
    breaker = tripped(100.0)
    assert breaker.state(104.999) == "open"
    assert breaker.state(105.0) == "half-open"
    assert [breaker.blocks(105.0) for _ in range(4)] == [False, True, True, True]
    assert breaker.state(105.0) == "open"


def test_of_many_threads_one_tries():
    breaker = tripped(100.0)
    results, start = [], threading.Barrier(8)

    def ask():
        start.wait()
        results.append(breaker.blocks(105.0))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [False] + [True] * 7


def test_a_trial_that_succeeds_closes_it_and_says_so_once():
    breaker = tripped(100.0)
    assert not breaker.blocks(105.0)
    assert breaker.success() is True
    assert breaker.state(105.0) == "closed" and not breaker.blocks(105.0)
    assert breaker.success() is False


def test_a_trial_that_fails_keeps_it_open_and_stays_quiet():
    breaker = tripped(100.0)
    assert not breaker.blocks(105.0)
    assert breaker.failure(107.0) is False
    assert breaker.blocks(111.9)
    assert not breaker.blocks(112.0)


def test_a_trial_that_never_comes_back_is_followed_by_another():
    breaker = tripped(100.0)
    assert not breaker.blocks(105.0)
    assert breaker.blocks(109.9)
    assert not breaker.blocks(110.0)


def test_a_trial_that_fails_long_after_keeps_it_open_too():
    """Although that failure is the first of its window."""
    breaker = tripped(100.0)
    assert not breaker.blocks(200.0)
    assert breaker.failure(200.0) is False
    assert breaker.blocks(204.9)


def test_only_the_caller_that_tries_can_close_it():
    """Others were under way already: their answers are from before."""
    breaker = tripped(100.0)
    assert breaker.success() is False
    assert breaker.blocks(104.9)
    assert not breaker.blocks(105.0)
    assert breaker.failure(106.0) is False
    assert breaker.success() is False  # that trial is over
    assert breaker.blocks(106.0)


def test_after_it_closed_the_count_starts_anew():
    breaker = tripped(100.0)
    breaker.blocks(105.0)
    breaker.success()
    assert breaker.failure(106.0) is False
    assert breaker.failure(107.0) is False
    assert breaker.failure(108.0) is True


@pytest.mark.parametrize("order", list(itertools.permutations("fsb")))
def test_the_first_second_of_the_clock_is_like_any_other(order):
    """A monotonic clock may start at 0, as it does after a boot."""
    breaker = Breaker()
    ask = {
        "f": lambda: breaker.failure(0.0),
        "s": breaker.success,
        "b": lambda: breaker.blocks(0.0),
    }
    assert [ask[each]() for each in order] == [False, False, False]


def test_there_is_one_per_alias():
    assert breaker_of("one of a kind") is breaker_of("one of a kind")
    assert breaker_of("one of a kind") is not breaker_of("another")


def test_a_child_of_a_fork_has_locks_of_its_own(monkeypatch):
    """Another thread of the parent may have held one."""
    held = breaker.Breaker()
    monkeypatch.setattr(breaker, "_breakers", {"one": held})
    with held._lock:
        breaker._after_fork()
        assert held.failure(1.0, hanging=True)
