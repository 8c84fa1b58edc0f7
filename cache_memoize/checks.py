"""System checks: settings that make a cache hang, or that keep it from being used.

They run with Django's own, whether or not the library is in ``INSTALLED_APPS``.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from django.core import checks

from . import breaker, clients, transactions

__all__ = ["check_caches", "check_databases"]


def check_caches(app_configs: Any, **kwargs: Any) -> list[checks.CheckMessage]:
    """W001: a cache that memoized functions use has no time-out for its server."""
    found: list[checks.CheckMessage] = []
    for alias in breaker.known():
        settings = clients.settings_of(alias)
        missing = settings and _missing_timeout(settings)
        if missing:
            found.append(
                checks.Warning(
                    f"The cache {alias!r} has no socket time-out.",
                    hint="Without one, every call waits for as long as its server "
                    f"hangs. Set {missing} in its OPTIONS, in seconds.",
                    id="cache_memoize.W001",
                )
            )
    return found


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
    if not breaker.known():
        return []
    return [*_snapshots(), *_same_databases()]


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


def _same_databases() -> Iterator[checks.CheckMessage]:
    atomic = {alias for alias, _ in transactions.atomic_requests()}
    for alias in breaker.known():
        if clients.settings_of(alias) and clients.database_of(alias) in atomic:
            yield checks.Warning(
                f"Every request is a transaction on the database that the cache "
                f"{alias!r} is in: what views compute is not stored.",
                hint="What is written there is for nobody else before the commit, and "
                "the others would wait for it. Route the cache's table to a database "
                "alias of its own (DATABASE_ROUTERS), or use another cache.",
                id="cache_memoize.W003",
            )


checks.register(check_caches, checks.Tags.caches)
checks.register(check_databases, checks.Tags.caches)
