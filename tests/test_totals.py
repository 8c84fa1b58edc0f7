"""Counts of many processes add up, and a percentile of them is what it says."""

from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_memoize.stats.totals import LEAST, Totals, bucket
from tests.conftest import examples

counts = st.integers(0, 10**6)
totals = st.builds(
    Totals,
    *[counts] * 14,
    st.integers(0, 1000).map(float),
    st.integers(0, 1000).map(float),
    st.dictionaries(st.integers(-80, 80), st.integers(1, 1000), max_size=5),
)


def of_costs(costs):
    found = Totals()
    for cost in costs:
        one = {bucket(cost): 1}
        found = found.plus(Totals(computations=1, spent=cost, costs=one))
    return found


@examples(100)
@given(totals, totals, totals)
def test_adding_up_does_not_depend_on_the_order(a, b, c):
    assert a.plus(b).plus(c) == c.plus(a.plus(b))
    assert a.plus(Totals()) == a


@examples(100)
@given(totals, totals)
def test_what_is_taken_away_is_gone(a, b):
    assert a.plus(b).minus(b) == a
    assert a.minus(a).is_nothing and a.minus(a) == Totals()


@examples(100)
@given(st.lists(st.floats(LEAST, 1e4), min_size=1, max_size=200))
def test_the_percentile_is_right_within_nine_per_cent(costs):
    exact = sorted(costs)[math.ceil(len(costs) * 0.95) - 1]
    assert of_costs(costs).p95 == pytest.approx(exact, rel=0.091)
    assert of_costs(costs).mean == pytest.approx(statistics.fmean(costs))


def test_where_nothing_was_counted():
    nothing = Totals()
    assert (nothing.calls, nothing.hit_rate, nothing.mean, nothing.p95) == (
        0,
        None,
        0,
        0,
    )


def test_the_hit_rate_counts_stale_ones_as_hits():
    assert Totals(hits=3, misses=1, stale=2).hit_rate == 0.75


@pytest.mark.parametrize("cost", [0.0, -1.0, LEAST / 2])
def test_a_clock_that_stood_still_is_no_error(cost):
    assert bucket(cost) == bucket(LEAST)


def test_buckets_grow_with_the_cost():
    places = [bucket(cost) for cost in (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1, 10)]
    assert places == sorted(set(places))


def test_counts_that_were_read_in_the_middle_of_an_event_are_not_whole():
    assert Totals().is_whole and Totals(hits=2, stale=2).is_whole
    assert not Totals(hits=1, stale=2).is_whole
    assert not Totals(hits=2, misses=-1).is_whole
