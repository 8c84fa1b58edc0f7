"""System checks name the setting and the cure."""

from __future__ import annotations

import os
import re
import tempfile
from contextlib import contextmanager, suppress
from functools import partial
from weakref import WeakSet

import django
import pytest
from django.core import checks, mail
from django.core.cache import InvalidCacheBackendError, caches
from django.core.exceptions import ImproperlyConfigured
from django.db import connections, router
from django.db.migrations.executor import MigrationExecutor
from django.test import override_settings

from cache_memoize import cache_memoize, model_signals, planning
from cache_memoize import checks as ours
from cache_memoize.testing import in_memory
from tests.models import Post, Tag
from tests.needs import need

REDIS = "django.core.cache.backends.redis.RedisCache"
DJANGO_REDIS = "django_redis.cache.RedisCache"
DJANGO_VALKEY = "django_valkey.cache.ValkeyCache"
CLUSTER = "cache_memoize.cluster.RedisClusterCache"
VALKEY_CLUSTER = "django_valkey.cluster_cache.cache.ClusterValkeyCache"
PYMEMCACHE = "django.core.cache.backends.memcached.PyMemcacheCache"
PYLIBMC = "django.core.cache.backends.memcached.PyLibMCCache"
LOCMEM = "django.core.cache.backends.locmem.LocMemCache"
DUMMY = "django.core.cache.backends.dummy.DummyCache"
URL = "redis://127.0.0.1:1"


@pytest.fixture(autouse=True)
def functions(monkeypatch):
    """The memoized functions of a project that has one only."""
    monkeypatch.setattr(planning, "_functions", WeakSet())
    return [cache_memoize(60, prefix="checked")(print_nothing)]


def print_nothing():
    pass


def another():
    pass


def ids(found):
    return [each.id for each in found]


@pytest.mark.parametrize(
    "settings, missing",
    [
        ({"BACKEND": REDIS, "LOCATION": URL}, "socket_timeout"),
        ({"BACKEND": REDIS, "LOCATION": [URL, URL]}, "socket_timeout"),
        ({"BACKEND": REDIS, "LOCATION": f"{URL}?socket_timeout=1"}, None),
        ({"BACKEND": REDIS, "OPTIONS": {"socket_timeout": 1}}, None),
        ({"BACKEND": DJANGO_REDIS, "LOCATION": URL}, "SOCKET_TIMEOUT"),
        ({"BACKEND": DJANGO_VALKEY, "LOCATION": URL}, "SOCKET_TIMEOUT"),
        (
            {
                "BACKEND": DJANGO_VALKEY,
                "LOCATION": URL,
                "OPTIONS": {"SOCKET_TIMEOUT": 1},
            },
            None,
        ),
        ({"BACKEND": CLUSTER, "LOCATION": URL}, "socket_timeout"),
        (
            {
                "BACKEND": VALKEY_CLUSTER,
                "LOCATION": URL,
                "OPTIONS": {"SOCKET_TIMEOUT": 1},
            },
            'BASE_CLIENT_KWARGS["socket_timeout"]',
        ),
        (
            {
                "BACKEND": VALKEY_CLUSTER,
                "LOCATION": URL,
                "OPTIONS": {"BASE_CLIENT_KWARGS": {"socket_timeout": 1}},
            },
            None,
        ),
        (
            {
                "BACKEND": DJANGO_REDIS,
                "LOCATION": URL,
                "OPTIONS": {"SOCKET_TIMEOUT": 1},
            },
            None,
        ),
        (
            {
                "BACKEND": DJANGO_REDIS,
                "LOCATION": URL,
                "OPTIONS": {"CONNECTION_POOL_KWARGS": {"socket_timeout": 1}},
            },
            None,
        ),
        ({"BACKEND": PYMEMCACHE, "LOCATION": "127.0.0.1:1"}, "timeout"),
        ({"BACKEND": PYMEMCACHE, "OPTIONS": {"timeout": 1}}, None),
        ({"BACKEND": PYLIBMC, "OPTIONS": {"behaviors": {"cas": True}}}, None),
        ({"BACKEND": LOCMEM}, None),
    ],
)
def test_a_cache_without_a_socket_time_out(monkeypatch, settings, missing):
    if settings["BACKEND"] == PYLIBMC:
        need("pylibmc")
    if "django_valkey" in settings["BACKEND"] and django.VERSION < (5, 2):
        pytest.skip("django-valkey needs a newer Django")
    monkeypatch.setattr(ours, "_has_default_timeout", lambda: False)
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
    assert ours._has_default_timeout() is (major >= 8)


