"""Refreshes by django.tasks: on Django 6, and by the django-tasks package before."""

from __future__ import annotations

import importlib.util

import pytest
from asgiref.sync import async_to_sync
from django.core.cache import caches
from django.test import override_settings

from cache_memoize import cache_memoize
from cache_memoize.cache import record
from cache_memoize.protocol import threads
from tests.conftest import FakeClock

DJANGO = importlib.util.find_spec("django.tasks") is not None
PACKAGE = importlib.util.find_spec("django_tasks") is not None
pytestmark = pytest.mark.skipif(not (DJANGO or PACKAGE), reason="no tasks on here")

MODULE = "django.tasks" if DJANGO else "django_tasks"
clock = FakeClock()
runs: list = []


@cache_memoize(10, stale=100, cache_alias="locmem", _clock=clock)
def numbered(x, *, y=0):
    runs.append(x)
    if x == "broken" and len(runs) > 1:
        raise ValueError(x)
    return len(runs)


@cache_memoize(10, stale=100, cache_alias="locmem", _clock=clock)
async def anumbered(x):
    runs.append(x)
    return len(runs)


class Shop:
    @cache_memoize(10, stale=100, cache_alias="locmem", _clock=clock)
    def price(self, item):
        runs.append(item)
        return len(runs)


@pytest.fixture(autouse=True)
def tasks(request):
    backend = getattr(request, "param", "immediate.ImmediateBackend")
    runs.clear()
    caches["locmem"].clear()
    settings = {
        "TASKS": {"default": {"BACKEND": f"{MODULE}.backends.{backend}"}},
        "CACHE_MEMOIZE": {"REFRESH": "task"},
    }
    for memoized in (numbered, anumbered, Shop.price):
        memoized._memoized.stats.warned.clear()
    with override_settings(**settings):
        yield
    assert threads.join()
    caches["locmem"].clear()


def waiting():
    tasks = importlib.import_module(MODULE)
    return tasks.default_task_backend.results


def test_a_worker_refreshes_and_the_caller_gets_the_old_value():
    assert numbered(1, y=2) == 1
    clock.tick(20)
    assert numbered(1, y=2) == 1
    assert numbered(1, y=2) == 2
    assert runs == [1, 1]


@pytest.mark.parametrize("tasks", ["dummy.DummyBackend"], indirect=True)
def test_until_the_worker_comes_one_task_waits_and_then_longer_and_longer():
    numbered(1)
    clock.tick(20)
    before = len(waiting())
    for _ in range(10):
        assert numbered(1) == 1
    assert len(waiting()) == before + 1
    result = waiting()[-1]
    assert result.args[0] == "tests.test_tasks:numbered"
    assert list(result.args[1]) == [1] and result.args[2] == {}
    clock.tick(10.1)
    numbered(1)
    assert len(waiting()) == before + 2, "the first one may be lost"
    clock.tick(10.1)
    numbered(1)
    assert len(waiting()) == before + 2
    result.task.func(*result.args)  # the worker comes
    assert numbered(1) == 2
    there = record.parse(caches["locmem"].get(numbered.get_cache_key(1)))
    assert there.stamp == record.NO_STAMP


@pytest.mark.parametrize("tasks", ["dummy.DummyBackend"], indirect=True)
def test_a_worker_counts_a_refresh_that_failed():
    numbered("broken")
    clock.tick(20)
    assert numbered("broken") == 1
    result, before = waiting()[-1], numbered.cache_info().failed
    with pytest.raises(ValueError, match="broken"):
        result.task.func(*result.args)
    assert numbered("broken") == 1
    assert numbered.cache_info().failed == before + 1


def test_async_functions_and_their_controls():
    assert async_to_sync(anumbered)(1) == 1
    clock.tick(20)
    assert async_to_sync(anumbered)(1) == 1
    assert async_to_sync(anumbered)(1) == 2


@pytest.mark.parametrize("argument", [(1, 2), b"bytes", {1: 2}, 1.5e400])
def test_arguments_that_json_would_change_fall_back_to_a_thread(argument, caplog):
    assert numbered(argument) == 1
    clock.tick(20)
    assert numbered(argument) == 1
    assert threads.join()
    assert numbered(argument) == 2
    assert caplog.text.count("the refresh cannot be a task") == 1


def test_methods_and_nested_functions_fall_back_to_a_thread(caplog):
    @cache_memoize(10, stale=100, cache_alias="locmem", _clock=clock)
    def nested(x):
        runs.append(x)
        return len(runs)

    for call in (nested, Shop().price):
        runs.clear()
        assert call(1) == 1
        clock.tick(20)
        assert call(1) == 1
        assert threads.join()
        assert call(1) == 2
    assert caplog.text.count("the refresh cannot be a task") == 2


def test_what_a_worker_does_not_know_falls_back_to_a_thread(caplog):
    @cache_memoize(
        10, stale=100, cache_alias="locmem", _clock=clock, vary_on="language"
    )
    def varied(x):
        runs.append(x)
        return len(runs)

    assert varied(1) == 1
    clock.tick(20)
    assert varied(1) == 1
    assert threads.join()
    assert varied(1) == 2
    assert "a worker does not know the values of vary_on=" in caplog.text


def test_a_function_is_found_by_its_name():
    from cache_memoize.tasks import find

    assert find("tests.test_tasks:numbered") is numbered
    assert find("tests.test_tasks:Shop.price") is Shop.price


def test_a_name_that_leads_elsewhere_falls_back_to_a_thread(caplog, monkeypatch):
    """As when a later definition has taken it."""
    monkeypatch.setattr("tests.test_tasks.numbered", anumbered)
    function = numbered_itself
    assert function(1) == 1
    clock.tick(20)
    assert function(1) == 1
    assert threads.join()
    assert function(1) == 2
    assert "is not this function, or not only this one" in caplog.text


numbered_itself = numbered
