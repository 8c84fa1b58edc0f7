"""The open transactions of this thread, and the actions that wait for their commit.

A transaction that has written sees rows that no other one sees, and may be rolled back.
Its results must not be stored for all. A call that it invalidates must be a miss for it
at once, for the others from the commit on, and not at all after a rollback.

So an execute wrapper on each connection (:meth:`connection.execute_wrapper`) notices
writes, and invalidations wait as ``connection.on_commit`` callbacks. Only Django's list
of callbacks keeps them alive: a rollback, also one to a savepoint, drops them.

Execute wrappers do not see what a cursor does besides ``execute`` (``callproc``,
``copy``). So ``connection.make_cursor`` is replaced (``cursor`` may be running, and
open the connection) by a function whose cursors are counted, and notice these methods.

The obvious scheme, ``transaction.on_commit(invalidate)`` alone, is half of it: the
transaction itself would read old entries, and store values that a rollback takes back.

Blocks that a ``TestCase`` opens around a test are no transactions of the project. To
leave them out, and to tell one transaction from the next, this module uses parts of
Django's connection that are not documented: ``atomic_blocks``, ``savepoint_ids``,
``run_on_commit``, ``execute_wrappers``, ``make_cursor``. Tests fail when they change.
"""

from __future__ import annotations

import functools
import secrets
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from django.apps import apps
from django.db import connections
from django.db.backends.signals import connection_created
from django.db.backends.utils import CursorWrapper

from .. import process
from ..cache.backends import has_autocommit_off, own_blocks
from ..process import logger
from .snapshots import ENDING, ending, has_open_statement, reads_snapshot
from .statements import effect_of

__all__ = [
    "ask_connections",
    "can_share_results",
    "has_connected",
    "has_invalidated",
    "in_test_case",
    "live",
    "may_hold_locks",
    "run_at_commit",
    "count_database_uses",
]

T = TypeVar("T")
Connection = Any
#: By alias of a connection, the number of cursors and statements.
Uses = tuple[tuple[str, int], ...] | None


#: Sees every statement, if results depend on tables (tables.py).
observer: Callable[..., Any] | None = None


# --- one connection ------------------------------------------------------------------


def _outermost_savepoint(connection: Connection) -> str | None:
    """Return the savepoint of the project's outermost block, if in a TestCase."""
    blocks = getattr(connection, "atomic_blocks", ())
    around = len(blocks) - len(own_blocks(connection))
    ids = connection.savepoint_ids
    return ids[around - 1] if 0 < around <= len(ids) else None


class Watch:
    """An execute wrapper that records the present transaction of one connection."""

    def __init__(self) -> None:
        # Django makes a new list of hooks when a transaction ends, so the id of the
        # list identifies the transaction. Only the id, because a reference would keep
        # the hooks alive; an id may be used again, so the outermost block counts too.
        self._hooks = 0
        self._block: Callable[[], Any] = lambda: None
        self._savepoint: str | None = None
        self._rolled_back = False
        self.began = 0.0
        self.wrote = self.locked = self.snapshot = False
        #: Whether transactions read from a snapshot by default; None: not asked yet.
        self.snapshots: bool | None = None
        #: The number of cursors opened, and of statements.
        self.uses = 0
        #: Identifies the connection in the blocks of the keys that it invalidates.
        self.token = secrets.token_bytes(8)

    def __call__(
        self, execute: Any, sql: Any, params: Any, many: bool, context: Any
    ) -> Any:
        self.uses += 1
        connection = context["connection"]
        if observer is not None:
            execute = functools.partial(observer, connection, execute)
        if "SOLATION" in str(sql).upper():  # the next transaction's, on MySQL
            outside = not connection.in_atomic_block
            self.snapshots = (outside and effect_of(sql).isolates) or None
        if connection.in_atomic_block:
            self.follow(connection)
            effect = effect_of(sql)
            self.wrote = self.wrote or effect.writes
            self.locked = self.locked or effect.locks
            self.snapshot = self.snapshot or effect.isolates
            self._rolled_back = effect.undoes  # Django is about to make a new list
        return execute(sql, params, many, context)

    def note_write(self, connection: Connection) -> None:
        self.uses += 1
        if connection.in_atomic_block:
            self.follow(connection)
            self.wrote = True

    def follow(self, connection: Connection) -> None:
        """Reset the record if another transaction has begun."""
        savepoint = _outermost_savepoint(connection)
        block = next(iter(own_blocks(connection)), None)
        # With autocommit off, a block is only a part of a transaction.
        inside = self._block() is block or not connection.commit_on_exit
        same = self._hooks == id(connection.run_on_commit) and inside
        if not (same or self._rolled_back) or savepoint != self._savepoint:
            self.began = time.monotonic()
            self.wrote = self.locked = self.snapshot = False
        self._hooks, self._savepoint = id(connection.run_on_commit), savepoint
        self._block = (lambda: None) if block is None else weakref.ref(block)
        self._rolled_back = False