def test_an_alias_that_is_nowhere(functions):
    alias = {"cache_alias": "localmem"}
    functions += [cache_memoize(60, prefix="a", **alias)(print_nothing)]
    functions += [cache_memoize(60, prefix="b", **alias)(another)]
    (found,) = ours.check_caches(None)
    assert found.id == "cache_memoize.E002" and found.is_serious()
    assert "no cache 'localmem'" in found.msg
    assert "test_checks.another, tests.test_checks.print_nothing" in found.msg
    assert found.hint == "Did you mean 'locmem'?"
    assert ours.check_databases(None) == []
    assert all("'default'" in f.msg for f in ours.check_deployment(None))


def test_an_alias_that_looks_like_none_and_many_functions(functions):
    for number in range(5):

        def each():
            pass

        each.__qualname__ = f"f{number}"
        functions += [cache_memoize(60, prefix=f"{number}", cache_alias="?")(each)]
    (found,) = ours.check_caches(None)
    assert "f0, tests.test_checks.f1, tests.test_checks.f2 and 2 more" in found.msg
    assert "CACHES has 'default', 'locmem'" in found.hint


def test_a_setting_that_is_wrong(functions):
    assert ours.check_settings(None) == []
    with override_settings(CACHE_MEMOIZE={"DEFAULTS": {"jittr": 1}}):
        (found,) = ours.check_settings(None)
        assert found.id == "cache_memoize.E001" and "mean jitter?" in found.msg
        assert ours.check_caches(None) == [], "nobody knows which they are"
    with override_settings(CACHE_MEMOIZE={"DEFAULTS": {"jitter": 2}}):
        (found,) = ours.check_settings(None)
    assert "does not fit tests.test_checks.print_nothing" in found.msg
    assert "jitter= of print_nothing takes a number from 0 to 1" in found.msg


def test_a_cache_to_be_told_of_writes_that_does_not_exist():
    with override_settings(CACHE_MEMOIZE={"TABLE_CACHES": ["default", "defualt"]}):
        (found,) = ours.check_caches(None)
    assert found.id == "cache_memoize.E002" and "'TABLE_CACHES'" in found.msg
    assert found.hint == "Did you mean 'default'?"


@pytest.mark.django_db
@pytest.mark.parametrize("table", ["tests_psot", "TESTS_POST", '"other"."post"'])
def test_a_table_that_does_not_exist(monkeypatch, table):
    """Before all migrations are applied, it is not known whether it will."""
    depends = cache_memoize(60, prefix="depends", depends_on=[Tag, Post])(another)
    monkeypatch.setattr(Post._meta, "db_table", table)
    check = partial(checks.run_checks, tags=[checks.Tags.database])
    found = check(databases=["default"])
    assert ids(found) == ["cache_memoize.W011"] * (table == "tests_psot")
    for each in found:
        assert f"{depends.__module__}.another has tests.Post" in each.msg
        assert "no table 'tests_psot'" in each.msg
    assert not ours.check_tables(None)
    for what, name in [(router, "db_for_read"), (MigrationExecutor, "migration_plan")]:
        with monkeypatch.context() as patch:
            patch.setattr(what, name, lambda *args: [1])
            assert not check(databases=["default"])


@pytest.mark.parametrize(
    "setting", [{"ON_ERROR": "ignore"}, {"REFRESH": "threads"}, {"STATS_INTERVAL": "5"}]
)
def test_every_call_raises_what_is_wrong_in_any_setting(setting):
    """Not only when the cache is down, or a value has become stale."""

    @cache_memoize(60)
    def doubled(number):
        return 2 * number

    assert doubled(2) == 4
    with override_settings(CACHE_MEMOIZE=setting):
        (found,) = ours.check_settings(None)
        assert found.hint == "Until then every call of a memoized function raises this."
        with pytest.raises(ImproperlyConfigured, match=re.escape(found.msg)):
            doubled(2)
    assert doubled(2) == 4


