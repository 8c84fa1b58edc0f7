"""System checks: what would hang, stay unused, mix up, or never be forgotten.

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

from . import model_signals, vary
from .cache import connections
from .conf import conf
from .keys.encoding import encode
from .planning import Function, plan_of, planned
from .protocol import transactions

__all__ = [
    "check_caches",
    "check_databases",
    "check_deployment",
    "check_functions",
    "check_settings",
]

#: More than a few hundred entries are what memoizing is for.
DJANGOS_MAX_ENTRIES = 300


def check_settings(app_configs: Any, **kwargs: Any) -> list[checks.CheckMessage]:
    """E001: the setting CACHE_MEMOIZE is wrong, by itself or for a function."""
    try:
        conf()
        for function in planned():
            vary_on = plan_of(function).options.vary_on
            if vary.site in vary.parts(vary_on, function.name):
                vary.site()
    except ImproperlyConfigured as error:
        return [
            checks.Error(
                str(error),
                hint="Until then every call of a memoized function raises this.",
                id="cache_memoize.E001",
            )
        ]
    return []


def _functions() -> dict[str, list[Function]]:
    """The memoized functions, by the alias of their cache."""
    found: dict[str, list[Function]] = {}
    with suppress(ImproperlyConfigured):  # check_settings says so
        for function in planned():
            found.setdefault(plan_of(function).alias, []).append(function)
    return found


def _names(functions: Iterable[Function]) -> str:
    """Some of them, for a message."""
    names = sorted({function.path for function in functions})
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def check_caches(app_configs: Any, **kwargs: Any) -> list[checks.CheckMessage]:
    """E002, E004, W001, W004 and W005: caches that memoized functions use."""
    found: list[checks.CheckMessage] = []
    for alias, functions in _functions().items():
        settings = connections.settings_of(alias)
        if settings is None:
            found.append(_unknown_alias(alias, functions))
        else:
            found += _client(alias, settings)
    return found


def _unknown_alias(alias: str, functions: list[Function]) -> checks.CheckMessage:
    known = connections.aliases()
    close = difflib.get_close_matches(alias, known, 1)
    return checks.Error(
        f"There is no cache {alias!r}, which is that of {_names(functions)}.",
        hint=f"Did you mean {close[0]!r}?"
        if close
        else f"CACHES has {', '.join(map(repr, known))}.",
        id="cache_memoize.E002",
    )


def _client(alias: str, settings: dict[str, Any]) -> Iterator[checks.CheckMessage]:
    try:
        cache, backend = connections.opened(alias)
        missing = _missing_timeout(settings)
    except Exception as error:  # whatever a client makes of its settings, or we do
        yield checks.Error(
            f"The cache {alias!r} cannot be used: {type(error).__name__}: {error}",
            hint="Until then every call of a memoized function raises this.",
            id="cache_memoize.E004",
        )
        return
    if missing:
        yield checks.Warning(
            f"The cache {alias!r} has no socket time-out.",
            hint="Without one, every call waits for as long as its server hangs. "
            f"Set {missing} in its OPTIONS, in seconds.",
            id="cache_memoize.W001",
        )
    if not backend.takes_bytes(cache):
        yield checks.Warning(
            f"The cache {alias!r} cannot store bytes, so nothing is memoized.",
            hint="Its serializer has to take bytes, as pickle does and JSON does not. "
            "Give the memoized functions a cache of their own.",
            id="cache_memoize.W004",
        )
    elif backend.stores and not backend.atomic:
        yield checks.Warning(
            f"The cache {alias!r} cannot replace a value only if it is still the old "
            "one.",
            hint="What is invalidated is never served all the same, at the cost of a "
            "second key per entry; but there is no stale=, no early_refresh= and no "
            "figures of the whole site. Django's own backends and django-redis can; "
            'pylibmc needs {"behaviors": {"cas": True}} in its OPTIONS.',
            id="cache_memoize.W005",
        )


def check_deployment(app_configs: Any, **kwargs: Any) -> list[checks.CheckMessage]:
    """W006 and W007, with ``check --deploy``: caches that are for development."""
    found: list[checks.CheckMessage] = []
    for alias, functions in _functions().items():
        try:
            cache, backend = connections.opened(alias)
        except Exception:  # check_caches says so
            continue
        if backend.in_memory:
            what = (
                "is the memory of one process: with several workers, what one of them "
                "invalidates, the others still serve"
                if backend.stores
                else "stores nothing"
            )
            found.append(
                checks.Warning(
                    f"The cache {alias!r} {what}.",
                    hint=f"It is that of {_names(functions)}. Use one that all "
                    "processes share.",
                    id="cache_memoize.W006",
                )
            )
        if (most := backend.most(cache)) is not None and most <= DJANGOS_MAX_ENTRIES:
            found.append(
                checks.Warning(
                    f"The cache {alias!r} keeps {most} entries; beyond that it throws "
                    "away some, whatever their timeout.",
                    hint="That is Django's default. Set MAX_ENTRIES in its OPTIONS.",
                    id="cache_memoize.W007",
                )
            )
    return found


def check_functions(app_configs: Any, **kwargs: Any) -> list[checks.CheckMessage]:
    """E003 and W008: what functions are registered for, and known as."""
    found: list[checks.CheckMessage] = [
        checks.Error(
            f"{function}.invalidate_on({model!r}): there is no such model, so nothing "
            "is ever forgotten.",
            hint="Write app_label.ModelName, of an app that is in INSTALLED_APPS.",
            id="cache_memoize.E003",
        )
        for function, model in model_signals.unknown_models()
    ]
    for alias, functions in _functions().items():
        alike: dict[Any, list[Function]] = {}
        for function in functions:
            if plan_of(function).options.key_generator_callable is None:
                alike.setdefault(_apart(function), []).append(function)
        for (prefix, *_), same in alike.items():
            name = prefix.split(" ", 1)[0] if "prefix" not in same[0].given else prefix
            if len({function.path for function in same}) > 1:
                found.append(
                    checks.Warning(
                        f"{_names(same)} have one prefix={name!r} in the cache "
                        f"{alias!r}: with equal arguments one serves what another has "
                        "computed.",
                        hint="Give each its own, or leave prefix= out. If they are to "
                        "share their entries, put this check into "
                        "SILENCED_SYSTEM_CHECKS.",
                        id="cache_memoize.W008",
                    )
                )
    return found


def _apart(function: Function) -> Any:
    """What sets its keys apart from those of other functions, the prefix first."""
    given, extra = plan_of(function).options, plan_of(function).options.extra
    return (
        function.prefix,
        encode(given.version),
        callable(extra) or encode(extra),
        given.args_rewrite is None,
        *vary.parts(given.vary_on, function.name),
    )


def _missing_timeout(settings: dict[str, Any]) -> str | None:
    """The option to set, by what the client does when it is not set."""
    options = settings.get("OPTIONS") or {}
    kind = str(settings["BACKEND"]).rpartition(".")[2]
    if settings["BACKEND"].startswith("django_redis."):
        pool = options.get("CONNECTION_POOL_KWARGS") or {}
        given = options.get("SOCKET_TIMEOUT") or pool.get("socket_timeout")
        return None if given or _redis_has_one() else "SOCKET_TIMEOUT"
    if kind == "RedisCache":
        locations = settings.get("LOCATION") or ""
        urls = [locations] if isinstance(locations, str) else list(locations)
        given = options.get("socket_timeout") or all("timeout=" in u for u in urls)
        return None if given or _redis_has_one() else "socket_timeout"
    if kind == "PyMemcacheCache":
        return None if options.get("timeout") else "timeout"
    return None  # pylibmc has one of its own; the others have no socket


def _redis_has_one() -> bool:
    """Newer versions of redis-py give up by themselves."""
    try:
        from redis.connection import AbstractConnection
    except ImportError:
        return False
    parameters = inspect.signature(AbstractConnection.__init__).parameters
    return parameters["socket_timeout"].default is not None


def check_databases(app_configs: Any, **kwargs: Any) -> list[checks.CheckMessage]:
    """W002 and W003: with ``ATOMIC_REQUESTS``, views would store nothing."""
    if not (used := _functions()):
        return []
    held = all(
        plan_of(function).policy.hold for each in used.values() for function in each
    )
    return [*(() if held else _snapshots()), *_same_databases(used)]


def _snapshots() -> Iterator[checks.CheckMessage]:
    for alias, snapshot in transactions.atomic_requests():
        if snapshot:
            yield checks.Warning(
                f"Every request is a transaction on the database {alias!r}, which "
                "reads from a snapshot: what views compute is not stored.",
                hint="A snapshot may be older than the last invalidation. Give the "
                "functions hold=, longer than a request takes, or the views "
                "non_atomic_requests.",
                id="cache_memoize.W002",
            )


def _same_databases(used: Iterable[str]) -> Iterator[checks.CheckMessage]:
    atomic = {alias for alias, _ in transactions.atomic_requests()}
    for alias in used:
        try:
            database = connections.database_of(alias)
        except Exception:  # check_caches says so
            continue
        if database in atomic:
            yield checks.Warning(
                f"Every request is a transaction on the database that the cache "
                f"{alias!r} is in: what views compute is not stored.",
                hint="What is written there is for nobody else before the commit, and "
                "the others would wait for it. Route the cache's table to a database "
                "alias of its own (DATABASE_ROUTERS), or use another cache.",
                id="cache_memoize.W003",
            )


for check in (check_settings, check_caches, check_databases, check_functions):
    checks.register(check, checks.Tags.caches)
checks.register(check_deployment, checks.Tags.caches, deploy=True)