def _watch_of(connection: Connection) -> Watch:
    for wrapper in connection.execute_wrappers:
        if isinstance(wrapper, Watch):
            return wrapper
    watch = Watch()
    # Not by execute_wrapper(), a context manager: it removes the last one at its end.
    connection.execute_wrappers.insert(0, watch)
    for name in ("make_cursor", "make_debug_cursor"):
        setattr(connection, name, _opening(watch, getattr(connection, name)))
    connection.commit = functools.partial(_commit, connection, connection.commit)
    if connection.in_atomic_block:
        # It was opened before this library was imported, so it may have written.
        watch.follow(connection)
        watch.wrote = True
    return watch


#: Methods of cursors, of Django or a driver, that execute wrappers do not see.
_UNSEEN = (
    *("callfunc", "callproc", "copy", "copy_expert", "copy_from", "copy_to"),
    *("executescript", "stream"),
)


def _noticed(kind: type, name: str) -> property:
    def get(cursor: Any) -> Any:
        _watch_of(cursor.db).note_write(cursor.db)
        if hasattr(kind, name):
            method = getattr(super(_noticing(kind), cursor), name)
        else:  # of the driver's cursor
            method = CursorWrapper.__getattr__(cursor, name)
        if observer is None:
            return method
        return functools.partial(_show_observer, cursor.db, method)

    return property(get)


