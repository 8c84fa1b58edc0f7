"""What a user does to an entry by hand: look at it, put one there."""

from __future__ import annotations

from typing import Any, NamedTuple

from django.apps import apps

from ..cache.connections import MISTAKES, UNREADABLE
from ..cache.store import Store
from .call import (
    Memo,
    decode,
    encode,
    is_dirty,
    look_at,
    usable,
)
from .claim import overtake
from .invalidation import forget
from .settle import entry, put, timeout_of

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
        there, tags, _ = await look_at(store, key)
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
    claim = await overtake(memo, store, key)
    try:
        if timeout == 0 and usable(memo, store):
            # Not to be stored: but what was there is not true any more.
            await forget(store, memo.name, key, memo.policy.hold)
        elif claim.lease is not None:
            new = entry(claim, memo.kind, payload, timeout, 0.0)
            await put(store, claim, new, timeout + memo.grace(memo.kind))
    except MISTAKES:
        raise
    except Exception as error:
        memo.stats.trouble("prime() could not store the value", error)
