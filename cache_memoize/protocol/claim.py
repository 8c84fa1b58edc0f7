"""The protocol in the cache before a call: an entry, or the right to compute one.

Written once for sync and async.

Every flow is a coroutine over a Store; over the synchronous one it never suspends, and
:func:`runner.run` finishes it at once. The user's function is called between the
flows, by the wrappers in decorator.py: inside a coroutine it would lose recursion
depth, and ``StopIteration`` would change its meaning.

One key holds nothing, a lease (somebody is computing), or an entry. The right to store
is the lease that one wrote; it is replaced by the entry only if it is still there. So
whatever deletes or replaces it, an invalidation for instance, wins.
"""

from __future__ import annotations

import math
from enum import Enum
from typing import Any

from ..cache import record
from ..cache.connections import (
    MISTAKES,
    UNREAD,
    UNREADABLE,
    is_decoding_error,
)
from ..cache.record import Record, Stamp, pack
from ..cache.store import (
    PATIENCE,
    CacheDidNotAnswer,
    Look,
    Store,
    no_answer,
)
from ..stats.counters import logger
from . import threads, transactions
from .call import (
    Claim,
    Memo,
    computing,
    decode,
    is_dirty,
    look_at,
    may_store,
    stamp,
    usable,
)
from .invalidation import forget

__all__ = ["Do", "can_wait", "claim", "decide", "overtake"]


async def claim(
    memo: Memo, store: Store, key: str, first: Any = UNREAD, error: Any = None
) -> Claim:
    """An entry to serve, or the right to compute.

    ``first`` is what the wrapper has just read there, ``error`` what it got instead.
    An entry together with the right to compute is one that is to be refreshed.
    """
    try:
        if not usable(memo, store) or await is_dirty(store, key):
            return _right(memo, key)
        if error is None:
            look = await look_at(store, key, first, hold=memo.policy.hold)
        elif is_decoding_error(error):
            look = await look_at(store, key)
        else:
            raise error
        return await _claim(memo, store, key, look)
    except MISTAKES:
        raise
    except Exception as trouble:
        if trouble is error or isinstance(trouble, CacheDidNotAnswer):
            store.trouble(trouble)
        memo.stats.trouble("the cache failed before the call", trouble)
        return _right(memo, key)


class Do(Enum):
    """What a caller does next with a key."""

    CLEAR = "delete what is no record of ours"
    TAKE = "put a lease of its own there"
    RETRY = "the same, after a computation that stored nothing"
    SERVE = "serve the entry"
    WAIT = "wait for the holder of the lease, and look again"
    COMPUTE = "compute, and store nothing"