@pytest.mark.parametrize(
    "settings",
    [
        {
            "BACKEND": DJANGO_REDIS,
            "LOCATION": URL,
            "OPTIONS": {
                "SOCKET_TIMEOUT": 1,
                "SERIALIZER": "django_redis.serializers.json.JSONSerializer",
            },
        },
        {
            "BACKEND": REDIS,
            "LOCATION": URL,
            "OPTIONS": {"socket_timeout": 1, "serializer": "tests.backends.Json"},
        },
    ],
)
def test_a_serializer_that_takes_no_bytes(settings):
    with override_settings(CACHES={"default": settings}):
        (found,) = ours.check_caches(None)
    assert found.id == "cache_memoize.W004" and "cannot store bytes" in found.msg
    assert ids(ours.check_caches(None)) == []


def test_a_cache_without_atomic_replacement():
    need("pylibmc")
    with override_settings(CACHES={"default": {"BACKEND": PYLIBMC}}):
        (found,) = ours.check_caches(None)
    assert found.id == "cache_memoize.W005" and '"cas": True' in found.hint


def test_a_folder_for_everybody_is_found_before_deployment(tmp_path):
    files = "django.core.cache.backends.filebased.FileBasedCache"
    options = {"MAX_ENTRIES": 10_000}
    cache = {"BACKEND": files, "LOCATION": tmp_path, "OPTIONS": options}
    with override_settings(CACHES={"default": cache}):
        assert ours.check_deployment(None) == []
        tmp_path.chmod(0o777)
        (found,) = ours.check_deployment(None)
    assert found.id == "cache_memoize.W009" and str(tmp_path) in found.msg


@pytest.fixture
def on_a_site(monkeypatch):
    """Outside of the environment that test runners set up."""
    monkeypatch.delattr(mail, "outbox")


def test_caches_for_development_are_found_before_deployment():
    (most,) = ours.check_deployment(None)
    assert most.id == "cache_memoize.W007"
    assert "keeps 300 entries" in most.msg
    with override_settings(CACHES={"default": {"BACKEND": DUMMY}}):
        (found,) = ours.check_deployment(None)
        assert ours.check_sharing(None) == []
    assert found.id == "cache_memoize.W006" and "stores nothing" in found.msg
    more = {"BACKEND": LOCMEM, "OPTIONS": {"MAX_ENTRIES": 10_000}}
    with override_settings(CACHES={"default": more}):
        assert ours.check_deployment(None) == []
    shared = {"BACKEND": REDIS, "LOCATION": URL}
    with override_settings(CACHES={"default": shared}):
        assert ours.check_deployment(None) == ours.check_sharing(None) == []


def test_a_cache_that_processes_do_not_share_is_found_by_any_check(on_a_site):
    (memory,) = ours.check_sharing(None)
    assert memory.id == "cache_memoize.W006"
    assert "the memory of one process" in memory.msg and "print_nothing" in memory.hint
    assert ours.check_sharing in checks.registry.registry.registered_checks
    with override_settings(DEBUG=True):
        assert ours.check_sharing(None) == []
        assert memory in ours.check_deployment(None)


FILES = "django.core.cache.backends.filebased.FileBasedCache"


@pytest.mark.parametrize(
    "own, path",
    [
        (True, "/var/cache/site-PID"),
        (True, "/var/cache/PID/site"),
        (True, "TMP/tmpab_c12de/cache"),
        (False, "/var/cache/site-PID0"),
        (False, "/var/cache/vPID"),
        (False, "TMP/cache"),
        (False, "/var/cache/tmpab_c12de"),
    ],
)
def test_a_folder_of_one_process_is_found_by_its_path(on_a_site, own, path):
    path = path.replace("PID", str(os.getpid())).replace("TMP", tempfile.gettempdir())
    with override_settings(CACHES={"default": {"BACKEND": FILES, "LOCATION": path}}):
        found = ours.check_sharing(None)
    assert [each.id for each in found] == ["cache_memoize.W006"] * own
    assert all("is a folder of one process" in each.msg for each in found)


def test_in_tests_no_cache_has_to_be_shared(fresh_process, caplog):
    """There is one process, and local memory is a good choice."""
    assert ours.check_sharing(None) == []
    cache_memoize(60, prefix="checks.first")(another)()
    assert caplog.messages == []


@pytest.fixture
def fresh_process(monkeypatch):
    monkeypatch.setattr(planning, "checked_aliases", set())


