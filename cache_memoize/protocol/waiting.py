"""The callers of this process that wait for one key: in a line, and for which leader.

A thousand tasks that each look at the cache ten times a second keep its one thread
busy, and the task that computes waits for them. So of the callers of one event loop, or
of all threads, one goes to the cache: the first of the line. It takes the lease if it
can; otherwise it looks from time to time, and hands what it has seen to the others, of
which each decides, and unpickles, for itself. When the first one leaves, the next one
takes its place.

A caller that waits must not hold the thread that the leader needs, as all sync code of
an event loop shares one: see :func:`holds_up`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Hashable
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

from asgiref.sync import AsyncToSync, SyncToAsync

from .. import process
from ..cache.store import AsyncStore
from ..cache.tokens import Look
from .call import Call
from .capture import computation

__all__ = ["Leader", "Place", "holds_up", "lead"]


# --- threads for the sync code of async callers --------------------------------------


class _Seat(NamedTuple):
    """All by which asgiref chooses the thread for the sync code of a coroutine."""

    loop: Any
    #: The thread below ``async_to_sync()``, which serves only what is called there.
    executor: Any
    #: Of a request, as a rule.
    context: Any


def _seat_in_loop() -> _Seat | None:
    """Return None outside of asyncio, where a coroutine may be run by hand."""
    try:
        return _seat(asyncio.get_running_loop())
    except RuntimeError:
        return None


def _seat(loop: Any) -> _Seat:
    executor = getattr(AsyncToSync.executors, "current", None)
    return _Seat(loop, executor, SyncToAsync.thread_sensitive_context.get(None))


class Leader:
    """A caller that has a lease, in async code: its sync code needs a thread."""

    def __init__(self, seat: _Seat) -> None:
        self.seat = seat


#: By the token of their lease; alive as long as their claim.
_leaders: WeakValueDictionary[bytes, Leader] = WeakValueDictionary()


def lead(call: Call, token: bytes) -> Leader | None:
    """Make the leader with this lease known, if it needs a thread for sync code."""
    seat = _seat_in_loop() if isinstance(call.store, AsyncStore) else None
    if seat is None:
        return None
    leader = _leaders[token] = Leader(seat)
    return leader


def holds_up(call: Call, token: bytes) -> bool:
    """Return whether the caller holds the thread that the leader with this lease needs:
    then it must not wait, but computes in place of the leader."""
    leader = _leaders.get(token)
    if leader is None or computation() is not None:
        return False
    is_async, mine = isinstance(call.store, AsyncStore), _seat_in_loop()
    if not is_async:  # in a thread that works for a loop, asgiref leaves the loop here
        mine = _seat(getattr(SyncToAsync.threadlocal, "main_event_loop", None))
    if (
        mine is None
        or mine.loop is not leader.seat.loop
        or mine.context is not leader.seat.context
    ):
        return False
    # A coroutine holds a thread only if it was called by async_to_sync() there.
    return not is_async or mine.executor not in (None, leader.seat.executor)


# --- the line ------------------------------------------------------------------------


class _Line:
    def __init__(self) -> None:
        self.first: Place | None = None
        #: The others, with what they wait on.
        self.others: dict[Place, Any] = {}


_lines: dict[Hashable, _Line] = {}
_lock = threading.Lock()


@process.after_fork
def _after_fork() -> None:
    """Start without lines in a child: the first ones of them are in the parent."""
    global _lock
    _lock = threading.Lock()
    _lines.clear()


class Place:
    """The place of one caller in the line for its key."""

    def __init__(self, call: Call) -> None:
        self._store = store = call.store
        is_async, seat = isinstance(store, AsyncStore), _seat_in_loop()
        place = store.place_of(call.key)
        #: Another thread may mean another key by this one: then there is no line.
        self._is_alone = place is None or (is_async and seat is None)
        tags = getattr(call.key, "tags", ())
        key = call.function, is_async and seat, store.alias, place, tags
        self._line: Hashable = key
        #: A caller cannot wait for itself: a signal receiver may make the same call.
        self._owner = None if self._is_alone else store.owner()
        #: The others that were in line before this one began its look.
        self._before: list[Place] = []

    def join(self) -> Any:
        """Return None for the first, else what to wait on: :meth:`Store.wait` returns
        the look of the first, or None if this caller is to look itself."""
        if self._is_alone:
            return None
        with _lock:
            line = _lines.setdefault(self._line, _Line())
            if line.first is None:
                line.first = self
            if line.first._owner == self._owner:
                return None
            line.others[self] = future = self._store.future()
            return future

    def begin_look(self) -> None:
        """Note the others in line. A caller that joins later may have begun after an
        invalidation, and must not be handed what was there before."""
        with _lock:
            line = _lines.get(self._line)
            is_first = line is not None and line.first is self
            self._before = [*line.others] if line and is_first else []

    def share(self, look: Look) -> None:
        """Hand what the first has seen to the others from before; they leave the
        line."""
        with _lock:
            line = _lines.get(self._line)
            if line is None or line.first is not self:
                return
            others = [(p, line.others.pop(p)) for p in self._before if p in line.others]
        for place, future in others:
            place._store.wake(future, look)

    def leave(self) -> None:
        """Leave the line; the next one becomes the first."""
        with _lock:
            line = _lines.get(self._line)
            if line is None:
                return
            line.others.pop(self, None)
            if line.first is not self:
                return
            line.first = next(iter(line.others), None)
            if line.first is None:
                del _lines[self._line]
                return
            woken = line.others.pop(line.first)
        line.first._store.wake(woken, None)
