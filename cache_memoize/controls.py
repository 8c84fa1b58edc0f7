"""What a user does to an entry by hand: look at it, put one there."""

from __future__ import annotations

from typing import Any, NamedTuple

from django.apps import apps

from . import record
from .flows import (
    Claim,
    Memo,
    decode,
    entry,
    is_dirty,
    lifetime,
    may_store,
    timeout_of,
    usable,
)
from .invalidation import forget
from .record import pack
from .store import MISTAKES, UNREADABLE, Store

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
        grace = memo.policy.stale if there.kind == record.ENTRY else 0.0
        if not there.is_fresh(now, grace):
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
    kind = record.ENTRY if memo.policy.store_result else record.RAN
    try:
        payload = b"" if kind == record.RAN else await store.call(record.dumps, value)
    except Exception as error:
        raise TypeError(
            f"{memo.name}.prime(): a {type(value).__name__} cannot be stored, because "
            f"it cannot be pickled ({error}); give plain data"
        ) from error
    if not usable(memo, store):
        return
    try:
        look = await store.look(key)
        known = look.tags is not None and await may_store(memo, store, look.since)
        if timeout == 0 or not known or await is_dirty(store, key):
            # Not to be stored, or not before a commit that others may come before.
            # But what was there is not true any more.
            return await forget(store, memo.name, key, memo.policy.hold)
        assert look.tags is not None
        lease = pack(record.LEASE, memo.clock.token())
        now = memo.clock.time()
        claim = Claim(key, lease=lease, tags=look.tags, started=now)
        new = entry(claim, kind, payload, timeout, 0.0)
        grace = memo.policy.stale if kind == record.ENTRY else 0.0
        await store.set(key, new, lifetime(timeout + grace))
    except MISTAKES:
        raise
    except Exception as error:
        memo.stats.trouble("prime() could not store the value", error)