@pytest.mark.parametrize(
    ("path", "problem"),
    [(LOCMEM, "is the memory of one process"), (DUMMY, "stores nothing")],
)
def test_the_first_use_of_such_a_cache_is_logged_once(
    fresh_process, on_a_site, caplog, path, problem
):
    caches = {"default": {"BACKEND": path}, "other": {"BACKEND": path}}
    f = cache_memoize(60, prefix="checks.first")(another)
    g = cache_memoize(60, prefix="checks.second")(another)
    h = cache_memoize(60, prefix="checks.third", cache_alias="other")(another)
    with override_settings(CACHES=caches):
        with override_settings(DEBUG=True):
            f()
            assert caplog.messages == []
        planning._drop_plans()
        for function in (f, f, g, h, h):
            function()
        said = [m for m in caplog.messages if problem in m]
        assert [text.split(" ")[2] for text in said] == ["'default'", "'other'"]


def test_a_shared_or_unusable_cache_or_a_disabled_library_is_not_logged(
    fresh_process, on_a_site, caplog, tmp_path
):
    f = cache_memoize(60, prefix="checks.first")(another)
    with override_settings(CACHE_MEMOIZE={"ENABLED": False}):
        f()
    shared = {"BACKEND": FILES, "LOCATION": tmp_path}
    with override_settings(CACHES={"default": shared}):
        f()
    planning._drop_plans()
    planning.checked_aliases.clear()
    odd = odd_caches({"default": {"BACKEND": "no.such.Backend"}})
    with odd, pytest.raises(InvalidCacheBackendError):
        f()
    planning._drop_plans()
    planning.checked_aliases.clear()
    with in_memory():
        f()
    assert caplog.messages == []


def test_functions_without_tags_are_named_once_before_deployment(functions):
    functions.append(cache_memoize(60, prefix="no tags")(another))
    functions.append(cache_memoize(60, prefix="tags", tags=())(odd_caches))
    (found,) = ours.check_tags(None)
    assert (found.id, found.level) == ("cache_memoize.I001", checks.INFO)
    assert "print_nothing" in found.msg and "another" in found.msg
    assert "odd_caches" not in found.msg
    assert '{"DEFAULTS": {"tags": ()}} in CACHE_MEMOIZE' in found.hint
    with override_settings(CACHE_MEMOIZE={"DEFAULTS": {"tags": ()}}):
        assert ours.check_tags(None) == []


@contextmanager
def odd_caches(settings):
    """Caches that may not even be closed: Django would try to, after every test."""
    with override_settings(CACHES=settings):
        yield
        for alias in settings:
            with suppress(AttributeError):
                del caches[alias]


@pytest.mark.parametrize("path", ["no.such.Backend", DJANGO_REDIS])
def test_a_cache_that_cannot_be_made(path):
    with odd_caches({"default": {"BACKEND": path}}):
        found = ours.check_caches(None)[-1]
        assert ours.check_deployment(None) == []
    assert found.id == "cache_memoize.E004" and "'default' cannot be used" in found.msg


def test_two_functions_of_one_prefix(functions):
    assert ours.check_functions(None) == []
    functions += [cache_memoize(60, prefix="checked")(print_nothing)]
    assert ours.check_functions(None) == [], "the same one, made twice"
    functions += [cache_memoize(60, prefix="checked", cache_alias="file")(another)]
    assert ours.check_functions(None) == [], "in another cache"
    functions += [cache_memoize(60, prefix="checked")(another)]
    (found,) = ours.check_functions(None)
    assert found.id == "cache_memoize.W008" and "prefix='checked'" in found.msg
    assert "SILENCED_SYSTEM_CHECKS" in found.hint


def test_a_model_that_is_not_installed(functions, monkeypatch):
    unknown = [("related", "nowhere.Post")]
    monkeypatch.setattr(model_signals, "unknown_models", lambda: unknown)
    (found,) = ours.check_functions(None)
    assert found.id == "cache_memoize.E003"
    assert "related.invalidate_on('nowhere.Post')" in found.msg
    assert "INSTALLED_APPS" in found.hint


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
    monkeypatch.setattr(planning, "_functions", WeakSet())
    assert ours.check_databases(None) == [], "nothing is memoized"


def test_atomic_requests_on_postgresql_is_fine_unless_told_otherwise(monkeypatch):
    need("postgresql")
    with_atomic_requests(monkeypatch, "postgresql")
    assert ours.check_databases(None) == []
    with_atomic_requests(monkeypatch, "postgresql", {"isolation_level": 2})
    assert ours.check_databases(None) == []
    with_atomic_requests(
        monkeypatch, "postgresql", {"isolation_level": "repeatable read"}
    )
    assert [f.id for f in ours.check_databases(None)] == ["cache_memoize.W002"]


