"""System checks of the settings, the caches and the functions.

They run with Django's own, whether or not the library is in ``INSTALLED_APPS``.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Iterator
from typing import Any

from django.core import checks
from django.core.exceptions import ImproperlyConfigured

from . import conf, model_signals, vary
from .cache import connections
from .describe import FunctionInfo, list_functions
from .keys.encoding import encode
from .protocol import transactions

__all__ = [
    "check_caches",
    "check_databases",
    "check_deployment",
    "check_functions",
    "check_settings",
]

#: Entries that Django's caches keep by default; memoized functions may need more.
DJANGOS_MAX_ENTRIES = 300

_Messages = list[checks.CheckMessage]
_RAISED = "Until then every call of a memoized function raises this."


def _make_error(id: str, message: str, hint: str) -> checks.CheckMessage:
    return checks.Error(message, hint=hint, id=id)


def _make_warning(id: str, message: str, hint: str) -> checks.CheckMessage:
    return checks.Warning(message, hint=hint, id=id)


def _functions_by_alias() -> dict[str, list[FunctionInfo]]:
    found: dict[str, list[FunctionInfo]] = {}
    try:
        for info in list_functions():
            found.setdefault(info.alias, []).append(info)
    except ImproperlyConfigured:  # an error of check_settings
        return {}
    return found


def _join_names(functions: Iterable[FunctionInfo]) -> str:
    """Return the paths of at most three functions, and the number of the others."""
    names = sorted({info.path for info in functions})
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


# --- settings ------------------------------------------------------------------------


def check_settings(app_configs: Any, **kwargs: Any) -> _Messages:
    """E001: the setting CACHE_MEMOIZE is wrong, by itself or for a function."""
    try:
        conf.check()
        for info in list_functions():
            if vary.site in vary.parts(info.options["vary_on"], info.name):
                vary.site()
    except ImproperlyConfigured as error:
        return [_make_error("cache_memoize.E001", str(error), _RAISED)]
    return []


# --- caches --------------------------------------------------------------------------


def check_caches(app_configs: Any, **kwargs: Any) -> _Messages:
    """E002, E004, W001, W004 and W005: caches that memoized functions use."""
    found: _Messages = []
    for alias, functions in _functions_by_alias().items():
        settings = connections.settings_of(alias)
        if settings is None:
            found.append(_report_unknown(alias, functions))
        else:
            found += _check_client(alias, settings)
    return found


def _report_unknown(alias: str, functions: list[FunctionInfo]) -> checks.CheckMessage:
    known = connections.aliases()
    close = difflib.get_close_matches(alias, known, 1)
    return _make_error(
        "cache_memoize.E002",
        f"There is no cache {alias!r} in CACHES; it is the cache_alias= of "
        f"{_join_names(functions)}.",
        f"Did you mean {close[0]!r}?"
        if close
        else f"CACHES has {', '.join(map(repr, known))}.",
    )


def _check_client(
    alias: str, settings: dict[str, Any]
) -> Iterator[checks.CheckMessage]:
    try:
        cache, backend = connections.opened(alias)
        missing = _find_missing_timeout(settings)
    except Exception as error:  # of a client for its settings, or ours
        message = f"The cache {alias!r} cannot be used: {type(error).__name__}: {error}"
        yield _make_error("cache_memoize.E004", message, _RAISED)
        return
    if missing:
        yield _make_warning(
            "cache_memoize.W001",
            f"The cache {alias!r} has no socket time-out.",
            "Without one, every call waits for as long as its server hangs. "
            f"Set {missing} in its OPTIONS, in seconds.",
        )
    if not backend.takes_bytes(cache):
        yield _make_warning(
            "cache_memoize.W004",
            f"The cache {alias!r} cannot store bytes, so nothing is memoized.",
            "Its serializer has to accept bytes, as pickle does and JSON does not. "
            "Give the memoized functions a cache of their own.",
        )
    elif backend.stores and not backend.atomic:
        yield _make_warning(
            "cache_memoize.W005",
            f"The cache {alias!r} cannot replace a value atomically (compare-and-set).",
            "An invalidated result is never served all the same, at the cost of a "
            "second key per entry; but stale=, early_refresh= and the figures of the "
            "whole site are not available. Django's own backends and django-redis can "
            'do it; pylibmc needs {"behaviors": {"cas": True}} in its OPTIONS.',
        )


def check_deployment(app_configs: Any, **kwargs: Any) -> _Messages:
    """W006 and W007, with ``check --deploy``: caches that are for development."""
    found: _Messages = []
    for alias, functions in _functions_by_alias().items():
        try:
            cache, backend = connections.opened(alias)
        except Exception:  # an error of check_caches
            continue
        if backend.in_memory:
            problem = (
                "is the memory of one process: with several workers, an entry that one "
                "invalidates is still served by the others"
                if backend.stores
                else "stores nothing"
            )
            names = _join_names(functions)
            hint = f"It is the cache of {names}. Use one that all processes share."
            message = f"The cache {alias!r} {problem}."
            found.append(_make_warning("cache_memoize.W006", message, hint))
        if (most := backend.most(cache)) is not None and most <= DJANGOS_MAX_ENTRIES:
            message = (
                f"The cache {alias!r} keeps {most} entries, and drops others before "
                "their timeout."
            )
            hint = "That is Django's default. Set MAX_ENTRIES in its OPTIONS."
            found.append(_make_warning("cache_memoize.W007", message, hint))
    return found


def _find_missing_timeout(settings: dict[str, Any]) -> str | None:
    """Return the option that gives the client a time-out, or None if it has one."""
    options = settings.get("OPTIONS") or {}
    kind = str(settings["BACKEND"]).rpartition(".")[2]
    if settings["BACKEND"].startswith("django_redis."):
        pool = options.get("CONNECTION_POOL_KWARGS") or {}
        given = options.get("SOCKET_TIMEOUT") or pool.get("socket_timeout")
        return None if given or _has_default_timeout() else "SOCKET_TIMEOUT"
    if kind == "RedisCache":
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


# --- functions -----------------------------------------------------------------------


def check_functions(app_configs: Any, **kwargs: Any) -> _Messages:
    """E003 and W008: models that do not exist, and prefixes that are used twice."""
    found = [
        _make_error(
            "cache_memoize.E003",
            f"{function}.invalidate_on({model!r}): there is no such model, so no call "
            "is ever invalidated.",
            "Write app_label.ModelName, of an app that is in INSTALLED_APPS.",
        )
        for function, model in model_signals.unknown_models()
    ]
    for alias, functions in _functions_by_alias().items():
        alike: dict[Any, list[FunctionInfo]] = {}
        for info in functions:
            if info.options["key_generator_callable"] is None:
                alike.setdefault(_find_distinction(info), []).append(info)
        for (prefix, *_), same in alike.items():
            name = prefix if "prefix" in same[0].given else prefix.split(" ", 1)[0]
            if len({info.path for info in same}) > 1:
                found.append(_report_prefix(alias, name, same))
    return found


def _find_distinction(info: FunctionInfo) -> Any:
    """Return all that makes a function's keys differ from others, the prefix first."""
    options, extra = info.options, info.options["extra"]
    return (
        info.prefix,
        encode(options["version"]),
        callable(extra) or encode(extra),
        options["args_rewrite"] is None,
        *vary.parts(options["vary_on"], info.name),
    )


