"""The protocol before a computation: find an entry, or claim the right to store one.

A key holds nothing, a lease (a computation is under way), or an entry. The right to
store is the lease that the caller wrote: the entry replaces it only if the key still
holds it. So any command that deletes or replaces the lease wins, as an invalidation.
(Memcached's leases: Nishtala et al., Scaling Memcache at Facebook, NSDI 2013.) The
obvious scheme, to read, compute, and write, stores an old value for a whole timeout
when an invalidation falls between the read of the rows and the write.

Sync and async share this code: coroutines over a :class:`Store`. Over the synchronous
one they never suspend, and :func:`run` finishes them at once. The wrappers in
decorator.py call the user's function between them: inside a coroutine it would lose
recursion depth, and ``StopIteration`` would change its meaning.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ..cache import record
from ..cache.connections import UNREAD
from ..cache.errors import MISTAKES, CacheDidNotAnswer, is_decoding_error
from ..cache.record import Record, pack
from ..cache.store import Store
from ..cache.tokens import PATIENCE, Look, Terms
from ..process import log_sometimes, logger
from . import threads, transactions
from .call import Call, Claim, decode, parsed
from .capture import Origins, computation, inherit, note_calls
from .decision import Do, decide
from .invalidation import invalidate_call
from .settle import IN_TRANSACTION, confirm
from .waiting import Place, holds_up, lead

__all__ = ["can_wait", "claim", "overtake", "serve"]

#: Seconds after which a caller in line looks itself.
LONGEST_WAIT = 10.0
#: Why a caller may compute, and not store.
_BLOCKED = "a transaction, or hold=, blocks its key, or a computation has failed"
_INVALIDATED_HERE = "this transaction has invalidated it"


async def claim(call: Call, first: Any = UNREAD, error: Any = None) -> Claim:
    """Return an entry to serve, or the right to compute; both to refresh the entry.

    :param first: the value that the wrapper has just read under the key.
    :param error: the error that reading the key raised.
    """
    caller = _Caller(call)
    await note_calls(call.function, call.plan, call.store, [call.key])
    try:
        why = call.refusal()
        if why or await call.is_invalidated_here():
            return _right(call, why=why or _INVALIDATED_HERE)
        if error is None:
            look = await call.look(first)
        elif is_decoding_error(error):
            look = await call.look()
        else:
            raise error
        while (mine := caller.outcome(look) or await _step(caller, look)) is None:
            look = await caller.look()
        return mine if mine.found is not None else await confirm(call, mine)
    except MISTAKES:
        raise
    except Exception as trouble:
        if trouble is error or isinstance(trouble, CacheDidNotAnswer):
            call.store.trouble(trouble)
        call.stats.trouble("the cache failed before the call", trouble)
        return _right(call, caller.lease)._replace(unsure=caller.lease is not None)
    finally:
        if caller.place is not None:
            caller.place.leave()


async def overtake(call: Call) -> Claim:
    """Return the right to store for a refresh, even if another caller has it: the
    newest refresh wins.

    Readers keep an entry that may be served, with the number of this refresh.
    """
    caller = _Caller(call)
    await note_calls(call.function, call.plan, call.store, [call.key], refresh=True)
    try:
        why = call.refusal()
        if why or await call.is_invalidated_here():
            return _right(call, why=why or _INVALIDATED_HERE)
        if not await call.may_store():
            # The new value is valid for this transaction only. But the entry is out of
            # date: so it is invalidated, for the others at the commit.
            await invalidate_call(call)
            return _right(call, why=IN_TRANSACTION)
        look = await call.look()
        while (mine := caller.outcome(look) or await _overstep(caller, look)) is None:
            look = await call.look()
        if caller.looks > PATIENCE:  # others refresh all the time, and may all fail
            await invalidate_call(call)
        return (await confirm(call, mine))._replace(renews=True)
    except MISTAKES:
        raise
    except Exception as trouble:
        if isinstance(trouble, CacheDidNotAnswer):
            call.store.trouble(trouble)
        call.stats.trouble("the cache failed before the refresh", trouble)
        return _right(call, caller.lease)._replace(unsure=caller.lease is not None)


def serve(call: Call, claim: Claim) -> Any:
    """Return the value of a found entry, or raise the stored exception.

    If this caller has just refreshed the entry, return the new value.
    """
    found = claim.found
    if found is None:
        call.stats.missed(call.key)
        return claim.value
    if found.kind == record.FAILED:
        call.stats.missed(call.key)
        raise claim.value
    stale = found.kind in record.ENTRIES and not found.is_fresh(call.clock.time())
    inherit(call.plan, found, stale=stale)
    if found.depends:
        call.function.expect(call.key, found.depends)
    call.stats.served(
        call.plan.hit, call.key, found.cost, call.args, call.kwargs, stale=stale
    )
    if found.kind == record.RAISED:
        raise claim.value
    return claim.value


async def can_wait(store: Store) -> bool:
    """Return whether no other caller can be waiting for this one in turn."""
    if computation() is not None or not store.can_wait():
        return False
    return not await transactions.ask_connections(store, transactions.may_hold_locks)


# --- looks ----------------------------------------------------------------------------


class _Caller:
    """The state of a caller between looks: its looks, its lease, and its waiting."""

    def __init__(self, call: Call) -> None:
        self.call = call
        #: The token of the lease that it has tried to write.
        self.token = b""
        #: The lease whose writing has begun, but was not answered yet.
        self.lease: bytes | None = None
        #: Looks in a row without waiting, and those of them that found nothing.
        self.looks = self.lost = 0
        #: The token of the lease that it waits for.
        self.awaited: bytes | None = None
        #: That of a computation which failed before this call.
        self.earlier: bytes | None = None
        self.deadline = math.inf
        self.pauses = 0
        #: Its place in the line of those that wait.
        self.place: Place | None = None
        #: The look of another caller, in place of the next one.
        self.shared: Look | None = None
        #: Whether the first of the line has left it to an outage.
        self.gave_up = False

    def outcome(self, look: Look) -> Claim | None:
        """Return the claim if there is nothing more to try, else None.

        Raises CacheDidNotAnswer if the cache keeps no value.
        """
        found = look.record
        if isinstance(found, Record) and found.token == self.token:
            # The client has sent our lease twice: the answer to the first was lost.
            return _right(self.call, found.raw, found.tags)
        if isinstance(found, Record) and self.awaited is None:
            self.earlier = found.token
        self.token = self.call.clock.token()
        self.looks += 1
        self.lost = self.lost + 1 if found is None else 0
        if self.lost > PATIENCE:
            raise self.call.store.no_answer(self.call.key)
        # The key changes all the time: one of the other callers will store.
        return _right(self.call) if self.looks > PATIENCE else None

    async def look(self) -> Look:
        """Return the next look: this caller's, or that of the first of its line."""
        shared, self.shared = self.shared, None
        if self.place is not None:
            self.place.begin_look()
        look = await (self.call.own_view(shared) if shared else self.call.look())
        found = look.record
        if self.pauses and self.awaited is None and isinstance(found, Record):
            # It stood in line when that computation began, so it has waited for it.
            has_waited = found.kind == record.FAILED and found.token != self.earlier
            self.awaited = found.token if has_waited else None
        return look

    def is_first(self) -> bool:
        """Return whether no other caller of its line is about to take the key."""
        return self._join() is None

    def share(self, look: Look) -> None:
        """Hand a look to the callers in line, if this one is the first."""
        if self.place is not None:
            self.place.share(look)

    async def pause(self, lease: Record | None) -> bool:
        """Wait before the next look; return False if the caller may not wait, or has
        waited long enough.

        :param lease: that of the computation under way; None: the first of the line is
            about to take one.
        """
        call, clock, policy = self.call, self.call.clock, self.call.policy
        if self.deadline == math.inf:
            call.stats.waited(call.key)
            budget = policy.wait_budget(call.function.slowest)
            self.deadline = clock.monotonic() + budget
        if lease is not None:
            self.awaited = lease.token
        left = self.deadline - clock.monotonic()
        if left <= 0 or not await can_wait(call.store):
            return False
        future = self._join()
        if future is not None:
            self.shared = await call.store.wait(future, min(left, LONGEST_WAIT))
            # The first one may have met an outage.
            self.gave_up = self.shared is None and call.store.breaker.tripped
        else:
            pause = policy.wait_pause(self.pauses, clock.random())
            await call.store.sleep(min(pause, left))
        self.pauses += 1
        self.looks = self.lost = 0
        return not self.gave_up

    def _join(self) -> Any:
        self.place = self.place or Place(self.call)
        return self.place.join()