def test_a_cache_in_the_database_of_atomic_requests(functions, monkeypatch):
    functions += [cache_memoize(60, prefix="same", cache_alias="sqlite")(print_nothing)]
    with_atomic_requests(monkeypatch, "default")
    found = [f for f in ours.check_databases(None) if f.id == "cache_memoize.W003"]
    assert len(found) == 1 and "'sqlite'" in found[0].msg
    assert "DATABASE_ROUTERS" in found[0].hint


def test_they_run_with_djangos_own_without_installed_apps():
    registry = checks.registry.registry
    registered, deployment = registry.registered_checks, registry.deployment_checks
    assert ours.check_deployment in deployment, "only with check --deploy"
    assert {getattr(ours, name) for name in ours.__all__} <= registered | deployment


def test_without_redis_py_nothing_is_known_of_it(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "redis.connection", None)
    assert ours._has_default_timeout() is False


# --- settings that nobody expects ----------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {},
        "locmem",
        {"BACKEND": 5},
        {"BACKEND": "no.such.Backend"},
        {"BACKEND": REDIS, "LOCATION": 5},
        {"BACKEND": REDIS, "LOCATION": [None]},
        {"BACKEND": REDIS, "OPTIONS": [1]},
        {"BACKEND": LOCMEM, "OPTIONS": [1]},
        {
            "BACKEND": DJANGO_REDIS,
            "LOCATION": URL,
            "OPTIONS": {"CONNECTION_POOL_KWARGS": "x"},
        },
    ],
    ids=str,
)
def test_a_cache_that_cannot_be_used_stops_no_other_check(
    monkeypatch, functions, settings
):
    functions += [cache_memoize(60, prefix="odd", cache_alias="odd")(another)]
    with odd_caches({"default": {"BACKEND": LOCMEM}, "odd": settings}):
        (found,) = ours.check_caches(None)
        assert found.id == "cache_memoize.E004" and "'odd' cannot be used" in found.msg
        assert ours.check_databases(None) == ours.check_functions(None) == []
        assert all("'odd'" not in each.msg for each in ours.check_deployment(None))


def test_a_site_that_nobody_has_named():
    said = {"DEFAULTS": {"vary_on": ["site"]}}
    with override_settings(CACHE_MEMOIZE=said):
        (found,) = ours.check_settings(None)
        assert found.id == "cache_memoize.E001" and "SITE_ID" in found.msg
        with override_settings(SITE_ID=1):
            assert ours.check_settings(None) == []


@pytest.mark.parametrize("said", [{1: 2, "x": 3}, {"DEFAULTS": {1: 2, "x": 3}}])
def test_names_that_are_no_names(said):
    with override_settings(CACHE_MEMOIZE=said):
        (found,) = ours.check_settings(None)
    assert found.id == "cache_memoize.E001" and "[1, 'x']" in found.msg


# --- no false alarms -----------------------------------------------------------------


@pytest.mark.parametrize(
    "one, other, alike",
    [
        ({}, {}, True),
        ({"version": 1}, {"version": 2}, False),
        ({"extra": 1}, {"extra": 1.0}, False),
        ({"extra": 1}, {"extra": lambda: 1}, False),
        ({"args_rewrite": lambda: 1}, {}, False),
        ({"vary_on": "language"}, {"vary_on": ["site"]}, False),
        ({"vary_on": "language"}, {"vary_on": ["language"]}, True),
        ({"key_generator_callable": lambda: "1"}, {}, False),
    ],
)
def test_functions_of_one_prefix_may_have_keys_of_their_own(
    functions, one, other, alike
):
    functions += [cache_memoize(60, prefix="vat", **one)(another)]
    functions += [cache_memoize(60, prefix="vat", **other)(print_nothing)]
    assert ids(ours.check_functions(None)) == ["cache_memoize.W008"] * alike


def test_who_followed_the_hint_about_snapshots_is_not_warned_again(
    monkeypatch, functions
):
    monkeypatch.setitem(connections["default"].settings_dict, "ATOMIC_REQUESTS", True)
    assert ids(ours.check_databases(None)) == ["cache_memoize.W002"]
    with override_settings(CACHE_MEMOIZE={"DEFAULTS": {"hold": 60}}):
        assert ours.check_databases(None) == []
