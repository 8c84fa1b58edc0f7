"""What the options mean, checked without a cache and without a clock."""

from __future__ import annotations

import dataclasses
import datetime
import math

import pytest

from cache_memoize.policy import BACKEND, FIRST_PAUSE, LONGEST_PAUSE, Policy, seconds

DEFAULTS = {
    "timeout": BACKEND,
    "store_result": True,
    "cache_exceptions": (),
    "cache_if": None,
    "wait": None,
    "lease": 10,
}


def policy(**options):
    return Policy.of("blog.f", **{**DEFAULTS, **options})


# --- durations -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "given, meant",
    [
        (0, 0.0),
        (1, 1.0),
        (0.5, 0.5),
        (-0.0, 0.0),
        (math.inf, math.inf),
        (None, math.inf),
        (datetime.timedelta(minutes=1, microseconds=1), 60.000001),
        (datetime.timedelta(0), 0.0),
    ],
)
def test_a_duration_is_seconds_whatever_it_is_written_in(given, meant):
    assert seconds(given, "timeout", "blog.f") == meant
    assert type(seconds(given, "timeout", "blog.f")) is float


def test_the_default_timeout_stays_what_it_is():
    assert seconds(BACKEND, "timeout", "blog.f") is BACKEND


@pytest.mark.parametrize("given", ["60", True, False, [60], object(), 1j, b"1"])
def test_what_is_no_duration_is_refused_with_the_cure(given):
    trouble = r"timeout= of blog\.f takes seconds \(int or float\), a timedelta, None"
    with pytest.raises(TypeError, match=rf"{trouble}.* not {type(given).__name__}$"):
        seconds(given, "timeout", "blog.f")


@pytest.mark.parametrize(
    "given", [-1, -0.001, math.nan, -math.inf, datetime.timedelta(-1)]
)
def test_a_negative_duration_is_refused_with_the_cure(given):
    trouble = r"wait= of blog\.f must not be negative; 0 stores nothing, None stores"
    with pytest.raises(ValueError, match=trouble):
        seconds(given, "wait", "blog.f")


# --- from the options as they are written --------------------------------------------


def test_the_defaults():
    assert policy() == Policy("blog.f")
    assert policy().timeout is BACKEND and policy().stores


def test_a_policy_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        policy().timeout = 5


@pytest.mark.parametrize("option", ["timeout", "wait", "lease"])
@pytest.mark.parametrize(
    "given, error", [(-1, ValueError), ("1", TypeError), (math.nan, ValueError)]
)
def test_each_duration_is_checked_at_decoration(option, given, error):
    with pytest.raises(error, match=rf"cache_memoize: {option}= of blog\.f "):
        policy(**{option: given})


@pytest.mark.parametrize("option", ["wait", "lease"])
def test_the_backend_has_no_default_for_waiting(option):
    with pytest.raises(TypeError, match=rf"{option}= of blog\.f takes seconds$"):
        policy(**{option: BACKEND})


@pytest.mark.parametrize("lease", [0, None, math.inf, datetime.timedelta(0)])
def test_a_lease_lasts_for_some_time_and_ends(lease):
    with pytest.raises(ValueError, match=r"lease= of blog\.f must be more than 0 sec"):
        policy(lease=lease)


def test_waiting_is_seconds_or_as_long_as_leases_last():
    assert policy(wait=None).wait is None
    assert policy(wait=0).wait == 0.0
    assert policy(wait=datetime.timedelta(seconds=2)).wait == 2.0


@pytest.mark.parametrize(
    "given, meant",
    [
        ((), ()),
        (None, ()),
        (ValueError, (ValueError,)),
        ((ValueError, KeyError), (ValueError, KeyError)),
        ([ValueError], (ValueError,)),
    ],
)
def test_exceptions_are_a_class_or_several(given, meant):
    assert policy(cache_exceptions=given).cache_exceptions == meant


@pytest.mark.parametrize(
    "given", [BaseException, KeyboardInterrupt, int, (ValueError, 5), ValueError()]
)
def test_what_must_not_be_cached_as_an_exception_is_refused(given):
    given = (given,) if isinstance(given, Exception) else given
    trouble = r"cache_exceptions= of blog\.f takes subclasses of Exception, not "
    with pytest.raises(TypeError, match=trouble):
        policy(cache_exceptions=given)


def test_store_result_is_any_truth():
    assert policy(store_result=1).store_result is True
    assert policy(store_result=None).store_result is False


# --- what to store, and for how long -------------------------------------------------


