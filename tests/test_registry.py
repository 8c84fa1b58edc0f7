"""Two functions that would share their entries are warned about, others are not."""

from __future__ import annotations

import gc

import pytest

from cache_memoize import cache_memoize, planning


def one(): ...


def other():
    """Made of other code."""


def test_two_functions_of_other_code_under_one_prefix_warn():
    planning._warn_if_shared("test_registry.redefined", one)
    with pytest.warns(RuntimeWarning, match="both known as 'test_registry.redefined'"):
        planning._warn_if_shared("test_registry.redefined", other)


def test_a_function_that_is_gone_does_not_count():
    """A module that is loaded again replaces its functions."""

    def gone(): ...

    planning._warn_if_shared("test_registry.reloaded", gone)
    del gone
    gc.collect()
    planning._warn_if_shared("test_registry.reloaded", other)


def test_what_has_no_code_is_not_compared():
    planning._warn_if_shared("test_registry.builtin", len)
    planning._warn_if_shared("test_registry.builtin", other)


def test_the_warning_points_to_the_decorated_function():
    def make(function):
        function.__qualname__ = "twice"
        cache_memoize(60)(function)

    make(one)
    with pytest.warns(RuntimeWarning, match="two functions are both known as") as seen:
        make(other)
    assert [warning.filename for warning in seen] == [__file__]
