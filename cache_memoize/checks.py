"""System checks of the settings, the caches and the functions.

They run with Django's own, whether or not the library is in ``INSTALLED_APPS``.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.db import connections as db_connections
from django.db import router
from django.urls import get_resolver

from . import model_signals, vary
from .cache import connections
from .cache.errors import UNFIT
from .conf import conf, is_debug
from .describe import FunctionInfo, list_functions
from .planning import distinction
from .process import printable
from .protocol import snapshots

__all__ = [
    "check_caches",
    "check_databases",
    "check_deployment",
    "check_functions",
    "check_settings",
    "check_sharing",
    "check_tables",
    "check_tags",
]

#: Entries that Django's caches keep by default; memoized functions may need more.
DJANGOS_MAX_ENTRIES = 300

#: By id: the message and the hint; an E is an error, a W a warning, an I information.
TEXTS = {
    "cache_memoize.E001": (
        "{}",
        "Until then every call of a memoized function raises this.",
    ),
    "cache_memoize.E002": (
        "There is no cache {!r} in CACHES; it is {}.",
        "{2}",
    ),
    "cache_memoize.E003": (
        "{}.invalidate_on({!r}): there is no such model, so no call is ever "
        "invalidated.",
        "Write app_label.ModelName, of an app that is in INSTALLED_APPS{2}.",
    ),
    "cache_memoize.E004": (
        "The cache {!r} cannot be used: {}: {}",
        "Until then every call of a memoized function raises this.",
    ),
    "cache_memoize.E005": (
        "The cache {!r} {}, so nothing is memoized.",
        "In its settings, {2}.",
    ),
    "cache_memoize.W001": (
        "The cache {!r} has no socket time-out.",
        "Without one, every call waits for as long as its server hangs. Set {1} in its "
        "OPTIONS, in seconds.",
    ),
    "cache_memoize.W002": (
        "Every request is a transaction on the database {!r}, which reads from a "
        "snapshot: results that views compute are not stored.",
        "A snapshot may be older than the last invalidation. Give the functions hold=, "
        "longer than a request takes, or the views non_atomic_requests.",
    ),
    "cache_memoize.W003": (
        "Every request is a transaction on the database that the cache {!r} is in: "
        "results that views compute are not stored.",
        "An entry written there is visible to other requests only after the commit, "
        "and they would wait for it. Route the cache's table to a database alias of "
        "its own (DATABASE_ROUTERS), or use another cache.",
    ),
    "cache_memoize.W004": (
        "The cache {!r} cannot store bytes, so nothing is memoized.",
        "Its serializer has to accept bytes, as pickle does and JSON does not. Give "
        "the memoized functions a cache of their own.",
    ),
    "cache_memoize.W005": (
        "The cache {!r} cannot replace a value atomically (compare-and-set).",
        "An invalidated result is never served all the same, at the cost of a second "
        "key per entry; but stale=, early_refresh= and the figures of the whole site "
        "are not available. Django's own backends and django-redis can do it; pylibmc "
        'needs {{"behaviors": {{"cas": True}}}} in its OPTIONS.',
    ),
    "cache_memoize.W006": (
        "The cache {!r} {}.",
        "It is the cache of {2}. Use one that all processes share.",
    ),
    "cache_memoize.W007": (
        "The cache {!r} keeps {} entries, and drops others before their timeout.",
        "That is Django's default. Set MAX_ENTRIES in its OPTIONS.",
    ),
    "cache_memoize.W008": (
        "{} have one prefix={!r} in the cache {!r}: with equal arguments, one returns "
        "the results of another.",
        "Give each a prefix of its own, or leave prefix= out. If they are to share "
        "their entries, put this check into SILENCED_SYSTEM_CHECKS.",
    ),
    "cache_memoize.W009": (
        "The cache {!r} is in the folder {!r}, to which every user of the machine may "
        "write: an entry of another user runs code when it is read.",
        "Use a folder of the project's own, with mode 0700.",
    ),
    "cache_memoize.W010": (
        "{}.invalidate_on() is called by a module that Django does not import when it "
        "starts: processes that do not import it (shells, workers, commands) never "
        "invalidate.",
        "Import the module in the ready() of an AppConfig, or in models.py.",
    ),
    "cache_memoize.W011": (
        "depends_on= of {} has {}, but the database {!r} has no table {!r}: no write "
        "ever invalidates the results.",
        "Correct the db_table of the model, or name the model that has the table.",
    ),
    "cache_memoize.I001": (
        "These functions have no tags, so invalidate_all() and invalidate_model() "
        "refuse them: {}.",
        'Write {{"DEFAULTS": {{"tags": ()}}}} in CACHE_MEMOIZE before you need it; each'
        " hit then reads one key more. Without it, invalidate single calls, or increase"
        " version=.",
    ),
}


def _make_message(id: str, *words: Any) -> checks.CheckMessage:
    message, hint = TEXTS[id]
    kind = {"E": checks.Error, "W": checks.Warning, "I": checks.Info}[id[-4]]
    message, hint = (printable(each.format(*words)) for each in (message, hint))
    return kind(message, hint=hint, id=id)


def _functions_by_alias() -> dict[str, list[FunctionInfo]]:
    """Return the functions that the site serves by the alias of their cache."""
    found: dict[str, list[FunctionInfo]] = {}
    _import_urlconf()
    try:
        for info in list_functions():
            found.setdefault(info.alias, []).append(info)
    except ImproperlyConfigured:  # an error of check_settings
        return {}
    return found


def _import_urlconf() -> None:
    """Import the modules of the views. The check of Django reports its errors, but may
    run later than ours."""
    with suppress(Exception):
        _ = get_resolver().url_patterns


def _join_names(functions: list[FunctionInfo]) -> str:
    """Return the paths of at most three functions, and the number of the others."""
    names = sorted({info.path for info in functions})
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def check_settings(app_configs: Any, **kwargs: Any) -> list[checks.CheckMessage]:
    """E001: the setting CACHE_MEMOIZE is wrong, by itself or for a function."""
    try:
        conf()
        for info in list_functions():
            if vary.site in vary.parts(info.options.vary_on, info.name):
                vary.site()
    except ImproperlyConfigured as error:
        return [_make_message("cache_memoize.E001", error)]
    return []


# --- caches --------------------------------------------------------------------------


def check_caches(app_configs: Any, **kwargs: Any) -> list[checks.CheckMessage]:
    """E002, E004, W001, W004 and W005: caches that memoized functions use."""
    found: list[checks.CheckMessage] = []
    for alias, functions in _functions_by_alias().items():
        settings = connections.settings_of(alias)
        if settings is None:
            whose = f"the cache_alias= of {_join_names(functions)}"
            found.append(_make_no_cache(alias, whose))
        else:
            found += _check_client(alias, settings)
    with suppress(ImproperlyConfigured):  # an error of check_settings
        for alias in conf().TABLE_CACHES:
            if connections.settings_of(alias) is None:
                whose = "in CACHE_MEMOIZE['TABLE_CACHES']"
                found.append(_make_no_cache(alias, whose))
    return found


def _make_no_cache(alias: str, whose: str) -> checks.CheckMessage:
    known = connections.aliases()
    close = difflib.get_close_matches(alias, known, 1)
    hint = f"CACHES has {', '.join(map(repr, known))}."
    hint = f"Did you mean {close[0]!r}?" if close else hint
    return _make_message("cache_memoize.E002", alias, whose, hint)


def _check_client(
    alias: str, settings: dict[str, Any]
) -> Iterator[checks.CheckMessage]:
    try:
        cache, backend = connections.opened(alias)
        missing = _find_missing_timeout(settings)
    except Exception as error:  # of a client for its settings, or ours
        yield _make_message("cache_memoize.E004", alias, type(error).__name__, error)
        return
    if missing:
        yield _make_message("cache_memoize.W001", alias, missing)
    if not backend.takes_bytes(cache):
        yield _make_message("cache_memoize.W004", alias)
    elif backend.stores and not backend.atomic:
        yield _make_message("cache_memoize.W005", alias)


def check_sharing(app_configs: Any, **kwargs: Any) -> list[checks.CheckMessage]:
    """W006: caches that other processes do not see. On a developer's machine (DEBUG),
    which has one process as a rule, only with ``check --deploy``."""
    return [] if is_debug() else list(_check_sharing(True))


def _check_sharing(*stores: bool) -> Iterator[checks.CheckMessage]:
    for alias, functions in _functions_by_alias().items():
        with suppress(Exception):  # an error of check_caches
            problem = connections.unshared(alias)
            if problem and connections.opened(alias)[1].stores in stores:
                words = alias, problem, _join_names(functions)
                yield _make_message("cache_memoize.W006", *words)


def check_deployment(app_configs: Any, **kwargs: Any) -> list[checks.CheckMessage]:
    """E005, W006, W007 and W009, with ``check --deploy``: servers that cannot work,
    which have to be asked, and caches for development. One that stores nothing is
    common on a developer's machine, and returns no old value."""
    found = list(_check_sharing(False, is_debug()))
    for alias in _functions_by_alias():
        try:
            cache, backend = connections.opened(alias)
        except Exception:  # an error of check_caches
            continue
        with suppress(Exception):  # it is down, or does not tell
            if answer := backend.ask_server(cache):
                words = alias, *UNFIT[answer]
                found.append(_make_message("cache_memoize.E005", *words))
        if (most := backend.most(cache)) is not None and most <= DJANGOS_MAX_ENTRIES:
            found.append(_make_message("cache_memoize.W007", alias, most))
        if (folder := backend.open_folder(cache)) is not None:
            found.append(_make_message("cache_memoize.W009", alias, folder))
    return found


