"""The policy that options make, without a cache and without a clock."""

from __future__ import annotations

import dataclasses
import datetime
import math

import pytest

from cache_memoize.options import Options
from cache_memoize.protocol import policy as numbers
from cache_memoize.protocol.policy import (
    BACKEND,
    FIRST_PAUSE,
    LONGEST_PAUSE,
    Policy,
    to_seconds,
)


def policy(**options):
    enabled = options.pop("enabled", True)
    return Policy.from_options("blog.f", Options(**options), enabled=enabled)


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
def test_a_duration_is_converted_to_seconds(given, meant):
    assert to_seconds(given, "timeout", "blog.f") == meant
    assert type(to_seconds(given, "timeout", "blog.f")) is float


def test_the_default_timeout_is_unchanged():
    assert to_seconds(BACKEND, "timeout", "blog.f") is BACKEND


@pytest.mark.parametrize("given", ["60", True, False, [60], object(), 1j, b"1"])
def test_a_value_that_is_no_duration_is_refused_with_the_cure(given):
    trouble = r"timeout= of blog\.f takes seconds \(int or float\), a timedelta, None"
    with pytest.raises(TypeError, match=rf"{trouble}.* not {type(given).__name__}$"):
        to_seconds(given, "timeout", "blog.f")


@pytest.mark.parametrize(
    "given", [-1, -0.001, math.nan, -math.inf, datetime.timedelta(-1)]
)
def test_a_negative_duration_is_refused_with_the_cure(given):
    trouble = r"timeout= of blog\.f must not be negative; 0 stores nothing, None stores"
    with pytest.raises(ValueError, match=trouble):
        to_seconds(given, "timeout", "blog.f")


@pytest.mark.parametrize(
    ("option", "takes", "nothing"),
    [
        (
            "stale",
            r"seconds \(int or float\), a timedelta or None",
            "0 serves no stale values",
        ),
        ("wait", "a timedelta or None .as long as a lease.", "0 does not wait"),
        (
            "lease",
            r"seconds \(int or float\) or a timedelta, not str",
            "0 is refused too",
        ),
        (
            "hold",
            r"seconds \(int or float\) or a timedelta, not str",
            "0 does not block",
        ),
    ],
)
def test_each_duration_has_words_of_its_own(option, takes, nothing):
    with pytest.raises(TypeError, match=f"^cache_memoize: {option}= of .*{takes}"):
        policy(**{option: "5"})
    with pytest.raises(ValueError, match=f"must not be negative; {nothing}"):
        policy(**{option: -1})


# --- from the options as they are written --------------------------------------------


def test_the_defaults():
    assert policy() == Policy("blog.f")
    assert policy().timeout is BACKEND and policy().can_store


def test_a_policy_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        policy().timeout = 5


@pytest.mark.parametrize("option", ["timeout", "wait", "lease", "stale", "hold"])
@pytest.mark.parametrize(
    "given, error", [(-1, ValueError), ("1", TypeError), (math.nan, ValueError)]
)
def test_each_duration_is_checked_at_decoration(option, given, error):
    with pytest.raises(error, match=rf"^cache_memoize: {option}= of blog\.f "):
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
    "given",
    [BaseException, KeyboardInterrupt, int, (ValueError, 5), ValueError(), 5]
    + [(ValueError(),), "ValueError"],
)
def test_classes_that_are_no_exceptions_are_refused(given):
    trouble = r"cache_exceptions= of blog\.f takes subclasses of Exception, not "
    with pytest.raises(TypeError, match=trouble):
        policy(cache_exceptions=given)


def test_text_in_place_of_an_exception_is_named_as_a_whole():
    with pytest.raises(TypeError, match="not 'ValueError'$"):
        policy(cache_exceptions="ValueError")


def test_store_result_is_any_truth():
    assert policy(store_result=1).store_result is True
    assert policy(store_result=None).store_result is False


# --- what to store, and for how long -------------------------------------------------


