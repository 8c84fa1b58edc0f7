"""Tests of projects patch the cache: a double breaks no call, and leaves no trace."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
from django.core.cache import caches

from cache_memoize.cache.breaker import Breaker, breaker_of
from cache_memoize.cache.store import Store
from cache_memoize.clock import Clock

DOUBLES: dict[str, dict[str, Any]] = {
    "a mock": {},
    "None": {"return_value": None},
    "False": {"return_value": False},
    "True": {"return_value": True},
    "a list": {"return_value": []},
    "an assertion": {"side_effect": AssertionError("no cache, please")},
    "an outage": {"side_effect": ConnectionError("down")},
    "the real one": {"wraps": None},
}
METHODS = ["add", "delete", "get", "get_many", "set"]


def patched(alias, method, double, *, of_class=False):
    target = type(caches[alias]) if of_class else caches[alias]
    options = DOUBLES[double]
    if "wraps" in options:
        options = {"wraps": getattr(caches[alias], method)}
    return mock.patch.object(target, method, **options)


@pytest.mark.leaves_lease
@pytest.mark.backends(["locmem", "valkey"], lean=["locmem"])
@pytest.mark.parametrize("of_class", [False, True])
@pytest.mark.parametrize("double", DOUBLES)
@pytest.mark.parametrize("method", METHODS)
def test_doubles_of_tests_neither_break_a_call_nor_open_the_breaker(
    world, method, double, of_class
):
    if of_class and double == "the real one":
        pytest.skip("of no class")
    for tags in (None, "a"):
        f = world.memoize(60, tags=tags)(lambda x: 10 * x)
        with patched(world.alias, method, double, of_class=of_class):
            for _ in range(4):
                assert f(1) == 10 == f.refresh(1)
            assert f.map([1, 2]) == [10, 20]
            f.prime(10, 1)
            f.peek(1)
        assert breaker_of(world.alias).state(0) == "closed"
        assert not breaker_of(world.alias)._failures
        assert world.clock.sleeps == []
        f(3), f(3)
        assert f.peek(3).value == 30


@pytest.mark.backends(["locmem"])
def test_an_invalidation_says_that_a_double_took_no_write(world):
    f = world.memoize(60)(lambda x: x)
    with patched(world.alias, "get", "an outage"):
        pytest.raises(ConnectionError, f.invalidate, 1)
    assert not breaker_of(world.alias)._failures


@pytest.mark.backends(["locmem"])
def test_a_double_of_the_client_is_one_too(world):
    """A mock that raises somewhere below the cache."""
    f = world.memoize(60)(lambda x: x)
    with mock.patch("pickle.dumps", side_effect=OSError("no")):
        f(1)
    assert not breaker_of(world.alias)._failures


def test_an_error_of_a_cache_that_cannot_be_made_is_an_outage():
    breaker = Breaker()
    for _ in range(3):
        Store("unknown", breaker, Clock()).trouble(OSError())
    assert breaker.tripped
