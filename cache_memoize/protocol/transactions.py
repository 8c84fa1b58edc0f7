"""What the open transactions of this thread did, and what waits for their commit.

Whether a transaction has written is seen by Django's own instrumentation, an execute
wrapper (:meth:`connection.execute_wrapper`). What has to happen at commit is one of
``connection.on_commit``'s callbacks, and nothing but Django's list of them keeps it
alive: so a rollback, also one to a savepoint, forgets it without being told.

Blocks that a ``TestCase`` opened around a test do not count. For that, and to tell one
transaction from the next, parts of Django's connection are used that are not
documented: ``atomic_blocks``, ``savepoint_ids``, ``run_on_commit``,
``execute_wrappers``. Here only, and
``tests/test_transactions.py`` notices when they change.
"""

from __future__ import annotations

import functools
import re
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from django.apps import apps
from django.db import connections, transaction
from django.db.backends.signals import connection_created

from .. import process
from ..cache.backends import has_autocommit_off, own_blocks

__all__ = [
    "ask",
    "atomic_requests",
    "has_written",
    "in_test_case",
    "is_dirty",
    "live",
    "may_store",
    "outside",
    "postpone",
    "seen",
]

T = TypeVar("T")
Connection = Any

#: What begins with one of these only reads, or says something about the transaction.
_READS = re.compile(
    r"(?:\s|\(|--[^\n]*\n|/\*.*?\*/)*"
    r"(?:SELECT|SAVEPOINT|RELEASE|ROLLBACK|BEGIN|START|SET|SHOW|PRAGMA|EXPLAIN|VALUES)\b",
    re.IGNORECASE | re.DOTALL,
)
_ISOLATION = re.compile(r"\s*SET\b.*\b(REPEATABLE|SERIALIZABLE)\b", re.I | re.S)
_ROLLBACK_TO = re.compile(r"\s*ROLLBACK\s+TO\b", re.IGNORECASE)


# --- one connection ------------------------------------------------------------------


def _savepoint(connection: Connection) -> str | None:
    """The savepoint of the outermost block of the project's own, in a TestCase."""
    blocks = getattr(connection, "atomic_blocks", ())
    around = len(blocks) - len(own_blocks(connection))
    ids = connection.savepoint_ids
    return ids[around - 1] if 0 < around <= len(ids) else None


class Watch:
    """An execute wrapper for one connection, which remembers one transaction."""

    def __init__(self) -> None:
        # Django makes a new list of hooks when a transaction ends: so this tells
        # whether it is still the same. The number alone, because the hooks live and
        # die with the list; taking a new one for an old one only stores less.
        self._hooks = 0
        self._savepoint: str | None = None
        self._rolled_back = False
        self.began = 0.0
        self.wrote = False
        self.snapshot = False

    def __call__(
        self, execute: Any, sql: Any, params: Any, many: bool, context: Any
    ) -> Any:
        connection = context["connection"]
        if connection.in_atomic_block:
            self.follow(connection)
            if not (isinstance(sql, str) and _READS.match(sql)):
                self.wrote = True
            elif _ROLLBACK_TO.match(sql):
                self._rolled_back = True  # Django is about to make a new list
            elif _ISOLATION.match(sql):
                self.snapshot = True
        return execute(sql, params, many, context)

    def follow(self, connection: Connection) -> None:
        """Notice that another transaction has begun."""
        savepoint = _savepoint(connection)
        same = self._hooks == id(connection.run_on_commit) or self._rolled_back
        if not same or savepoint != self._savepoint:
            self.began = time.monotonic()
            self.wrote = self.snapshot = False
        self._hooks, self._savepoint = id(connection.run_on_commit), savepoint
        self._rolled_back = False


def _watch_on(connection: Connection) -> Watch:
    for wrapper in connection.execute_wrappers:
        if isinstance(wrapper, Watch):
            return wrapper
    watch = Watch()
    # For as long as it lives: what execute_wrapper() gives would take it off again.
    connection.execute_wrappers.append(watch)
    if connection.in_atomic_block:
        # It was opened before this library was there: nobody knows what it did.
        watch.follow(connection)
        watch.wrote = True
    return watch


#: Whether this process ever opened a database connection, as far as is known.
seen = apps.ready


def _connected(*, connection: Connection, **kwargs: Any) -> None:
    global seen
    seen = True
    _watch_on(connection)


connection_created.connect(
    _connected, dispatch_uid="cache_memoize.protocol.transactions"
)


# --- all of this thread --------------------------------------------------------------


def _open() -> list[Connection]:
    """The connections of this thread that are in a transaction of the project's."""
    return [
        connection
        for connection in connections.all(initialized_only=True)
        if own_blocks(connection) or has_autocommit_off(connection)
    ]


async def ask(store: Any, function: Callable[..., T], *args: Any) -> T:
    """Ask a function of this module in the thread that has the caller's connections."""
    return await store.ask_thread(function, *args) if seen else function(*args)


def in_test_case() -> bool:
    """Whether a TestCase's transaction is open: no other thread sees its rows."""
    return any(
        len(getattr(connection, "atomic_blocks", ())) > len(own_blocks(connection))
        for connection in connections.all(initialized_only=True)
    )


def has_written() -> bool:
    """Whether a transaction of this thread has: it holds locks, which whoever is
    waited for may need, and what it computes is for itself alone."""
    return any(_wrote(connection) for connection in _open())