@pytest.mark.parametrize(
    "timeout, stores",
    [(0, False), (0.0, False), (1, True), (None, True), (BACKEND, True)],
)
def test_a_timeout_of_zero_never_stores(timeout, stores):
    assert policy(timeout=timeout).can_store is stores
    assert policy(timeout=lambda result: 0).can_store


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
def test_the_result_of_a_callable_timeout_is_checked_like_any_timeout(given, error):
    with pytest.raises(error, match=r"timeout= of blog\.f "):
        policy(timeout=lambda result: given).timeout_for("result", (), {})


def test_every_result_is_stored_unless_cache_if_refuses():
    assert policy().should_store(None, (), {})
    choosy = policy(cache_if=lambda result, a, *, b: result and (a, b) == (1, 2))
    assert choosy.should_store([0], (1,), {"b": 2}) is True
    assert choosy.should_store([], (1,), {"b": 2}) is False
    assert choosy.should_store([0], (1,), {"b": 3}) is False


# --- leases, budgets, pauses ---------------------------------------------------------


@pytest.mark.parametrize(
    "slowest, lease",
    [(0, 10), (9.9, 10), (10, 10), (10.5, 31.5), (60, 180), (201, 600), (3600, 600)],
)
def test_a_lease_grows_to_three_times_the_run_that_outlasted_one(slowest, lease):
    """But not without limit: the process may have been stopped meanwhile."""
    assert policy().lease_for(slowest) == lease
    assert policy(timeout=1000).lease_for(slowest) == lease