# --- doing ---------------------------------------------------------------------------

#: What each of the callers in line does in the same way.
_ENDS = frozenset({Do.SERVE, Do.RAISE, Do.COMPUTE})


async def _step(caller: _Caller, look: Look) -> Claim | None:
    """Act on a look; return None to look again."""
    call, found, now = caller.call, look.record, caller.call.clock.time()
    do = decide(look, now, _grace(call, found), caller.awaited, caller.lost)
    if do in _ENDS or (do is Do.WAIT and found and found.token != caller.awaited):
        caller.share(look)
    if do is Do.CLEAR:
        if await call.holds_rows():
            return _right(call)
        await call.store.delete(call.key)
    elif do is Do.COMPUTE:
        return _right(call, why=_BLOCKED)
    elif do is Do.SERVE:
        return await _serve(caller, look, now)
    elif do is Do.RAISE:
        assert found is not None
        with suppress(Exception):  # a class decides what unpickling raises
            return Claim(found._replace(kind=record.FAILED), decode(found))
        return _right(call)
    elif do is Do.WAIT:
        assert found is not None
        if call.policy.store_result and holds_up(call, found.token):
            # Those that come after this caller in that thread shall find an entry.
            return await _take(caller, look)
        if not await caller.pause(found):
            # For a guard, a lease is a hit: its function is running already.
            return _right(call) if call.policy.store_result else Claim(found, True)
    elif caller.is_first() or not await caller.pause(None):
        if caller.gave_up:
            return _right(call)
        kind = record.RETRY if do is Do.RETRY else record.LEASE
        return await _take(caller, look, kind)
    return None