def _wrote(connection: Connection) -> bool:
    if has_autocommit_off(connection):
        return True  # nobody tells where its transactions end
    watch = _watch_on(connection)
    watch.follow(connection)
    return watch.wrote


def may_store(hold: float, database: str | None = None) -> bool:
    """Whether what is computed here and now is what everybody else would see.

    Not so in a transaction that has written; nor in one that reads from a snapshot,
    unless it is younger than ``hold`` seconds, for which every invalidation blocks.
    ``database`` is the alias that the cache itself writes to, if it is a database:
    what is written there inside a transaction is for nobody else before the commit.
    """
    for connection in _open():
        if connection.alias == database or _wrote(connection):
            return False
        watch = _watch_on(connection)
        # One that is open in the other sense: a TestCase's is not a snapshot.
        age = time.monotonic() - watch.began
        if (watch.snapshot or reads_snapshot(connection)) and not age < hold:
            return False
    return True


def reads_snapshot(connection: Connection) -> bool:
    """Whether a transaction sees the data as they were when it began."""
    if connection.vendor == "sqlite":
        return True
    level = getattr(connection, "isolation_level", None)
    if level is None:  # MySQL's own default; Oracle reads what is committed
        return bool(connection.vendor == "mysql")
    return _is_snapshot(level)


def _is_snapshot(level: Any) -> bool:
    if isinstance(level, int):  # psycopg's numbers: 2 is READ COMMITTED
        return level > 2
    name = getattr(level, "name", str(level)).upper()
    return "REPEATABLE" in name or "SERIALIZABLE" in name


def atomic_requests() -> list[tuple[str, bool]]:
    """The databases on which every request is a transaction, and whether that reads
    from a snapshot, as far as the settings tell."""
    found = []
    for connection in connections.all():
        settings = connection.settings_dict
        if settings["ATOMIC_REQUESTS"]:
            level = settings["OPTIONS"].get("isolation_level")
            snapshot = connection.vendor == "sqlite" or _is_snapshot(level)
            found.append((connection.alias, snapshot))
    return found


def outside(view: Callable[..., Any]) -> Callable[..., Any]:
    """This view, in no transaction of ``ATOMIC_REQUESTS``: what it invalidates counts
    at once, and what it computes is stored."""
    for alias in connections:
        view = transaction.non_atomic_requests(using=alias)(view)
    return view


# --- what waits for a commit ---------------------------------------------------------

#: What waits, in all threads, by cache alias and key. Empty but for moments: whether
#: it is, is read on every call.
live: dict[tuple[str, str], set[weakref.ref[Pending]]] = {}
_lock = threading.RLock()  # what is collected may be so anywhere


@process.after_fork
def _after_fork() -> None:
    """Another thread of the parent may have held it."""
    global _lock
    _lock = threading.RLock()


def _gone(where: tuple[str, str], reference: weakref.ref[Pending]) -> None:
    with _lock:
        others = live.get(where, set())
        others.discard(reference)
        if not others:
            live.pop(where, None)


class Pending:
    """An action that waits for the commit of one connection's transaction."""

    def __init__(
        self,
        connection: Connection,
        alias: str,
        key: str,
        action: Callable[[bool], None],
    ) -> None:
        self.connection = connection
        self.alias = alias
        self.key = key
        self.action = action
        self.done = False
        self.thread = threading.get_ident()
        self.savepoints = set(connection.savepoint_ids)
        self.savepoint = _savepoint(connection)
        where = (alias, key)
        with _lock:
            live.setdefault(where, set()).add(
                weakref.ref(self, functools.partial(_gone, where))
            )

    def __call__(self) -> None:
        """Committed: act, and say whether nothing else waits for the same."""
        if not self.done:
            self.done = True
            self.action(not is_dirty(self.alias, (self.key,)))

    def is_over(self) -> bool:
        """Whether its block was left inside a TestCase, where nobody commits."""
        return (
            self.savepoint is not None
            and self.savepoint not in self.connection.savepoint_ids
        )


def _waiting(alias: str, keys: Iterable[str]) -> list[Pending]:
    """What waits in this thread for these keys; what need not wait any more is run."""
    me, found = threading.get_ident(), []
    for key in keys:
        with _lock:
            waiting = [reference() for reference in live.get((alias, key), ())]
        for pending in waiting:
            if pending is None or pending.done or pending.thread != me:
                continue
            if pending.is_over():
                pending()
            else:
                found.append(pending)
    return found


def is_dirty(alias: str, keys: Iterable[str]) -> bool:
    """Whether a transaction of this thread has invalidated one of these keys."""
    return bool(live) and bool(_waiting(alias, keys))


def postpone(alias: str, key: str, action: Callable[[bool], None]) -> bool:
    """Do ``action`` at the commit of every open transaction; False if none is open.

    ``action`` is told whether it is the last one that waited for the key.
    """
    found = _open()
    for connection in found:
        ids = set(connection.savepoint_ids)
        if any(
            pending.connection is connection and pending.savepoints <= ids
            for pending in _waiting(alias, (key,))
        ):
            continue  # that one will do, and lives as long as this one would
        pending = Pending(connection, alias, key, action)
        if connection.in_atomic_block:
            connection.on_commit(pending)
        else:  # autocommit is off: Django runs these when it is on again
            connection.run_on_commit.append((ids, pending, False))
    return bool(found)