@pytest.mark.parametrize(
    "timeout, stores",
    [(0, False), (0.0, False), (1, True), (None, True), (BACKEND, True)],
)
def test_a_timeout_of_zero_never_stores(timeout, stores):
    assert policy(timeout=timeout).stores is stores
    assert policy(timeout=lambda result: 0).stores


def test_a_timeout_that_is_fixed_is_that_of_every_result():
    assert policy(timeout=5).timeout_for("result", (), {}) == 5.0
    assert policy(timeout=None).timeout_for("result", (), {}) == math.inf
    assert policy().timeout_for("result", (), {}) is BACKEND


@pytest.mark.parametrize(
    "given, meant",
    [(5, 5.0), (None, math.inf), (BACKEND, BACKEND), (datetime.timedelta(1), 86400.0)],
)
def test_a_timeout_that_is_callable_sees_the_result_and_the_call(given, meant):
    seen = []

    def timeout(*args, **kwargs):
        seen.append((args, kwargs))
        return given

    assert policy(timeout=timeout).timeout_for("result", (1,), {"b": 2}) == meant
    assert seen == [(("result", 1), {"b": 2})]


@pytest.mark.parametrize("given, error", [(-1, ValueError), ("1", TypeError)])
def test_what_a_callable_timeout_gives_is_checked_like_any_timeout(given, error):
    with pytest.raises(error, match=r"timeout= of blog\.f "):
        policy(timeout=lambda result: given).timeout_for("result", (), {})


def test_everything_is_wanted_unless_cache_if_says_no():
    assert policy().wants(None, (), {})
    choosy = policy(cache_if=lambda result, a, *, b: result and (a, b) == (1, 2))
    assert choosy.wants([0], (1,), {"b": 2}) is True
    assert choosy.wants([], (1,), {"b": 2}) is False
    assert choosy.wants([0], (1,), {"b": 3}) is False


# --- leases, budgets, pauses ---------------------------------------------------------


@pytest.mark.parametrize(
    "slowest, lease", [(0, 10), (9.9, 10), (10, 10), (10.5, 31.5), (60, 180)]
)
def test_a_lease_grows_to_three_times_the_run_that_outlasted_one(slowest, lease):
    assert policy().lease_for(slowest) == lease
    assert policy(timeout=1000).lease_for(slowest) == lease


@pytest.mark.parametrize(
    "timeout, slowest, lease",
    [
        (60, 0, 60),  # one run per timeout, also when it takes longer than a lease
        (5, 0, 10),
        (60, 100, 60),
        (5, 100, 10),
        (None, 0, 10),  # nobody waits for ever for a process that died
        (None, 20, 60),
        (BACKEND, 0, 10),
        (BACKEND, 20, 60),
        (lambda result: 60, 0, 10),
        (lambda result: 60, 20, 60),
    ],
)
def test_the_lease_of_a_guard_lasts_as_long_as_its_mark(timeout, slowest, lease):
    guard = policy(timeout=timeout, store_result=False)
    assert guard.lease_for(slowest) == lease


@pytest.mark.parametrize("slowest, budget", [(0, 10), (10, 10), (10.5, 31.5)])
def test_a_caller_waits_as_long_as_leases_last(slowest, budget):
    assert policy().budget(slowest) == budget
    assert policy(timeout=60, store_result=False).budget(slowest) == budget


@pytest.mark.parametrize("wait", [0, 0.5, 60])
@pytest.mark.parametrize("slowest", [0, 100])
def test_or_as_long_as_it_was_told(wait, slowest):
    assert policy(wait=wait).budget(slowest) == wait


def test_for_ever_is_a_way_to_wait_too():
    assert policy(wait=math.inf).budget(100) == math.inf


def test_pauses_grow_from_10_to_100_milliseconds():
    pauses = [Policy.pause(attempt, 1.0) for attempt in range(8)]
    expected = [0.010, 0.015, 0.0225, 0.03375, 0.050625, 0.0759375, 0.1, 0.1]
    assert pauses == pytest.approx(expected)
    assert (FIRST_PAUSE, LONGEST_PAUSE) == (0.010, 0.100)


@pytest.mark.parametrize("attempt", [0, 3, 100])
def test_randomness_spreads_the_waiters_over_half_a_pause(attempt):
    full = Policy.pause(attempt, 1.0)
    assert Policy.pause(attempt, 0.0) == pytest.approx(full / 2)
    assert Policy.pause(attempt, 0.5) == pytest.approx(full * 0.75)


def test_a_waiter_of_many_hours_does_not_overflow():
    assert Policy.pause(10**9, 1.0) == LONGEST_PAUSE