async def _overstep(caller: _Caller, look: Look) -> Claim | None:
    """Act on a look for a refresh, which waits for no other computation."""
    call, found, now = caller.call, look.record, caller.call.clock.time()
    do = decide(look, now, _grace(call, found), None, caller.lost)
    if do is Do.CLEAR:
        await call.store.delete(call.key)
        return None
    if do is Do.COMPUTE:
        return _right(call, why=_BLOCKED)
    if do is Do.SERVE and call.store.backend().atomic:
        assert found is not None
        if not await call.may_store(look.is_young):
            return _right(call, why=IN_TRANSACTION)
        return await _stamp_anyway(call, found, look.known)
    return await _take(caller, look)


async def _serve(caller: _Caller, look: Look, now: float) -> Claim | None:
    """Return the entry, perhaps with the right to refresh it.

    If the entry cannot be read, return the right to compute, or None if it is gone.
    """
    call, found = caller.call, look.record
    assert found is not None
    try:
        ours = Claim(found, decode(found))
    except Exception as unreadable:  # a class decides what unpickling raises
        kind = type(unreadable).__name__  # its text may show the value
        name = call.function.name
        log_sometimes(logger.info, "%s: unreadable entry: %s", name, kind)
        return await _take(caller, look)
    if not _wants_refresh(call, found, now):
        return ours
    return await _revalidate(call, ours, look)


