"""After the call: store what it gave, or free the key for others."""

from __future__ import annotations

import math
from typing import Any

from ..cache import record, signing
from ..cache.connections import MISTAKES, UNREADABLE
from ..cache.record import Record, Stamp, pack
from ..cache.store import PATIENCE, Store
from ..stats import counters
from .call import (
    Claim,
    Memo,
    computing,
    encode,
    lifetime,
    may_store,
    stamp,
)
from .policy import BACKEND

__all__ = ["fail", "postpone", "settle"]


async def settle(
    memo: Memo, store: Store, claim: Claim, result: Any, args: Any, kwargs: Any
) -> None:
    """Store a result, if the right to do so still stands.

    Raises what the user's ``timeout`` or ``cache_if`` raises, with the key freed.
    """
    await _settle(memo, store, claim, memo.kind, result, args, kwargs)


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
        try:
            _tell(memo, claim, memo.clock.monotonic() - claim.began)
        finally:
            if claim.keeps is None:
                # The shield lets the key be freed although this task is cancelled.
                await store.shield(release(memo, store, claim))
        return
    try:
        await _settle(memo, store, claim, record.RAISED, error, args, kwargs)
    except Exception:
        counters.logger.exception("%s: the exception was not stored", memo.name)


async def _settle(
    memo: Memo,
    store: Store,
    claim: Claim,
    kind: int,
    result: Any,
    args: Any,
    kwargs: Any,
) -> None:
    cost = memo.clock.monotonic() - claim.began
    # An old record fades, so that one slow day does not make leases long for ever.
    memo.slowest = max(cost, memo.slowest * 0.9)
    if claim.lease is None:
        return _tell(memo, claim, cost)
    try:
        _tell(memo, claim, cost)
        await _store(memo, store, claim, kind, result, cost, args, kwargs)
    except BaseException as error:
        # Who is cancelled while storing a refresh leaves it to another thread.
        if claim.keeps is None or isinstance(error, Exception):
            await store.shield(release(memo, store, claim))
        raise


def _tell(memo: Memo, claim: Claim, cost: float) -> None:
    """The function has run. A receiver that calls it again must not wait for us."""
    nested = computing.set(True)
    try:
        memo.stats.computed(claim.key, cost)
    finally:
        computing.reset(nested)


async def _store(
    memo: Memo,
    store: Store,
    claim: Claim,
    kind: int,
    result: Any,
    cost: float,
    args: Any,
    kwargs: Any,
) -> None:
    assert claim.lease is not None
    timeout = timeout_of(memo, store, result, args, kwargs)
    grace = memo.grace(kind) if timeout else 0.0
    # Not more than the timeout, though the clock may have been set back meanwhile.
    age = max(0.0, memo.clock.time() - claim.started)
    left = timeout - age + grace
    wanted = kind != record.ENTRY or memo.policy.wants(result, args, kwargs)
    # The function itself may have written in a transaction that is still open.
    if left <= 0 or not wanted or not await may_store(memo, store):
        return await release(memo, store, claim)
    try:
        payload = await store.call(encode, kind, result)
    except Exception as error:  # a class decides what pickling raises
        memo.stats.trouble_once("the result cannot be pickled", error)
        return await release(memo, store, claim)
    if store.breaker.blocks(memo.clock.monotonic()):
        return  # it stopped working meanwhile
    new = entry(claim, kind, payload, timeout, cost)
    try:
        if not await put(store, claim, new, left):
            counters.logger.debug(
                "%s: not stored, the right to do so is gone", memo.name
            )
    except MISTAKES:
        raise
    except Exception as error:
        memo.stats.trouble_once("the cache did not take the result", error)
        await release(memo, store, claim)


async def put(store: Store, claim: Claim, new: bytes, left: float) -> bool:
    """Store ``new`` for ``left`` seconds, if the right to do so still stands.

    A refresh that began later has stamped the entry that readers keep, and may yet
    fail. Until it is through they get ``new``, under its stamp, rather than what was
    there. Whatever else came in between wins: an invalidation, or another value.
    """
    assert claim.lease is not None
    held, ours = claim.lease, new
    for _ in range(PATIENCE):
        if await store.swap(claim.key, held, ours, lifetime(left)):
            return True
        there = await store.get(claim.key)
        if claim.keeps is None or not isinstance(there, Record):
            return False
        if there.token == record.token_of(claim.lease):
            ours = new  # an older refresh has put its value under our stamp
        elif there.is_same(claim.keeps):
            ours = _under(store, claim.key, new, there)
        else:
            return False
        held = there.raw
    return False


def _under(store: Store, key: str, new: bytes, there: Record) -> bytes:
    """The entry ``new``, under the stamp that ``there`` has."""
    mine = store.read(key, new)
    assert isinstance(mine, Record)
    stamped = there.stamp if there.stamp.seconds else None
    return signing.seal(key, record.restamp(mine, there.token, stamped))


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
        record.token_of(claim.lease),
        payload,
        start=claim.started,
        timeout=record.cap(timeout),
        cost=cost,
        tags=claim.tags,
    )
    return signing.seal(claim.key, raw)


async def release(memo: Memo, store: Store, claim: Claim) -> None:
    """Nothing to store: say so to those who wait, if the key is still ours."""
    if claim.lease is None or store.breaker.blocks(memo.clock.monotonic()):
        return
    try:
        mark = pack(record.FAILED, memo.clock.token(), tags=claim.tags)
        await store.swap(claim.key, claim.lease, mark, record.FAILED_FOR)
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
    mine, stamped = store.read(claim.key, claim.lease), None
    if mine is None or mine is UNREADABLE:  # the secret has changed meanwhile
        return
    if tried:
        attempts = max(mine.stamp.attempts, 1)
        seconds = memo.policy.retry_after(attempts)
        stamped = Stamp(memo.clock.time(), seconds, attempts)
    try:
        await stamp(memo, store, claim.key, mine, stamped)
    except MISTAKES:
        raise
    except Exception as error:
        memo.stats.trouble("the cache failed after the call", error)
