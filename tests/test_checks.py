"""System checks name the setting and the cure."""

from __future__ import annotations

import pytest
from django.core import checks
from django.test import override_settings

from cache_memoize import breaker, cache_memoize
from cache_memoize import checks as ours
from tests.conftest import ALL_DATABASES

REDIS = "django.core.cache.backends.redis.RedisCache"
DJANGO_REDIS = "django_redis.cache.RedisCache"
PYMEMCACHE = "django.core.cache.backends.memcached.PyMemcacheCache"
PYLIBMC = "django.core.cache.backends.memcached.PyLibMCCache"
LOCMEM = "django.core.cache.backends.locmem.LocMemCache"
URL = "redis://127.0.0.1:1"


@pytest.fixture(autouse=True)
def one_function(monkeypatch):
    monkeypatch.setattr(breaker, "_breakers", {})
    cache_memoize(60, prefix="checked")(print_nothing)


def print_nothing():
    pass


@pytest.mark.parametrize(
    "settings, missing",
    [
        ({"BACKEND": REDIS, "LOCATION": URL}, "socket_timeout"),
        ({"BACKEND": REDIS, "LOCATION": [URL, URL]}, "socket_timeout"),
        ({"BACKEND": REDIS, "LOCATION": f"{URL}?socket_timeout=1"}, None),
        ({"BACKEND": REDIS, "OPTIONS": {"socket_timeout": 1}}, None),
        ({"BACKEND": DJANGO_REDIS, "LOCATION": URL}, "SOCKET_TIMEOUT"),
        ({"BACKEND": DJANGO_REDIS, "OPTIONS": {"SOCKET_TIMEOUT": 1}}, None),
        (
            {
                "BACKEND": DJANGO_REDIS,
                "OPTIONS": {"CONNECTION_POOL_KWARGS": {"socket_timeout": 1}},
            },
            None,
        ),
        ({"BACKEND": PYMEMCACHE, "LOCATION": "127.0.0.1:1"}, "timeout"),
        ({"BACKEND": PYMEMCACHE, "OPTIONS": {"timeout": 1}}, None),
        ({"BACKEND": PYLIBMC}, None),
        ({"BACKEND": LOCMEM}, None),
    ],
)
def test_a_cache_without_a_socket_time_out(monkeypatch, settings, missing):
    monkeypatch.setattr(ours, "_redis_has_one", lambda: False)
    with override_settings(CACHES={"default": settings, "unused": {"BACKEND": REDIS}}):
        found = ours.check_caches(None)
    if missing is None:
        assert found == []
    else:
        assert [each.id for each in found] == ["cache_memoize.W001"]
        assert "'default'" in found[0].msg and f"Set {missing} in" in found[0].hint


def test_newer_versions_of_redis_py_have_one_of_their_own():
    import redis

    major = int(redis.__version__.split(".")[0])
    assert ours._redis_has_one() is (major >= 8)


def test_an_alias_that_is_nowhere_is_another_matter():
    cache_memoize(60, prefix="nowhere", cache_alias="nowhere")(print_nothing)
    assert ours.check_caches(None) == []
    assert ours.check_databases(None) == []


def with_atomic_requests(monkeypatch, alias, options=None):
    from django.db import connections

    settings = connections[alias].settings_dict
    monkeypatch.setitem(settings, "ATOMIC_REQUESTS", True)
    if options:
        monkeypatch.setitem(settings, "OPTIONS", options)


def test_atomic_requests_on_a_database_that_reads_from_a_snapshot(monkeypatch):
    assert ours.check_databases(None) == []
    with_atomic_requests(monkeypatch, "default")
    (found,) = ours.check_databases(None)
    assert found.id == "cache_memoize.W002" and "hold=" in found.hint
    monkeypatch.setattr(breaker, "_breakers", {})
    assert ours.check_databases(None) == [], "nothing is memoized"


@pytest.mark.skipif("postgresql" not in ALL_DATABASES, reason="needs postgresql")
def test_atomic_requests_on_postgresql_is_fine_unless_told_otherwise(monkeypatch):
    with_atomic_requests(monkeypatch, "postgresql")
    assert ours.check_databases(None) == []
    with_atomic_requests(monkeypatch, "postgresql", {"isolation_level": 2})
    assert ours.check_databases(None) == []
    with_atomic_requests(
        monkeypatch, "postgresql", {"isolation_level": "repeatable read"}
    )
    assert [f.id for f in ours.check_databases(None)] == ["cache_memoize.W002"]


def test_a_cache_in_the_database_of_atomic_requests(monkeypatch):
    cache_memoize(60, prefix="same", cache_alias="sqlite")(print_nothing)
    with_atomic_requests(monkeypatch, "default")
    found = [f for f in ours.check_databases(None) if f.id == "cache_memoize.W003"]
    assert len(found) == 1 and "'sqlite'" in found[0].msg
    assert "DATABASE_ROUTERS" in found[0].hint


def test_they_run_with_djangos_own_without_installed_apps():
    registered = checks.registry.registry.registered_checks
    assert {ours.check_caches, ours.check_databases} <= registered


def test_without_redis_py_nothing_is_known_of_it(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "redis.connection", None)
    assert ours._redis_has_one() is False
