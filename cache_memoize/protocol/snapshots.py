"""Snapshots that a connection reads from, though no statement of the project says so.

A transaction at REPEATABLE READ sees the data as they were when it began; queries in a
loop over rows of SQLite, those of before the loop. Results that are computed from them
may be older than the last invalidation. The settings do not tell: the level may be the
default of a server, a database, a role or a session.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db import connections, transaction
from django.db.backends.utils import CursorWrapper

__all__ = [
    "ENDING",
    "atomic_requests",
    "ending",
    "has_open_statement",
    "is_snapshot",
    "reads_snapshot",
    "without_atomic_requests",
]

Connection = Any


def has_open_statement(connection: Connection) -> bool:
    """Return whether SQLite has rows to read, as in a loop over ``iterator()``. In WAL
    mode, all queries of the connection then see the data of before the loop."""
    if connection.vendor != "sqlite" or connection.connection is None:
        return False
    try:
        for _ in range(2):  # SQLite replaces no function while a statement runs
            connection.connection.create_function("cache_memoize_open", 0, bool)
    except connection.Database.Error:
        return True
    return False


#: Methods of cursors that may end a statement.
ENDING = ("close", "fetchall", "fetchmany", "fetchone")


def ending(name: str) -> property:
    """Return a method of cursors that then does what waits for the end of a statement.

    SQLite commits a statement with RETURNING when its last row has been read.
    """

    def get(cursor: Any) -> Any:
        method = CursorWrapper.__getattr__(cursor, name)
        if "waiting" not in vars(cursor):
            return method

        def end(*args: Any, **kwargs: Any) -> Any:
            try:
                return method(*args, **kwargs)
            finally:
                if name == "close" or not has_open_statement(cursor.db):
                    vars(cursor).pop("waiting")()

        return end

    return property(get)


#: By vendor, a query for the isolation level of the session, or that a driver sets.
_LEVEL_QUERIES = {
    "postgresql": "SELECT current_setting('default_transaction_isolation'), "
    "current_setting('transaction_isolation')",
    "mysql": "SHOW SESSION VARIABLES WHERE Variable_name LIKE '%isolation'",
}


def reads_snapshot(connection: Connection) -> bool | None:
    """Return whether the transactions of a session read from a snapshot, unless they
    set a level of their own. Ask the server, by the driver: this is no query of the
    project. None: it cannot be asked now, as in a transaction that has failed."""
    vendor, options = connection.vendor, connection.settings_dict["OPTIONS"]
    written = vendor == "postgresql" and "isolation_level" in options
    if vendor not in _LEVEL_QUERIES or written:
        level = getattr(connection, "isolation_level", None)  # Oracle has none
        return vendor == "sqlite" or is_snapshot(level)
    try:
        with connection.connection.cursor() as cursor:
            cursor.execute(_LEVEL_QUERIES[vendor])
            return any(is_snapshot(value) for row in cursor for value in row)
    except connection.Database.Error:
        return None


def is_snapshot(level: Any) -> bool:
    """Return whether an isolation level of Django, or of a server, has a snapshot."""
    if type(level) is int:  # psycopg's numbers: 2 is READ COMMITTED
        return level > 2
    name = getattr(level, "name", str(level)).upper()
    return "REPEATABLE" in name or "SERIALIZABLE" in name


# --- the transactions of requests ---------------------------------------------------


def atomic_requests() -> list[tuple[str, bool]]:
    """Return the aliases of the databases with ``ATOMIC_REQUESTS``, and whether such a
    transaction reads from a snapshot, as far as the settings tell."""
    found = []
    for connection in connections.all():
        settings = connection.settings_dict
        if settings["ATOMIC_REQUESTS"]:
            level = settings["OPTIONS"].get("isolation_level")
            snapshot = connection.vendor == "sqlite" or is_snapshot(level)
            found.append((connection.alias, snapshot))
    return found


def without_atomic_requests(view: Callable[..., Any]) -> Callable[..., Any]:
    """Exempt a view from ``ATOMIC_REQUESTS``: its invalidations take effect at once."""
    for alias in connections:
        view = transaction.non_atomic_requests(using=alias)(view)
    return view
