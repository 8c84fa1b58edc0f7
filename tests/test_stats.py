"""Counters, the log, and hooks that may raise."""

from __future__ import annotations

import functools
import logging

import pytest
from django.test import override_settings

from cache_memoize.stats.counters import CacheInfo, Stats

RAISE = override_settings(CACHE_MEMOIZE={"ON_ERROR": "raise"})


@pytest.fixture
def log(caplog):
    caplog.set_level(logging.DEBUG, logger="cache_memoize")
    return caplog


def test_everything_starts_at_zero():
    stats = Stats("blog.f")
    assert (stats.hits, stats.misses, stats.errors, stats.saved) == (0, 0, 0, 0.0)


def test_cache_info_has_names():
    info = CacheInfo(3, 2, 1, 4, 4.5, "closed", 1, 2, 0.5, 0.7)
    assert info._asdict() == {
        "hits": 3,
        "misses": 2,
        "stale": 1,
        "errors": 4,
        "saved": 4.5,
        "breaker": "closed",
        "waits": 1,
        "computations": 2,
        "mean": 0.5,
        "p95": 0.7,
        "failed": 0,
        "near": 0,
        "old_since": None,
        "size": 0,
        "too_large": 0,
        "invalidations": 0,
        "audited": 0,
        "wrong": 0,
    }


def test_trouble_is_counted_and_logged_as_a_warning(log):
    stats = Stats("blog.f")
    for _ in range(2):
        stats.trouble("the cache failed", OSError("gone"))
    assert stats.errors == 2
    assert log.messages == ["blog.f: the cache failed: OSError('gone')"] * 2
    assert {record.levelname for record in log.records} == {"WARNING"}
    assert {record.name for record in log.records} == {"cache_memoize"}


@RAISE
def test_trouble_is_counted_and_raised_if_the_settings_say_so(log):
    stats, error = Stats("blog.f"), OSError("gone")
    with pytest.raises(OSError, match="gone") as caught:
        stats.trouble("the cache failed", error)
    assert caught.value is error
    assert stats.errors == 1 and not log.messages


def test_what_is_so_at_every_call_is_logged_once_per_function(log):
    stats, other = Stats("blog.f"), Stats("blog.g")
    for _ in range(3):
        stats.trouble_once("the result cannot be pickled", TypeError("lock"))
    assert stats.errors == 3 and len(log.messages) == 1
    stats.trouble_once("the result is too big", ValueError())
    other.trouble_once("the result cannot be pickled", TypeError("lock"))
    assert [message.split(":")[0] for message in log.messages] == [
        "blog.f",
        "blog.f",
        "blog.g",
    ]


def test_and_raised_each_time_if_the_settings_say_so():
    stats = Stats("blog.f")
    stats.trouble_once("the result cannot be pickled", TypeError("lock"))
    with RAISE:
        for _ in range(2):
            with pytest.raises(TypeError, match="lock"):
                stats.trouble_once("the result cannot be pickled", TypeError("lock"))
    assert stats.errors == 3


def test_a_hook_gets_the_arguments_of_the_call():
    seen = []
    Stats("blog.f").hook(lambda *args, **kw: seen.append((args, kw)), (1,), {"b": 2})
    assert seen == [((1,), {"b": 2})]


class Hook:
    def __call__(self):
        raise LookupError("the hook")


def failing():
    raise LookupError("the hook")


@pytest.mark.parametrize(
    "hook, name",
    [(failing, "failing"), (Hook(), "Hook"), (functools.partial(failing), "partial")],
)
def test_what_a_hook_raises_is_logged_with_its_traceback_and_stays_here(
    log, hook, name
):
    """Even where errors of the cache are raised: the hook is not the cache."""
    with RAISE:
        Stats("blog.f").hook(hook, (), {})
    (record,) = log.records
    assert record.levelname == "ERROR"
    assert record.getMessage() == f"blog.f: {name} raised; the call goes on"
    assert record.exc_info[0] is LookupError


def test_a_hook_can_stop_the_program():
    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Stats("blog.f").hook(interrupt, (), {})


def test_a_hit_has_no_line_in_the_log(log):
    stats = Stats("blog.f")
    stats.served(None, "key", 0.5, (), {})
    assert not log.messages
    stats.served(None, "key", 0.5, (), {}, stale=True)
    assert log.messages == ["blog.f: stale key (0.500000 s)"]


def test_what_is_not_as_wished_is_said_once_and_is_no_error(log):
    stats = Stats("blog.f")
    for _ in range(2):
        stats.warn_once("not so", ValueError("this way"))
    assert log.messages == ["blog.f: not so: ValueError('this way')"]
    assert stats.errors == 0
