"""The protocol in the cache, written once for sync and async.

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
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, NamedTuple

from django.apps import apps

from . import pool, record, signing, stats, transactions
from .clock import Clock
from .invalidation import forget
from .policy import BACKEND, FAILED_FOR, Policy
from .record import Claimed, Record, pack
from .store import (
    MISTAKES,
    PATIENCE,
    UNREAD,
    UNREADABLE,
    CacheDidNotAnswer,
    Look,
    Store,
    is_decoding_error,
    no_answer,
)
from .tags import TaggedKey

#: Whether this context is computing something. Who computes never waits for others:
#: so no circle of waiters can form, and recursion cannot block itself.
computing: ContextVar[bool] = ContextVar("cache_memoize_computing", default=False)


class Memo:
    """What the flows need to know of one memoized function."""

    def __init__(self, name: str, policy: Policy, clock: Clock) -> None:
        self.name = name
        self.policy = policy
        self.clock = clock
        self.stats = stats.Stats(name)
        #: Seconds of the slowest run that outlasted its lease in this process.
        self.slowest = 0.0

    def lease(self) -> int:
        return math.ceil(self.policy.lease_for(self.slowest))


class Claim(NamedTuple):
    """What came of asking: an entry, or the right to store, or neither, or both."""

    key: str
    #: The entry to serve; its value is decoded.
    found: Record | None = None
    value: Any = None
    #: What the key must still hold when the result is stored; None: do not store.
    lease: bytes | None = None
    #: The tokens that the tags had when the right to store was given.
    tags: bytes = b""
    #: The entry that readers still get, stamped with ``lease``'s token.
    keeps: Record | None = None
    started: float = 0.0
    began: float = 0.0


def decode(found: Record) -> Any:
    if found.kind == record.RAN:
        return True
    if found.kind == record.RAISED:
        return record.loads_exception(found.raw)
    return record.loads(found.raw)


# --- before the call -----------------------------------------------------------------


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
            look = await store.seen(key, first, hold=memo.policy.hold)
        elif is_decoding_error(error):
            look = await store.look(key)
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


def usable(memo: Memo, store: Store) -> bool:
    return (
        apps.ready
        and memo.policy.stores
        and not store.breaker.blocks(memo.clock.monotonic())
        and store.backend().stores
    )


async def is_dirty(store: Store, key: str) -> bool:
    """Whether a transaction of this thread has invalidated this call."""
    if not transactions.live:
        return False
    keys = (key, *key.tags) if isinstance(key, TaggedKey) else (key,)
    return await store.there(transactions.is_dirty, store.alias, keys)


async def _claim(memo: Memo, store: Store, key: str, look: Look) -> Claim:
    clock, policy = memo.clock, memo.policy
    awaited: bytes | None = None  # the lease of whom we wait for
    deadline = math.inf
    pauses = looks = lost = 0
    if isinstance(look.record, Record) and look.record.vouched:
        look = await store.look(key)  # together with its voucher
    while True:
        there = look.record
        looks += 1
        lost = lost + 1 if there is None else 0
        if looks > PATIENCE:
            if lost > PATIENCE:
                raise no_answer(store)
            return _right(memo, key)  # so much is going on: others will store
        if there is UNREADABLE or (there is None and lost == PATIENCE // 2):
            # Some clients show what they cannot read as nothing.
            await store.delete(key)
        elif there is None:
            if mine := await _take(memo, store, key, look):
                return mine
        elif there.kind == record.BLOCK:
            return _right(memo, key)
        elif there.tags != look.tags:  # one of its tags was forgotten
            if mine := await _take(memo, store, key, look):
                return mine
        elif there.is_fresh(now := clock.time(), _grace(memo, store, there)):
            try:
                value = decode(there)
            except Exception as unreadable:  # a class decides what unpickling raises
                stats.logger.info("%s: unreadable entry: %r", memo.name, unreadable)
                if mine := await _take(memo, store, key, look):
                    return mine
            else:
                ours = Claim(key, there, value)
                if not _wants_refresh(memo, store, there, now):
                    return ours
                return await _revalidate(memo, store, ours, look, now)
        elif there.kind in record.LEASES:
            if awaited is None:
                deadline = clock.monotonic() + policy.budget(memo.slowest)
            elif there.kind == record.RETRY and there.token != awaited:
                # The one we waited for failed. Waiting for the next one too would
                # line the callers of a failing function up behind one another.
                return _right(memo, key)
            awaited = there.token
            left = deadline - clock.monotonic()
            if computing.get() or left <= 0 or not store.can_wait():
                if policy.store_result:
                    return _right(memo, key)
                return Claim(key, there, True)  # a guard: somebody is at it
            await store.sleep(min(policy.pause(pauses, clock.random()), left))
            pauses += 1
            looks = lost = 0
        elif there.kind == record.FAILED and awaited is not None:
            return _right(memo, key)
        else:  # an expired entry, or a failure that we did not wait for
            kind = record.RETRY if there.kind == record.FAILED else record.LEASE
            if mine := await _take(memo, store, key, look, kind):
                return mine
        look = await store.look(key)


async def _take(
    memo: Memo, store: Store, key: str, look: Look, kind: int = record.LEASE
) -> Claim | None:
    """Put a lease in the place of what was seen; None: it is not there any more."""
    if look.tags is None or not await may_store(memo, store, look.since):
        return _right(memo, key)
    old = None if look.record is None else look.record.raw
    lease = pack(kind, memo.clock.token(), tags=look.tags)
    if not await store.take(key, old, lease, memo.lease()):
        return None
    return _right(memo, key, lease, look.tags)


async def may_store(memo: Memo, store: Store, since: float = 0.0) -> bool:
    """Whether what is computed here and now may be stored for everybody."""
    hold = memo.policy.hold
    if hold and memo.clock.time() - since < hold:  # a tag was forgotten just now
        return False
    return await store.there(transactions.may_store, hold, store.database())


def _grace(memo: Memo, store: Store, there: Record) -> float:
    """For how long after its timeout an entry may be served.

    Only where replacing is atomic: nothing else could tell that it was invalidated
    while it was being stamped.
    """
    stale = memo.policy.stale
    return stale if there.kind == record.ENTRY and store.backend().atomic else 0.0


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
    return not pool.is_full()


async def _revalidate(
    memo: Memo, store: Store, ours: Claim, look: Look, now: float
) -> Claim:
    """``ours`` with the right to compute a new value, if nobody else has it."""
    assert ours.found is not None and look.tags is not None
    if not await may_store(memo, store, look.since):
        return ours
    attempts = ours.found.claim.attempts
    seconds = memo.policy.claim_for(memo.slowest, attempts)
    claimed = Claimed(now, seconds, min(attempts + 1, 255))
    lease = await stamp(memo, store, ours.key, ours.found, claimed)
    if lease is None:
        return ours
    right = _right(memo, ours.key, lease, look.tags, keeps=ours.found)
    return right._replace(found=ours.found, value=ours.value)


async def stamp(
    memo: Memo, store: Store, key: str, there: Record, claimed: Claimed | None
) -> bytes | None:
    """Put a token of ours on an entry that readers still get; None: it is gone."""
    left = there.remaining(memo.clock.time()) + memo.policy.stale
    limit = max(left, float(memo.lease()))
    new = signing.seal(key, record.restamp(there, memo.clock.token(), claimed))
    return new if await store.swap(key, there.raw, new, lifetime(limit)) else None


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
        lost = 0
        for _ in range(PATIENCE):
            look = await store.look(key)
            there = look.record
            lost = lost + 1 if there is None else 0
            now = memo.clock.time()
            if there is UNREADABLE:
                await store.delete(key)
                continue
            if there is not None:
                if there.kind == record.BLOCK:
                    return _right(memo, key)
                current = there.tags == look.tags and store.backend().atomic
                if current and there.is_fresh(now, _grace(memo, store, there)):
                    if not await may_store(memo, store, look.since):
                        return _right(memo, key)
                    mine = await _stamp_anyway(memo, store, key, there, now)
                    if mine:
                        return mine
                    continue
            if mine := await _take(memo, store, key, look):
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
    claimed = None
    if memo.policy.revalidates:  # nobody else needs to begin
        seconds = memo.policy.claim_for(memo.slowest, 0)
        claimed = Claimed(now, seconds, there.claim.attempts)
    lease = await stamp(memo, store, key, there, claimed)
    if lease is None:
        return None
    return _right(memo, key, lease, there.tags, keeps=there)


# --- after the call ------------------------------------------------------------------


async def settle(
    memo: Memo, store: Store, claim: Claim, result: Any, args: Any, kwargs: Any
) -> None:
    """Store a result, if the right to do so still stands.

    Raises what the user's ``timeout`` or ``cache_if`` raises, with the key freed.
    """
    kind = record.ENTRY if memo.policy.store_result else record.RAN
    await _settle(memo, store, claim, kind, record.dumps, result, args, kwargs)


async def fail(
    memo: Memo,
    store: Store,
    claim: Claim,
    error: BaseException,
    args: Any,
    kwargs: Any,
) -> None:
    """The function raised: store that, or free the key for others.

    Raises nothing of its own making: the caller is to see the function's error.
    """
    if isinstance(error, GeneratorExit):
        return  # nothing may be awaited now: the lease will run out
    if not isinstance(error, memo.policy.cache_exceptions):
        if claim.keeps is None:
            # The shield lets the key be freed although this task is cancelled.
            await store.shield(release(memo, store, claim))
        return
    kind, encode = record.RAISED, record.dumps_exception
    try:
        await _settle(memo, store, claim, kind, encode, error, args, kwargs)
    except Exception:
        stats.logger.exception("%s: the exception was not stored", memo.name)


async def _settle(
    memo: Memo,
    store: Store,
    claim: Claim,
    kind: int,
    encode: Callable[[Any], bytes],
    result: Any,
    args: Any,
    kwargs: Any,
) -> None:
    cost = memo.clock.monotonic() - claim.began
    # An old record fades, so that one slow day does not make leases long for ever.
    memo.slowest = max(cost, memo.slowest * 0.9)
    if claim.lease is None:
        return
    try:
        await _store(memo, store, claim, kind, encode, result, cost, args, kwargs)
    except BaseException as error:
        # Who is cancelled while storing a refresh leaves it to another thread.
        if claim.keeps is None or isinstance(error, Exception):
            await store.shield(release(memo, store, claim))
        raise


async def _store(
    memo: Memo,
    store: Store,
    claim: Claim,
    kind: int,
    encode: Callable[[Any], bytes],
    result: Any,
    cost: float,
    args: Any,
    kwargs: Any,
) -> None:
    assert claim.lease is not None
    timeout = timeout_of(memo, store, result, args, kwargs)
    grace = memo.policy.stale if kind == record.ENTRY and timeout else 0.0
    left = claim.started + timeout - memo.clock.time() + grace
    wanted = kind != record.ENTRY or memo.policy.wants(result, args, kwargs)
    # The function itself may have written in a transaction that is still open.
    if left <= 0 or not wanted or not await may_store(memo, store):
        return await release(memo, store, claim)
    try:
        payload = b"" if kind == record.RAN else await store.call(encode, result)
    except Exception as error:  # a class decides what pickling raises
        memo.stats.trouble_once("the result cannot be pickled", error)
        return await release(memo, store, claim)
    new = entry(claim, kind, payload, timeout, cost)
    try:
        if not await store.swap(claim.key, claim.lease, new, lifetime(left)):
            stats.logger.debug("%s: not stored, the right to do so is gone", memo.name)
    except MISTAKES:
        raise
    except Exception as error:
        memo.stats.trouble_once("the cache did not take the result", error)
        await release(memo, store, claim)


def timeout_of(memo: Memo, store: Store, result: Any, args: Any, kwargs: Any) -> float:
    timeout = memo.policy.timeout_for(result, args, kwargs)
    if timeout is BACKEND:
        timeout = store.default_timeout()
        timeout = math.inf if timeout is None else timeout
    return memo.policy.jittered(timeout, memo.clock.random())


def entry(
    claim: Claim, kind: int, payload: bytes, timeout: float, cost: float
) -> bytes:
    """The record of a result, with the token that its lease had."""
    assert claim.lease is not None
    raw = pack(
        kind,
        claim.lease[-record.TRAILER_SIZE : -record.FRESHNESS_SIZE],
        payload,
        start=claim.started,
        timeout=record.cap(timeout),
        cost=cost,
        tags=claim.tags,
    )
    return signing.seal(claim.key, raw)


def lifetime(seconds: float) -> int | None:
    """Whole seconds, at least one: backends take fractions for "delete at once".

    Thirty years and more are for ever: dates so far away overflow in some backends.
    """
    return None if seconds >= 1e9 else max(1, math.ceil(seconds))


async def release(memo: Memo, store: Store, claim: Claim) -> None:
    """Nothing to store: say so to those who wait, if the key is still ours."""
    if claim.lease is None or store.breaker.blocks(memo.clock.monotonic()):
        return
    try:
        mark = pack(record.FAILED, memo.clock.token(), tags=claim.tags)
        await store.swap(claim.key, claim.lease, mark, FAILED_FOR)
    except MISTAKES:
        raise
    except Exception as error:
        memo.stats.trouble("the cache failed after the call", error)


async def postpone(memo: Memo, store: Store, claim: Claim, *, tried: bool) -> None:
    """No new value came: readers keep the old one, and nobody tries for a while.

    The pause grows with each failure. ``tried`` is False when nothing was even begun:
    then the next caller may.
    """
    if claim.lease is None or claim.keeps is None:
        return
    if store.breaker.blocks(memo.clock.monotonic()):
        return
    mine, claimed = store.read(claim.key, claim.lease), None
    if mine is None or mine is UNREADABLE:  # the secret has changed meanwhile
        return
    if tried:
        attempts = max(mine.claim.attempts, 1)
        seconds = memo.policy.retry_after(attempts)
        claimed = Claimed(memo.clock.time(), seconds, attempts)
    try:
        await stamp(memo, store, claim.key, mine, claimed)
    except MISTAKES:
        raise
    except Exception as error:
        memo.stats.trouble("the cache failed after the call", error)