async def _take(caller: _Caller, look: Look, kind: int = record.LEASE) -> Claim | None:
    """Replace the seen value by a lease; return None if it is gone."""
    call, found, uses = caller.call, look.record, None
    if look.tags is None:
        return _right(call)
    if not await call.may_store(look.is_young):
        # A result made without a query is valid for others too. They wait for it, so
        # the right to store is taken only while the function was never seen to query.
        if call.policy.store_result and not call.function.queries:
            uses = await call.count_uses(look.is_young)
        if uses is None:
            return _right(call, why=IN_TRANSACTION)
    old = None if found is None else found.raw
    # Callers that wait may see it in place of the mark, whose exception is theirs.
    error = old[: found.end] if found and old and kind == record.RETRY else b""
    lease = pack(kind, caller.token, error, tags=look.tags)
    leader = lead(call, caller.token)
    caller.lease = lease
    taken = await call.store.take(call.key, old, lease, call.lease_seconds())
    caller.lease = None
    if not taken:
        return None
    caller.share(Look(parsed(lease), look.tags))
    right = _right(call, lease, look.tags, known=look.known)
    return right._replace(uses=uses, leader=leader)


def _grace(call: Call, found: Record | None) -> float:
    """Return the seconds after its timeout for which an entry may be served.

    0 where the backend does not replace atomically: an invalidation of the entry while
    it is being stamped would be lost.
    """
    if not isinstance(found, Record) or not call.store.backend().atomic:
        return 0.0
    return call.plan.grace(found.kind)


def _wants_refresh(call: Call, found: Record, now: float) -> bool:
    """Return whether the caller that is served this entry should have it refreshed."""
    policy = call.policy
    if found.kind != record.ENTRY or found.is_claimed(now):
        return False
    if found.is_fresh(now):
        if not policy.early_refresh or not call.store.backend().atomic:
            return False
        age, random = now - found.start, call.clock.random()
        if not policy.is_early(age, found.timeout, found.cost, random):
            return False
    return not threads.is_full()


async def _revalidate(call: Call, ours: Claim, look: Look) -> Claim:
    """Return ``ours``, with the right to refresh it unless another caller has that."""
    assert ours.found is not None and look.tags is not None
    if not await call.may_store(look.is_young):
        return ours
    attempts = ours.found.stamp.attempts
    seconds = call.policy.refresh_seconds(call.function.slowest, attempts)
    lease = await call.begin_refresh(ours.found, seconds, min(attempts + 1, 255))
    if lease is None:
        return ours
    right = _right(call, lease, look.tags, keeps=ours.found, known=look.known)
    return right._replace(found=ours.found, value=ours.value)


async def _stamp_anyway(
    call: Call, found: Record, known: Mapping[str, bytes]
) -> Claim | None:
    """Take the right to refresh an entry, even if another caller is refreshing it."""
    seconds = 0.0
    if call.policy.revalidates:  # keeps other callers from a refresh
        seconds = call.policy.refresh_seconds(call.function.slowest, 0)
    lease = await call.begin_refresh(found, seconds, found.stamp.attempts)
    if lease is None:
        return None
    return _right(call, lease, found.tags, keeps=found, known=known)


def _right(
    call: Call,
    lease: bytes | None = None,
    tags: bytes = b"",
    *,
    keeps: Record | None = None,
    known: Mapping[str, bytes] = {},
    why: str = "",
) -> Claim:
    """Return the right to compute from now on; with a lease, also to store."""
    now, began = call.clock.time(), call.clock.monotonic()
    terms = Terms(call.kept_for(), call.policy.hold)
    known = {} if terms.hold else known  # they may be young
    calls, reads = call.policy.inherit, call.plan.reads
    origins = Origins(call.plan.alias, known, terms, calls=calls, reads=reads)
    origins.previous = keeps
    return Claim(
        lease=lease,
        why=why,
        tags=tags,
        keeps=keeps,
        started=now,
        began=began,
        origins=origins,
    )
