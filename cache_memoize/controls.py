"""What a user does to an entry by hand: forget it, look at it, put one there."""

from __future__ import annotations

from typing import Any, NamedTuple

from django.apps import apps

from . import record
from .flows import (
    PATIENCE,
    Memo,
    decode,
    entry,
    lifetime,
    timeout_of,
    usable,
)
from .policy import FAILED_FOR
from .record import pack
from .store import MISTAKES, UNREADABLE, CacheDidNotAnswer, Store

__all__ = ["Entry", "forget", "peek", "prime"]


async def forget(memo: Memo, store: Store, key: str) -> None:
    """Delete, and raise whatever kept it from being deleted."""
    for _ in range(PATIENCE):
        if await store.delete(key) or not store.backend().swallows:
            return
        # "Nothing was deleted" may be a client that gave its server up for a while. A
        # mark that could be added shows that nothing was there; one that can be read
        # back, that whatever was there is gone. Anything else may be what was there
        # before, on a server that takes no writes.
        token = memo.clock.token()
        mark = pack(record.FAILED, token)
        if not await store.add(key, mark, FAILED_FOR):
            await store.set(key, mark, FAILED_FOR)
            there = await store.get(key)
            if there is None or there is UNREADABLE or there.token != token:
                continue
        await store.delete(key)
        return
    raise CacheDidNotAnswer(
        f"{memo.name}.invalidate(): the cache {store.alias!r} does not keep what is "
        "written to it, so the old value may come back; call invalidate() again when "
        "the server answers"
    )


class Entry(NamedTuple):
    """What :meth:`peek` found."""

    #: The stored result; the exception itself if one was stored; True for a guard.
    value: Any
    #: Seconds since its computation started.
    age: float
    #: Whether it is past its timeout; this version serves no such entry.
    stale: bool = False


async def peek(memo: Memo, store: Store, key: str) -> Entry | None:
    try:
        if not usable(memo, store):
            return None
        there = await store.get(key)
        now = memo.clock.time()
        if there is None or there is UNREADABLE or not there.is_fresh(now):
            return None
        return Entry(decode(there), now - there.start)
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
    now, token = memo.clock.time(), memo.clock.token()
    new = entry(kind, pack(record.LEASE, token), payload, now, timeout, 0.0)
    try:
        if timeout == 0:  # not to be stored: but what was there is not true any more
            await store.delete(key)
        else:
            await store.set(key, new, lifetime(timeout))
    except MISTAKES:
        raise
    except Exception as error:
        memo.stats.trouble("prime() could not store the value", error)