def decide(
    look: Look, now: float, grace: float, awaited: bytes | None, lost: int
) -> Do:
    """Return what to do about what was seen under a key. Pure.

    :param grace: seconds after its timeout for which an entry is still served.
    :param awaited: the token of the lease that this caller has waited for, if any.
    :param lost: how many times in a row nothing was there, though ``add`` was refused.
    """
    there = look.record
    if there is UNREADABLE or (there is None and lost == PATIENCE // 2):
        return Do.CLEAR  # some clients show what they cannot read as nothing
    if there is None:
        return Do.TAKE
    if there.kind == record.BLOCK:
        return Do.COMPUTE
    if there.tags != look.tags:  # one of its tags was invalidated
        return Do.TAKE
    if there.is_fresh(now, grace):
        return Do.SERVE
    if there.kind in record.LEASES:
        # The one that was waited for has failed. Waiting for the next one too would
        # line the callers of a failing function up behind one another.
        again = there.kind == record.RETRY and awaited not in (None, there.token)
        return Do.COMPUTE if again else Do.WAIT
    if there.kind == record.FAILED:
        return Do.RETRY if awaited is None else Do.COMPUTE
    return Do.TAKE  # it has expired


class _Waiter:
    """A caller that waits for the computation of another one."""

    def __init__(self, memo: Memo, key: str) -> None:
        self.memo, self.key = memo, key
        #: The token of the lease that it waits for.
        self.awaited: bytes | None = None
        self.deadline = math.inf
        self.pauses = 0

    async def pause(self, store: Store, lease: Record) -> bool:
        """Wait a little; return False if it may not wait, or not any longer."""
        clock, policy = self.memo.clock, self.memo.policy
        if self.awaited is None:
            self.memo.stats.waited(self.key)
            self.deadline = clock.monotonic() + policy.budget(self.memo.slowest)
        self.awaited = lease.token
        left = self.deadline - clock.monotonic()
        if left <= 0 or not await can_wait(store):
            return False
        await store.sleep(min(policy.pause(self.pauses, clock.random()), left))
        self.pauses += 1
        return True


async def _claim(memo: Memo, store: Store, key: str, look: Look) -> Claim:
    waiter = _Waiter(memo, key)
    looks = lost = 0
    token = b""
    while True:
        there = look.record
        if isinstance(there, Record) and there.token == token:
            # The client has sent our lease twice: the answer to the first was lost.
            return _right(memo, key, there.raw, there.tags)
        token, now = memo.clock.token(), memo.clock.time()
        looks += 1
        lost = lost + 1 if there is None else 0
        if looks > PATIENCE:
            if lost > PATIENCE:
                raise no_answer(store)
            return _right(memo, key)  # so much is going on: others will store
        do = decide(look, now, _grace(memo, store, there), waiter.awaited, lost)
        mine: Claim | None = None
        if do is Do.CLEAR:
            await store.delete(key)
        elif do is Do.COMPUTE:
            return _right(memo, key)
        elif do is Do.SERVE:
            mine = await _serve(memo, store, key, look, now, token)
        elif do is Do.WAIT:
            assert there is not None
            if not await waiter.pause(store, there):
                if memo.policy.store_result:
                    return _right(memo, key)
                return Claim(key, there, True)  # a guard: somebody is at it
            looks = lost = 0
        else:
            kind = record.RETRY if do is Do.RETRY else record.LEASE
            mine = await _take(memo, store, key, look, token, kind)
        if mine is not None:
            return mine
        look = await look_at(store, key)


async def _serve(
    memo: Memo, store: Store, key: str, look: Look, now: float, token: bytes
) -> Claim | None:
    """The entry that was seen, perhaps with the right to refresh it; the right to
    compute if it cannot be read; None: it is not there any more."""
    there = look.record
    assert there is not None
    try:
        ours = Claim(key, there, decode(there))
    except Exception as unreadable:  # a class decides what unpickling raises
        logger.info("%s: unreadable entry: %r", memo.name, unreadable)
        return await _take(memo, store, key, look, token)
    if not _wants_refresh(memo, store, there, now):
        return ours
    return await _revalidate(memo, store, ours, look, now)


async def can_wait(store: Store) -> bool:
    """Whether nobody can be waiting for this caller in turn."""
    if computing.get() or not store.can_wait():
        return False
    return not await transactions.ask(store, transactions.has_written)


async def _take(
    memo: Memo,
    store: Store,
    key: str,
    look: Look,
    token: bytes,
    kind: int = record.LEASE,
) -> Claim | None:
    """Put a lease in the place of what was seen; None: it is not there any more."""
    if look.tags is None or not await may_store(memo, store, look.since):
        return _right(memo, key)
    old = None if look.record is None else look.record.raw
    lease = pack(kind, token, tags=look.tags)
    if not await store.take(key, old, lease, memo.lease()):
        return None
    return _right(memo, key, lease, look.tags)


def _grace(memo: Memo, store: Store, there: Record | None) -> float:
    """Return the seconds after its timeout for which an entry may be served.

    Only where replacing is atomic: nothing else could tell that it was invalidated
    while it was being stamped.
    """
    if not isinstance(there, Record) or not store.backend().atomic:
        return 0.0
    return memo.grace(there.kind)


def _wants_refresh(memo: Memo, store: Store, there: Record, now: float) -> bool:
    """Whether this caller should see to a new value; it gets this one all the same."""
    policy = memo.policy
    if there.kind != record.ENTRY or there.is_claimed(now):
        return False
    if there.is_fresh(now):
        if not policy.early_refresh or not store.backend().atomic:
            return False
        age = now - there.start
        if not policy.is_early(age, there.timeout, there.cost, memo.clock.random()):
            return False
    return not threads.is_full()


async def _revalidate(
    memo: Memo, store: Store, ours: Claim, look: Look, now: float
) -> Claim:
    """``ours`` with the right to compute a new value, if nobody else has it."""
    assert ours.found is not None and look.tags is not None
    if not await may_store(memo, store, look.since):
        return ours
    attempts = ours.found.stamp.attempts
    seconds = memo.policy.claim_for(memo.slowest, attempts)
    stamped = Stamp(now, seconds, min(attempts + 1, 255))
    lease = await stamp(memo, store, ours.key, ours.found, stamped)
    if lease is None:
        return ours
    right = _right(memo, ours.key, lease, look.tags, keeps=ours.found)
    return right._replace(found=ours.found, value=ours.value)


def _right(
    memo: Memo,
    key: str,
    lease: bytes | None = None,
    tags: bytes = b"",
    *,
    keeps: Record | None = None,
) -> Claim:
    now, began = memo.clock.time(), memo.clock.monotonic()
    return Claim(key, lease=lease, tags=tags, keeps=keeps, started=now, began=began)


async def overtake(memo: Memo, store: Store, key: str) -> Claim:
    """The right to store for a refresh, whoever else has it: the newest wins.

    Readers keep an entry that may be served, stamped with the token of this refresh.
    """
    try:
        if not usable(memo, store) or await is_dirty(store, key):
            return _right(memo, key)
        if not await may_store(memo, store):
            # For this transaction only. But what is there is to be replaced: so it is
            # forgotten, for the others at the commit.
            await forget(store, memo.name, key, memo.policy.hold)
            return _right(memo, key)
        lost, token = 0, b""
        for _ in range(PATIENCE):
            look = await look_at(store, key)
            there = look.record
            if isinstance(there, Record) and there.token == token:
                return _right(memo, key, there.raw, there.tags)  # sent twice
            token, now = memo.clock.token(), memo.clock.time()
            lost = lost + 1 if there is None else 0
            do = decide(look, now, _grace(memo, store, there), None, lost)
            if do is Do.CLEAR:
                await store.delete(key)
                continue
            if do is Do.COMPUTE:
                return _right(memo, key)
            if do is Do.SERVE and store.backend().atomic:
                assert there is not None
                if not await may_store(memo, store, look.since):
                    return _right(memo, key)
                if mine := await _stamp_anyway(memo, store, key, there, now):
                    return mine
                continue
            if mine := await _take(memo, store, key, look, token):
                return mine
        if lost == PATIENCE:
            raise no_answer(store)
        return _right(memo, key)  # overtaken again and again, by newer ones
    except MISTAKES:
        raise
    except Exception as trouble:
        if isinstance(trouble, CacheDidNotAnswer):
            store.trouble(trouble)
        memo.stats.trouble("the cache failed before the refresh", trouble)
        return _right(memo, key)


async def _stamp_anyway(
    memo: Memo, store: Store, key: str, there: Record, now: float
) -> Claim | None:
    """A refresh by hand does not ask whether somebody else is at it."""
    stamped = None
    if memo.policy.revalidates:  # nobody else needs to begin
        seconds = memo.policy.claim_for(memo.slowest, 0)
        stamped = Stamp(now, seconds, there.stamp.attempts)
    lease = await stamp(memo, store, key, there, stamped)
    if lease is None:
        return None
    return _right(memo, key, lease, there.tags, keeps=there)
