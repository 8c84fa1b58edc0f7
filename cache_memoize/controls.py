"""What a user does to an entry by hand: look at it, put one there."""

from __future__ import annotations

from typing import Any, NamedTuple

from django.apps import apps

from . import record
from .clients import MISTAKES, UNREADABLE
from .flows import overtake
from .invalidation import forget
from .memo import Memo, decode, encode, is_dirty, lifetime, usable
from .record import Record
from .settling import entry, timeout_of
from .store import PATIENCE, Store

__all__ = ["Entry", "peek", "prime"]


class Entry(NamedTuple):
    """What :meth:`peek` found."""

    #: The stored result; the exception itself if one was stored; True for a guard.
    value: Any
    #: Seconds since its computation started.
    age: float
    #: Whether it is past its timeout, and served only until there is a new one.
    stale: bool = False


async def peek(memo: Memo, store: Store, key: str) -> Entry | None:
    try:
        if not usable(memo, store) or await is_dirty(store, key):
            return None
        there, tags, _ = await store.look(key)
        now = memo.clock.time()
        if there is None or there is UNREADABLE or there.tags != tags:
            return None
        if not there.is_fresh(now, memo.grace(there.kind)):
            return None
        return Entry(decode(there), now - there.start, not there.is_fresh(now))
    except MISTAKES:
        raise
    except Exception as error:
        memo.stats.trouble("peek() could not read the entry", error)
        return None


async def prime(
    memo: Memo, store: Store, key: str, value: Any, args: Any, kwargs: Any
) -> None:
    """Store a value computed elsewhere; it wins over computations under way."""
    if not apps.ready:
        return
    timeout = timeout_of(memo, store, value, args, kwargs)
    try:
        payload = await store.call(encode, memo.kind, value)
    except Exception as error:
        raise TypeError(
            f"{memo.name}.prime(): a {type(value).__name__} cannot be stored, because "
            f"it cannot be pickled ({error}); give plain data"
        ) from error
    # Like a refresh that takes no time: a late command of a client that has given up
    # cannot undo an invalidation that came after.
    first = None
    try:
        for _ in range(PATIENCE):
            claim = await overtake(memo, store, key)
            first = claim.started if first is None else first
            if timeout == 0 and usable(memo, store):
                # Not to be stored: but what was there is not true any more.
                return await forget(store, memo.name, key, memo.policy.hold)
            if claim.lease is None:
                return
            new = entry(claim, memo.kind, payload, timeout, 0.0)
            left = lifetime(timeout + memo.grace(memo.kind))
            if await store.swap(key, claim.lease, new, left):
                return
            # A refresh has stamped the old entry, and may yet fail. What else came in
            # between, an invalidation or a newer value, wins.
            there = await store.get(key)
            if not (isinstance(there, Record) and there.kind in record.ENTRIES):
                return
            if there.start > first:
                return
    except MISTAKES:
        raise
    except Exception as error:
        memo.stats.trouble("prime() could not store the value", error)
