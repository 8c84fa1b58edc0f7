"""The protocol in the cache, written once for sync and async.

Every flow is a coroutine over a Store; over the synchronous one it never suspends, and
:func:`run` finishes it at once. The user's function is called between the flows, by
the wrappers in decorator.py: inside a coroutine it would lose recursion depth, and
``StopIteration`` would change its meaning.

One key holds nothing, a lease (somebody is computing), or an entry. The right to store
is the lease that one wrote; it is replaced by the entry only if it is still there. So
whatever deletes or replaces it, an invalidation for instance, wins.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeVar

from django.apps import apps

from . import record, stats
from .clock import Clock
from .policy import BACKEND, FAILED_FOR, Policy
from .record import Record, pack
from .store import MISTAKES, UNREADABLE, CacheDidNotAnswer, Store, is_decoding_error

T = TypeVar("T")

#: Whether this context is computing something. Who computes never waits for others:
#: so no circle of waiters can form, and recursion cannot block itself.
computing: ContextVar[bool] = ContextVar("cache_memoize_computing", default=False)

#: So many times in a row a flow looks again without waiting, before it concludes that
#: the cache does not do what it says.
PATIENCE = 8


def run(flow: Coroutine[Any, Any, T]) -> T:
    """Finish a flow over a synchronous store."""
    try:
        flow.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    flow.close()
    raise RuntimeError("a flow over a synchronous store was suspended")


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
    """What came of asking: an entry, or the right to store, or neither."""

    key: str
    #: The entry to serve; its value is decoded.
    found: Record | None = None
    value: Any = None
    #: What the key must still hold when the result is stored; None: do not store.
    lease: bytes | None = None
    #: Whether the lease is an old entry that readers still get.
    keeps_old: bool = False
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
    memo: Memo, store: Store, key: str, first: Any = None, error: Any = None
) -> Claim:
    """An entry to serve, or the right to compute.

    ``first`` is what the wrapper has just read there, ``error`` what it got instead.
    """
    try:
        if not usable(memo, store):
            return _right(memo, key, None)
        if error is None:
            there = store.read(first)
        elif is_decoding_error(error):
            there = UNREADABLE
        else:
            raise error
        return await _claim(memo, store, key, there)
    except MISTAKES:
        raise
    except Exception as trouble:
        if trouble is error or isinstance(trouble, CacheDidNotAnswer):
            store.trouble(trouble)
        memo.stats.trouble("the cache failed before the call", trouble)
        return _right(memo, key, None)


def usable(memo: Memo, store: Store) -> bool:
    return (
        apps.ready
        and memo.policy.stores
        and not store.breaker.blocks(memo.clock.monotonic())
        and store.backend().stores
    )


async def _claim(memo: Memo, store: Store, key: str, there: Record | None) -> Claim:
    clock, policy, seconds = memo.clock, memo.policy, memo.lease()
    awaited: bytes | None = None  # the lease of whom we wait for
    deadline = math.inf
    pauses = looks = lost = 0
    if there is not None and there is not UNREADABLE and there.vouched:
        there = await store.get(key)  # together with its voucher
    while True:
        looks += 1
        lost = lost + 1 if there is None else 0
        if looks > PATIENCE:
            if lost > PATIENCE:
                raise _no_answer(store)
            return _right(memo, key, None)  # so much is going on: others will store
        if there is None:
            lease = pack(record.LEASE, clock.token())
            if await store.take(key, None, lease, seconds):
                return _right(memo, key, lease)
            if lost == PATIENCE // 2:
                # Some clients show what they cannot read as nothing.
                await store.delete(key)
        elif there is UNREADABLE:
            await store.delete(key)
        elif there.is_fresh(clock.time()):
            try:
                return Claim(key, there, decode(there))
            except Exception as unreadable:  # a class decides what unpickling raises
                stats.logger.info("%s: unreadable entry: %r", memo.name, unreadable)
                lease = pack(record.LEASE, clock.token())
                if await store.take(key, there.raw, lease, seconds):
                    return _right(memo, key, lease)
        elif there.kind in record.LEASES:
            if awaited is None:
                deadline = clock.monotonic() + policy.budget(memo.slowest)
            elif there.kind == record.RETRY and there.token != awaited:
                # The one we waited for failed. Waiting for the next one too would
                # line the callers of a failing function up behind one another.
                return _right(memo, key, None)
            awaited = there.token
            left = deadline - clock.monotonic()
            if computing.get() or left <= 0 or not store.can_wait():
                if policy.store_result:
                    return _right(memo, key, None)
                return Claim(key, there, True)  # a guard: somebody is at it
            await store.sleep(min(policy.pause(pauses, clock.random()), left))
            pauses += 1
            looks = lost = 0
        elif there.kind == record.FAILED and awaited is not None:
            return _right(memo, key, None)
        else:  # an expired entry, or a failure that we did not wait for
            kind = record.RETRY if there.kind == record.FAILED else record.LEASE
            lease = pack(kind, clock.token())
            if await store.take(key, there.raw, lease, seconds):
                return _right(memo, key, lease)
        there = await store.get(key)


def _no_answer(store: Store) -> CacheDidNotAnswer:
    return CacheDidNotAnswer(
        f"the cache {store.alias!r} says that a key is taken, and that nothing is there"
    )


def _right(
    memo: Memo, key: str, lease: bytes | None, *, keeps_old: bool = False
) -> Claim:
    now, began = memo.clock.time(), memo.clock.monotonic()
    return Claim(key, lease=lease, keeps_old=keeps_old, started=now, began=began)


async def overtake(memo: Memo, store: Store, key: str) -> Claim:
    """The right to store for a refresh, whoever else has it: the newest wins.

    Readers keep an entry that is fresh, stamped with the token of this refresh.
    """
    try:
        if not usable(memo, store):
            return _right(memo, key, None)
        lost = 0
        for _ in range(PATIENCE):
            there = await store.get(key)
            lost = lost + 1 if there is None else 0
            token, now = memo.clock.token(), memo.clock.time()
            lease, limit = pack(record.LEASE, token), float(memo.lease())
            if there is UNREADABLE:
                await store.delete(key)
            elif there is None:
                if await store.take(key, None, lease, lifetime(limit)):
                    return _right(memo, key, lease)
            else:
                keeps_old = store.backend().atomic and there.is_fresh(now)
                if keeps_old:
                    lease = record.with_token(there.raw, token)
                    limit = max(limit, there.remaining(now))
                if await store.take(key, there.raw, lease, lifetime(limit)):
                    return _right(memo, key, lease, keeps_old=keeps_old)
        if lost == PATIENCE:
            raise _no_answer(store)
        return _right(memo, key, None)  # overtaken again and again, by newer ones
    except MISTAKES:
        raise
    except Exception as trouble:
        if isinstance(trouble, CacheDidNotAnswer):
            store.trouble(trouble)
        memo.stats.trouble("the cache failed before the refresh", trouble)
        return _right(memo, key, None)


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
        if not claim.keeps_old:
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
    except BaseException:
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
    left = claim.started + timeout - memo.clock.time()
    wanted = kind != record.ENTRY or memo.policy.wants(result, args, kwargs)
    if left <= 0 or not wanted:
        return await release(memo, store, claim)
    try:
        payload = b"" if kind == record.RAN else await store.call(encode, result)
    except Exception as error:  # a class decides what pickling raises
        memo.stats.trouble_once("the result cannot be pickled", error)
        return await release(memo, store, claim)
    new = entry(kind, claim.lease, payload, claim.started, timeout, cost)
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
        return math.inf if timeout is None else timeout
    return timeout  # type: ignore[no-any-return]


def entry(
    kind: int, lease: bytes, payload: bytes, start: float, timeout: float, cost: float
) -> bytes:
    token = lease[-record.TRAILER_SIZE : -record.FRESHNESS_SIZE]
    timeout = record.cap(timeout)
    return pack(kind, token, payload, start=start, timeout=timeout, cost=cost)


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
        mark = pack(record.FAILED, memo.clock.token())
        await store.swap(claim.key, claim.lease, mark, FAILED_FOR)
    except MISTAKES:
        raise
    except Exception as error:
        memo.stats.trouble("the cache failed after the call", error)