@pytest.mark.parametrize(
    "timeout, slowest, lease",
    [
        (60, 0, 60),  # one run per timeout, also when it takes longer than a lease
        (5, 0, 10),
        (60, 100, 60),
        (5, 100, 10),
        (None, 0, 10),  # no caller waits without a limit for a process that died
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
    assert policy().wait_budget(slowest) == budget
    assert policy(timeout=60, store_result=False).wait_budget(slowest) == budget


@pytest.mark.parametrize("wait", [0, 0.5, 60])
@pytest.mark.parametrize("slowest", [0, 100])
def test_a_caller_waits_for_the_seconds_of_wait(wait, slowest):
    assert policy(wait=wait).wait_budget(slowest) == wait


def test_waiting_may_be_unlimited():
    assert policy(wait=math.inf).wait_budget(100) == math.inf


def test_pauses_grow_from_10_to_100_milliseconds():
    pauses = [Policy.wait_pause(attempt, 1.0) for attempt in range(8)]
    expected = [0.010, 0.015, 0.0225, 0.03375, 0.050625, 0.0759375, 0.1, 0.1]
    assert pauses == pytest.approx(expected)
    assert (FIRST_PAUSE, LONGEST_PAUSE) == (0.010, 0.100)


@pytest.mark.parametrize("attempt", [0, 3, 100])
def test_randomness_spreads_the_waiters_over_half_a_pause(attempt):
    full = Policy.wait_pause(attempt, 1.0)
    assert Policy.wait_pause(attempt, 0.0) == pytest.approx(full / 2)
    assert Policy.wait_pause(attempt, 0.5) == pytest.approx(full * 0.75)


def test_a_waiter_of_many_hours_does_not_overflow():
    assert Policy.wait_pause(10**9, 1.0) == LONGEST_PAUSE


# --- stale values, early refreshes, jitter, hold -------------------------------------


def test_the_numbers():
    assert (numbers.BLOCK_FOR, numbers.LONGEST_RETRY) == (10, 60)
    assert math.exp(numbers.EARLY_ZONE) == pytest.approx(5e8, rel=0.05)


def test_a_lease_may_be_shorter_than_a_second():
    assert policy(lease=0.5).lease == 0.5


def test_every_option_is_kept():
    options = {"lease": 3.0, "stale": 5.0, "early_refresh": 2.0, "jitter": 0.5}
    kept = policy(**options, hold=7.0)
    assert kept == Policy("blog.f", **options, hold=7.0)
    assert policy(stale=None).stale == math.inf


# --- refused -------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["early_refresh", "jitter"])
@pytest.mark.parametrize("given", ["1", True, None, [1]])
def test_a_factor_is_a_number(option, given):
    trouble = rf"^cache_memoize: {option}= of blog\.f takes a number, not "
    with pytest.raises(TypeError, match=rf"{trouble}{type(given).__name__}$"):
        policy(**{option: given})


@pytest.mark.parametrize("given", [-0.1, math.nan, math.inf])
def test_early_refresh_is_a_number_that_is_not_negative_and_ends(given):
    trouble = r"early_refresh= of blog\.f takes a number of 0 or more; 0 for none$"
    with pytest.raises(ValueError, match=trouble):
        policy(early_refresh=given)
    assert policy(early_refresh=5).early_refresh == 5.0


@pytest.mark.parametrize("given", [-0.1, 1.1, math.nan, math.inf])
def test_jitter_is_a_fraction(given):
    trouble = r"jitter= of blog\.f takes a number from 0 to 1; 0 for none$"
    with pytest.raises(ValueError, match=trouble):
        policy(jitter=given)
    assert policy(jitter=1).jitter == 1.0


@pytest.mark.parametrize("given", [None, math.inf])
def test_a_hold_ends(given):
    trouble = r"hold= of blog\.f must not be unlimited: nothing is stored"
    with pytest.raises(ValueError, match=trouble):
        policy(hold=given)


@pytest.mark.parametrize("option", ["stale", "early_refresh"])
def test_a_guard_has_no_value_to_serve(option):
    trouble = r"blog\.f is a guard \(store_result=False\).*leave them out$"
    with pytest.raises(ValueError, match=trouble):
        policy(store_result=False, **{option: 1})
    assert not policy(store_result=False).revalidates


# --- what they come to ---------------------------------------------------------------


def test_values_are_refreshed_behind_readers_with_either_option():
    assert policy(stale=1).revalidates is policy(early_refresh=1).revalidates is True
    assert policy().revalidates is policy(jitter=1, hold=1).revalidates is False


def test_the_zone_of_early_refreshes():
    assert policy(early_refresh=2).early_zone == 40
    assert policy().early_zone == 0


@pytest.mark.parametrize(
    "age, random, early",
    [
        (0, 0, False),
        (9.999, 0, False),
        (10, 0, True),
        # Drawn at random: 1 - exp(-1) is a distance of beta * cost.
        (3.9, 1 - math.exp(-1), False),
        (4.1, 1 - math.exp(-1), True),
        (3.9, 1 - math.exp(-1.1), True),
        (3.9, 0.9, True),
    ],
)
def test_a_hit_is_early_by_chance_the_nearer_the_end_the_likelier(age, random, early):
    """beta = 2 and a cost of 3 seconds, in an entry of 10 seconds."""
    assert policy(early_refresh=2).is_early(age, 10, 3, random) is early


def test_jitter_shortens_by_up_to_its_fraction():
    assert [policy(jitter=0.5).with_jitter(10, random) for random in (0, 0.5)] == [
        10,
        7.5,
    ]
    assert policy(jitter=1).with_jitter(10, 0.75) == 2.5
    assert policy().with_jitter(10, 0.75) == 10
    assert policy(jitter=0.5).with_jitter(math.inf, 0.75) == math.inf


def test_a_refresh_keeps_others_away_for_a_lease_and_longer_the_oftener_it_failed():
    short = policy(lease=2)
    assert [short.refresh_seconds(0, n) for n in (0, 1, 2, 3)] == [2, 4, 8, 16]
    assert short.refresh_seconds(0, 255) == 60
    assert short.refresh_seconds(5, 1) == 30
    # Never shorter than the run itself may take.
    assert policy(lease=100).refresh_seconds(0, 255) == 100
    assert short.refresh_seconds(50, 1) == 150


def test_a_refresh_that_failed_is_tried_again_after_growing_pauses():
    assert [Policy.retry_after(n) for n in (1, 2, 3, 6, 7)] == [1, 2, 4, 32, 60]
    assert Policy.retry_after(255) == 60
    assert type(Policy.retry_after(1)) is float


def test_switched_off_nothing_is_stored():
    assert (
        policy(timeout=60).can_store and not policy(timeout=60, enabled=False).can_store
    )


def test_one_exception_class_stands_for_itself():
    assert policy(cache_exceptions=LookupError).cache_exceptions == (LookupError,)