def _report_prefix(
    alias: str, prefix: str, functions: list[FunctionInfo]
) -> checks.CheckMessage:
    return _make_warning(
        "cache_memoize.W008",
        f"{_join_names(functions)} have one prefix={prefix!r} in the cache {alias!r}: "
        "with equal arguments, one returns the results of another.",
        "Give each a prefix of its own, or leave prefix= out. If they are to share "
        "their entries, put this check into SILENCED_SYSTEM_CHECKS.",
    )


# --- databases -----------------------------------------------------------------------


def check_databases(app_configs: Any, **kwargs: Any) -> _Messages:
    """W002 and W003: with ``ATOMIC_REQUESTS``, views would store nothing."""
    functions = _functions_by_alias()
    found: _Messages = []
    if not all(info.holds for group in functions.values() for info in group):
        for database, snapshot in transactions.atomic_requests():
            if snapshot:
                found.append(_report_snapshot(database))
    atomic = {database for database, _ in transactions.atomic_requests()}
    for alias in functions:
        try:
            if connections.database_of(alias) in atomic:
                found.append(_report_database(alias))
        except Exception:  # an error of check_caches
            continue
    return found


def _report_snapshot(database: str) -> checks.CheckMessage:
    return _make_warning(
        "cache_memoize.W002",
        f"Every request is a transaction on the database {database!r}, which reads "
        "from a snapshot: results that views compute are not stored.",
        "A snapshot may be older than the last invalidation. Give the functions "
        "hold=, longer than a request takes, or the views non_atomic_requests.",
    )


def _report_database(alias: str) -> checks.CheckMessage:
    return _make_warning(
        "cache_memoize.W003",
        f"Every request is a transaction on the database that the cache {alias!r} is "
        "in: results that views compute are not stored.",
        "An entry written there is visible to other requests only after the commit, "
        "and they would wait for it. Route the cache's table to a database alias of "
        "its own (DATABASE_ROUTERS), or use another cache.",
    )


for check in (check_settings, check_caches, check_databases, check_functions):
    checks.register(check, checks.Tags.caches)
checks.register(check_deployment, checks.Tags.caches, deploy=True)