def _show_observer(
    connection: Connection, method: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    """Call a method that sends a statement whose text is not known."""
    assert observer is not None
    return observer(connection, lambda sql: method(*args, **kwargs), None)


@functools.lru_cache
def _noticing(kind: Any) -> type:
    """Return the class of cursors ``kind`` whose unseen methods are noticed."""
    methods: Any = {name: _noticed(kind, name) for name in _UNSEEN}
    methods |= {name: ending(name) for name in ENDING}
    return type(kind.__name__, (kind,), {**methods, "ENDING": ENDING})


def _opening(watch: Watch, make: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function like ``make``, for cursors that ``watch`` notices."""

    @functools.wraps(make)
    def cursor(*args: Any, **kwargs: Any) -> Any:
        made = make(*args, **kwargs)
        kind: Any = type(made)
        watch.uses += 1
        if isinstance(made, CursorWrapper):
            made.__class__ = _noticing(kind)
        return made

    return cursor


def _commit(connection: Connection, commit: Callable[[], None]) -> None:
    """Do what has to be in the transaction, as its last statements, and commit."""
    hooks = enumerate(hook for _, hook, _ in connection.run_on_commit)
    ours = [(n, hook) for n, hook in hooks if isinstance(hook, Pending)]
    last = [(p.alias, key, n, p.before) for n, p in ours if p.before for key in p.keys]
    if last and not connection.in_atomic_block:
        connection.in_atomic_block = True  # then an error is that of a savepoint
        try:
            for _, key, _, before in sorted(last):  # or two might wait for each other
                before(key)
        except Exception as error:
            if connection.needs_rollback:
                raise
            logger.warning("%r before the commit; the hook after it is left", error)
        finally:
            connection.in_atomic_block = False
    commit()


#: Whether this process has opened a database connection. True too if this module was
#: imported after the apps were loaded, and might have missed it.
has_connected = apps.ready


def _watch_new_connection(*, connection: Connection, **kwargs: Any) -> None:
    global has_connected
    has_connected = True
    _watch_of(connection).snapshots = None


connection_created.connect(
    _watch_new_connection, dispatch_uid="cache_memoize.protocol.transactions"
)


# --- all connections of this thread --------------------------------------------------


def _connections_in_transaction() -> list[Connection]:
    """Return the connections of this thread on which the project has a transaction."""
    return [
        connection
        for connection in connections.all(initialized_only=True)
        if own_blocks(connection) or has_autocommit_off(connection)
    ]


async def ask_connections(store: Any, function: Callable[..., T], *args: Any) -> T:
    """Call a function of this module in the thread with the caller's connections."""
    return await store.ask_thread(function, *args) if has_connected else function(*args)


def in_test_case() -> bool:
    """Return whether a TestCase has a transaction open. Other threads miss its rows."""
    return any(
        len(getattr(connection, "atomic_blocks", ())) > len(own_blocks(connection))
        for connection in connections.all(initialized_only=True)
    )


def may_hold_locks() -> bool:
    """Return whether an open transaction of this thread may hold locks that another
    computation needs."""
    return any(
        _has_written(connection) or _watch_of(connection).locked
        for connection in _connections_in_transaction()
    )


def _has_written(connection: Connection) -> bool:
    if has_autocommit_off(connection):
        return True  # the end of its transactions cannot be noticed
    watch = _watch_of(connection)
    watch.follow(connection)
    return watch.wrote


def can_share_results(hold: float, database: str | None = None) -> bool:
    """Return whether a result computed now in this thread is valid for other callers.

    It is not in a transaction that has written, nor in one that reads from a snapshot,
    unless that is younger than ``hold`` seconds, for which every invalidation blocks;
    nor in a loop over rows of SQLite. ``database`` is the alias of the database that
    the cache itself is in, if any: others do not see an entry there before the commit.
    """
    if any(map(has_open_statement, connections.all(initialized_only=True))):
        return False
    for connection in _connections_in_transaction():
        if connection.alias == database or _has_written(connection):
            return False
        watch = _watch_of(connection)
        # In a TestCase, this is the age of the project's outermost block.
        age = time.monotonic() - watch.began
        if watch.snapshots is None and not watch.snapshot:
            watch.snapshots = reads_snapshot(connection)  # once per connection
        if (watch.snapshot or watch.snapshots is not False) and not age < hold:
            return False
    return True


def count_database_uses(cache: str | None = None) -> Uses:
    """Return a count that changes when code of this thread uses a database; None if it
    cannot be known.

    ``cache`` is the alias of a database that the cache itself uses: that does not
    count, but in an open transaction, other callers would not see an entry.
    """
    found = []
    open_ones = _connections_in_transaction()
    for connection in connections.all(initialized_only=True):
        if connection.connection is None and not connection.execute_wrappers:
            continue  # never opened: a watch would be one more
        watch = _watch_of(connection)
        if "make_cursor" not in vars(connection):
            return None  # another library has removed our function
        if connection.alias != cache:
            found.append((connection.alias, watch.uses))
        elif connection in open_ones:
            return None
    return tuple(found)


# --- actions at the commit -----------------------------------------------------------

#: The pending actions of all threads, by cache alias and key. Empty except while a
#: transaction has invalidated something; every call looks whether it is.
live: dict[tuple[str, str], set[weakref.ref[Pending]]] = {}
#: Reentrant: garbage collection may call ``_drop_reference()`` while it is held.
_lock = threading.RLock()


@process.after_fork
def _after_fork() -> None:
    """Replace the lock: another thread of the parent may have held it."""
    global _lock
    _lock = threading.RLock()


def _drop_reference(where: tuple[str, str], reference: weakref.ref[Pending]) -> None:
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
        keys: Sequence[str],
        action: Callable[[], None],
        before: Any = None,
    ) -> None:
        self.connection = connection
        #: Done for each key as a last statement of the transaction.
        self.before = before
        self.alias = alias
        self.keys = frozenset(keys)
        self.action = action
        self.done = False
        self.thread = threading.get_ident()
        self.savepoints = set(connection.savepoint_ids)
        self.savepoint = _outermost_savepoint(connection)
        for key in keys:
            where = (alias, key)
            with _lock:
                live.setdefault(where, set()).add(
                    weakref.ref(self, functools.partial(_drop_reference, where))
                )

    def __call__(self) -> None:
        """Act after the commit."""
        if not self.done:
            self.done = True
            self.action()

    def is_over(self) -> bool:
        """Return whether its transaction has been committed, and Django is running the
        hooks; or its block has ended inside a TestCase, which never commits."""
        if self.savepoint is None:
            return all(hook is not self for _, hook, _ in self.connection.run_on_commit)
        return self.savepoint not in self.connection.savepoint_ids


def _pending_for(alias: str, keys: Iterable[str]) -> list[Pending]:
    """Return the actions of this thread that wait for these keys; run those that need
    not wait any longer."""
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


def has_invalidated(alias: str, keys: Iterable[str]) -> bool:
    """Return whether an open transaction of this thread has invalidated a key."""
    return bool(live) and bool(_pending_for(alias, keys))


def run_at_commit(
    alias: str,
    keys: Sequence[str],
    action: Callable[[bytes], None],
    block: Callable[[frozenset[bytes], str], None],
    database: str | None,
) -> frozenset[bytes] | None:
    """Run ``action`` at the commit of every open transaction, with the token of its
    connection. Return the tokens; none if no transaction is open.

    If the cache is in a ``database`` with an open transaction, return None: its rows
    would be locked until the end, so ``block`` gets the tokens, and each key, just
    before the commit.
    """
    found = _connections_in_transaction()
    tokens = frozenset(_watch_of(connection).token for connection in found)
    for connection in found:
        token = _watch_of(connection).token
        ids = set(connection.savepoint_ids)
        if any(
            pending.connection is connection
            and pending.savepoints <= ids
            and pending.keys.issuperset(keys)
            for pending in _pending_for(alias, keys)
        ):
            continue  # that action is enough, and lives as long as this one would
        at_commit = functools.partial(action, token)
        own = connection.alias == database
        before = functools.partial(block, tokens) if own else None
        pending = Pending(connection, alias, keys, at_commit, before)
        if connection.in_atomic_block:
            connection.on_commit(pending)
        else:  # autocommit is off: Django runs these when it is on again
            connection.run_on_commit.append((ids, pending, False))
    return None if database in [each.alias for each in found] else tokens
