"""Two functions that would share their entries are warned about, others are not."""

from __future__ import annotations

import warnings

import pytest

from cache_memoize import cache_memoize, registry


def test_a_prefix_that_tells_everything_never_warns():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            registry.note("test_registry.whole", True)


def test_the_first_under_an_ambiguous_prefix_is_fine_and_the_second_warns():
    registry.note("test_registry.ambiguous", False)
    registry.note("test_registry.another", False)
    trouble = "both known as 'test_registry.ambiguous'.*give each its own prefix="
    for _ in range(2):
        with pytest.warns(RuntimeWarning, match=trouble):
            registry.note("test_registry.ambiguous", False)


def test_a_whole_prefix_does_not_count_for_an_ambiguous_one():
    registry.note("test_registry.mixed", True)
    registry.note("test_registry.mixed", False)


def test_the_warning_points_to_the_decorated_function():
    def make(captured):
        @cache_memoize(60)
        def inner():
            return captured

        return inner

    assert make([1]).__wrapped__() == [1]
    with pytest.warns(
        RuntimeWarning, match="two functions made by one factory"
    ) as seen:
        make([2])
    assert [warning.filename for warning in seen] == [__file__]