def check_tags(app_configs: Any, **kwargs: Any) -> list[checks.CheckMessage]:
    """I001, with ``check --deploy``: functions without tags, all in one message."""
    groups = _functions_by_alias().values()
    found = [info for group in groups for info in group if info.options.tags is None]
    return [_make_message("cache_memoize.I001", _join_names(found))] if found else []


def _find_missing_timeout(settings: dict[str, Any]) -> str | None:
    """Return the option that gives the client a time-out, or None if it has one."""
    options = settings.get("OPTIONS") or {}
    kind = str(settings["BACKEND"]).rpartition(".")[2]
    if settings["BACKEND"].startswith(("django_redis.", "django_valkey.")):
        is_cluster = kind == "ClusterValkeyCache"  # which ignores SOCKET_TIMEOUT
        more = "BASE_CLIENT_KWARGS" if is_cluster else "CONNECTION_POOL_KWARGS"
        given = (options.get(more) or {}).get("socket_timeout")
        if given or (options.get("SOCKET_TIMEOUT") and not is_cluster):
            return None
        if settings["BACKEND"].startswith("django_redis.") and _has_default_timeout():
            return None
        return f'{more}["socket_timeout"]' if is_cluster else "SOCKET_TIMEOUT"
    if kind in ("RedisCache", "RedisClusterCache"):
        locations = settings.get("LOCATION") or ""
        urls = [locations] if isinstance(locations, str) else list(locations)
        given = options.get("socket_timeout") or all("timeout=" in u for u in urls)
        return None if given or _has_default_timeout() else "socket_timeout"
    if kind == "PyMemcacheCache":
        return None if options.get("timeout") else "timeout"
    return None  # pylibmc has a default; other backends have no socket


