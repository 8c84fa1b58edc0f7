"""Two functions that would share their entries are warned about, others are not."""

from __future__ import annotations

import gc

import pytest

from cache_memoize import cache_memoize, planning


def one(): ...


def other():
    """Made of other code."""


def test_a_prefix_that_tells_everything_never_warns():
    for _ in range(3):
        planning._warn_if_shared("test_registry.whole", True, one)


def test_the_first_under_an_ambiguous_prefix_is_fine_and_the_second_warns():
    planning._warn_if_shared("test_registry.ambiguous", False, one)
    planning._warn_if_shared("test_registry.another", False, one)
    trouble = "both known as 'test_registry.ambiguous'.*give each its own prefix="
    for _ in range(2):
        with pytest.warns(RuntimeWarning, match=trouble):
            planning._warn_if_shared("test_registry.ambiguous", False, one)


def test_a_whole_prefix_does_not_count_for_an_ambiguous_one():
    planning._warn_if_shared("test_registry.mixed", True, one)
    planning._warn_if_shared("test_registry.mixed", False, one)


def test_two_functions_of_other_code_under_one_prefix_warn():
    planning._warn_if_shared("test_registry.redefined", True, one)
    with pytest.warns(RuntimeWarning, match="both known as 'test_registry.redefined'"):
        planning._warn_if_shared("test_registry.redefined", True, other)


def test_a_function_that_is_gone_does_not_count():
    """A module that is loaded again replaces its functions."""

    def gone(): ...

    planning._warn_if_shared("test_registry.reloaded", True, gone)
    del gone
    gc.collect()
    planning._warn_if_shared("test_registry.reloaded", True, other)


def test_what_has_no_code_is_not_compared():
    planning._warn_if_shared("test_registry.builtin", True, len)
    planning._warn_if_shared("test_registry.builtin", True, other)


def test_the_warning_points_to_the_decorated_function():
    def make(captured):
        @cache_memoize(60)
        def inner():
            return captured

        return inner

    assert make([1]).__wrapped__() == [1]
    with pytest.warns(RuntimeWarning, match="two functions are both known as") as seen:
        make([2])
    assert [warning.filename for warning in seen] == [__file__]
