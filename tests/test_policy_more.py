"""What the options of stale values mean, and the numbers that the documents name."""

from __future__ import annotations

import math

import pytest

from cache_memoize import policy as numbers
from cache_memoize.policy import Policy
from tests.test_policy import policy


def test_the_numbers():
    assert (numbers.FAILED_FOR, numbers.BLOCK_FOR, numbers.LONGEST_RETRY) == (2, 10, 60)
    assert math.exp(numbers.EARLY_ZONE) == pytest.approx(5e8, rel=0.05)


def test_a_lease_may_be_shorter_than_a_second():
    assert policy(lease=0.5).lease == 0.5


def test_every_option_is_kept():
    options = {"lease": 3.0, "stale": 5.0, "early_refresh": 2.0, "jitter": 0.5}
    kept = policy(**options, hold=7.0)
    assert kept == Policy("blog.f", **options, hold=7.0)
    assert policy(stale=None).stale == math.inf


# --- refused -------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["stale", "hold"])
@pytest.mark.parametrize(
    "given, error", [(-1, ValueError), ("1", TypeError), (math.nan, ValueError)]
)
def test_stale_and_hold_are_durations(option, given, error):
    with pytest.raises(error, match=rf"^cache_memoize: {option}= of blog\.f "):
        policy(**{option: given})


@pytest.mark.parametrize("option", ["early_refresh", "jitter"])
@pytest.mark.parametrize("given", ["1", True, None, [1]])
def test_a_factor_is_a_number(option, given):
    trouble = rf"^cache_memoize: {option}= of blog\.f takes a number, not "
    with pytest.raises(TypeError, match=rf"{trouble}{type(given).__name__}$"):
        policy(**{option: given})


@pytest.mark.parametrize("given", [-0.1, math.nan, math.inf])
def test_early_refresh_is_a_number_that_is_not_negative_and_ends(given):
    trouble = r"early_refresh= of blog\.f takes a number of 0 or more; 0 is off$"
    with pytest.raises(ValueError, match=trouble):
        policy(early_refresh=given)
    assert policy(early_refresh=5).early_refresh == 5.0


@pytest.mark.parametrize("given", [-0.1, 1.1, math.nan, math.inf])
def test_jitter_is_a_fraction(given):
    trouble = r"jitter= of blog\.f takes a number from 0 to 1; 0 is off$"
    with pytest.raises(ValueError, match=trouble):
        policy(jitter=given)
    assert policy(jitter=1).jitter == 1.0


@pytest.mark.parametrize("given", [None, math.inf])
def test_a_hold_ends(given):
    trouble = r"hold= of blog\.f must end some day: nothing is stored"
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
    assert policy(early_refresh=2).zone == 40
    assert policy().zone == 0


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
    assert [policy(jitter=0.5).jittered(10, random) for random in (0, 0.5)] == [10, 7.5]
    assert policy(jitter=1).jittered(10, 0.75) == 2.5
    assert policy().jittered(10, 0.75) == 10
    assert policy(jitter=0.5).jittered(math.inf, 0.75) == math.inf


def test_a_refresh_keeps_others_away_for_a_lease_and_longer_the_oftener_it_failed():
    assert [policy(lease=2).claim_for(0, n) for n in (0, 1, 2, 3)] == [2, 4, 8, 16]
    assert policy(lease=2).claim_for(0, 255) == 60
    assert policy(lease=2).claim_for(5, 1) == 30
    # Never shorter than the run itself may take.
    assert policy(lease=100).claim_for(0, 255) == 100
    assert policy(lease=2).claim_for(50, 1) == 150


def test_a_refresh_that_failed_is_tried_again_after_growing_pauses():
    assert [Policy.retry_after(n) for n in (1, 2, 3, 6, 7)] == [1, 2, 4, 32, 60]
    assert Policy.retry_after(255) == 60
    assert type(Policy.retry_after(1)) is float