def _has_default_timeout() -> bool:
    """Return whether this version of redis-py has a time-out by default."""
    try:
        from redis.connection import AbstractConnection
    except ImportError:
        return False
    parameters = inspect.signature(AbstractConnection.__init__).parameters
    return parameters["socket_timeout"].default is not None


# --- functions and databases ---------------------------------------------------------


def check_functions(app_configs: Any, **kwargs: Any) -> list[checks.CheckMessage]:
    """E003, W008 and W010: models that do not exist, prefixes that are used twice, and
    registrations that some processes do not see."""
    by_alias = _functions_by_alias()
    found = [
        _make_message(
            "cache_memoize.E003", function, model, model_signals.meant_model(model)
        )
        for function, model in model_signals.unknown_models()
    ]
    for path in model_signals.late_functions():
        found.append(_make_message("cache_memoize.W010", path))
    for alias, functions in by_alias.items():
        alike: dict[Any, list[FunctionInfo]] = {}
        for info in functions:
            if info.options.key_generator_callable is None:
                alike.setdefault(distinction(info.record, info.options), []).append(
                    info
                )
        for (prefix, *_), same in alike.items():
            name = prefix if "prefix" in same[0].given else prefix.split(" ", 1)[0]
            if len({info.path for info in same}) > 1:
                words = _join_names(same), name, alias
                found.append(_make_message("cache_memoize.W008", *words))
    return found


def check_databases(app_configs: Any, **kwargs: Any) -> list[checks.CheckMessage]:
    """W002 and W003: with ``ATOMIC_REQUESTS``, views would store nothing."""
    functions = _functions_by_alias()
    held = all(info.holds for group in functions.values() for info in group)
    atomic = dict(snapshots.atomic_requests())
    found = [
        _make_message("cache_memoize.W002", database)
        for database, snapshot in atomic.items()
        if snapshot and not held
    ]
    for alias in functions:
        try:
            if connections.database_of(alias) in atomic:
                found.append(_make_message("cache_memoize.W003", alias))
        except Exception:  # an error of check_caches
            continue
    return found


def check_tables(
    app_configs: Any, databases: Iterable[str] | None = None, **kwargs: Any
) -> list[checks.CheckMessage]:
    """W011, with ``check --database``: tables in depends_on= that do not exist, unless
    migrations have yet to be applied."""
    groups = _functions_by_alias().values()
    pairs = [
        (info, model) for group in groups for info in group for model in info.models
    ]
    found = []
    for alias in databases or ():
        connection, tables = db_connections[alias], set[str]()
        for info, model in pairs:
            table = model._meta.db_table
            if "." in table or router.db_for_read(model) != alias:
                continue
            if not tables:
                names = connection.introspection.table_names(include_views=True)
                tables.update(map(str.lower, names))
            if table.lower() not in tables and not _has_unapplied(connection):
                words = info.path, model._meta.label, alias, table
                found.append(_make_message("cache_memoize.W011", *words))
    return found


def _has_unapplied(connection: Any) -> bool:
    from django.db.migrations.executor import MigrationExecutor

    executor = MigrationExecutor(connection)
    return bool(executor.migration_plan(executor.loader.graph.leaf_nodes()))


checks.register(check_tables, checks.Tags.database)
for check in (
    check_settings,
    check_caches,
    check_sharing,
    check_databases,
    check_functions,
):
    checks.register(check, checks.Tags.caches)
for check in (check_deployment, check_tags):
    checks.register(check, checks.Tags.caches, deploy=True)
