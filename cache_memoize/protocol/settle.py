"""The protocol after a computation: store its result, or free the key for others."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from django.db.models.base import model_unpickle

from ..cache import record
from ..cache.compression import compress
from ..cache.errors import MISTAKES, CacheDidNotAnswer
from ..cache.record import Record, Stamp, pack
from ..cache.store import run
from ..cache.tokens import PATIENCE
from ..keys.tags import TaggedKey
from ..process import log_sometimes
from ..stats.counters import logger
from ..stats.history import LATEST, Trace, digest_of
from . import threads
from .call import Call, Claim, encode, parsed
from .capture import Computation, note_refreshed
from .invalidation import invalidate_call, renew_tags

__all__ = [
    "confirm",
    "drop_copies",
    "fail",
    "is_too_large",
    "postpone_refresh",
    "release",
    "renew_dependents",
    "settle",
    "tell_failure",
]


#: Seconds for which a result that is made of a stale one is fresh, or not refreshed
#: again.
STALE_ORIGIN_FRESH_FOR = 1.0
#: Bytes of an exception that waiting callers get, at most.
_LARGEST_ERROR = 2**16


async def settle(call: Call, claim: Claim, result: Any) -> None:
    """Store a result, if the right to do so is still valid.

    Raises what the user's ``timeout`` or ``cache_if`` raises, with the key freed.
    """
    await _settle(call, claim, call.plan.result_kind, result)
    _tell_miss_callable(call)


async def fail(call: Call, claim: Claim, error: BaseException) -> None:
    """Store the error that the function raised, or free the key for others.

    Errors of storing are logged, not raised: the caller gets the function's error.
    """
    if isinstance(error, GeneratorExit):
        return release_in_thread(call, claim)  # awaiting is not allowed here
    if not isinstance(error, call.policy.cache_exceptions):
        if claim.keeps is None:
            note(call, f"{type(error).__name__} was raised")
        try:
            _count(call, call.clock.monotonic() - claim.began)
        finally:
            if claim.keeps is None:
                # The shield frees the key even if this task is cancelled.
                await call.store.shield(release(call, claim, error))
            elif isinstance(error, Exception):
                tell_failure(call, error)
        return
    try:
        await _settle(call, claim, record.RAISED, error)
    except Exception:
        logger.exception("%s: the exception was not stored", call.function.name)
    _tell_miss_callable(call)


def _tell_miss_callable(call: Call) -> None:
    if call.plan.miss is not None:
        call.stats.hook(call.plan.miss, call.args, call.kwargs)


async def _settle(call: Call, claim: Claim, kind: int, result: Any) -> None:
    await _end(call, claim, kind, result)
    if claim.renews or claim.keeps is not None:
        await drop_copies(call)


async def drop_copies(call: Call) -> None:
    """Have no process serve a copy of the entry from before a refresh.

    Also if another caller has replaced it, or blocks it: that call may not have
    returned.
    """
    try:
        await call.store.tell([call.key, *call.own_tags()])
    except Exception as error:
        call.stats.trouble("the cache failed after the call", error)


async def _end(call: Call, claim: Claim, kind: int, result: Any) -> None:
    cost = call.clock.monotonic() - claim.began
    # The maximum decays, so that one slow run does not lengthen leases for good.
    call.function.slowest = max(cost, call.function.slowest * 0.9)
    if claim.lease is None:
        note(call, claim.why or "another caller computes it")
        return _count(call, cost)
    try:
        _count(call, cost)
        if claim.unsure:
            note(call, "the cache failed before the call")
            return await release(call, claim)
        await _store(call, claim, kind, result, cost)
    except BaseException as error:
        # If a refresh is cancelled while it stores, another thread finishes it.
        told = None if isinstance(error, Exception) else error
        if claim.keeps is None or told is None:
            await call.store.shield(_give_up(call, claim, tried=True, error=told))
        raise


def _count(call: Call, cost: float) -> None:
    """Count the computation. A signal receiver that makes the same call must not wait:
    hence the computation."""
    computation = Computation()
    try:
        call.stats.computed(call.key, cost)
    finally:
        computation.end()


async def _store(call: Call, claim: Claim, kind: int, result: Any, cost: float) -> None:
    timeout = min(timeout_of(call, result), claim.origins.timeout)
    grace = call.plan.grace(kind) if timeout else 0.0
    # At most the timeout, even if the clock was set back meanwhile.
    age = max(0.0, call.clock.time() - claim.started)
    if claim.origins.stale:
        # Stale from the start; without stale=, fresh for a moment, for the others.
        timeout = min(timeout, age + (0.0 if grace else STALE_ORIGIN_FRESH_FOR))
    left = timeout - age + grace
    wanted = kind != record.ENTRY or call.policy.should_store(
        result, call.args, call.kwargs
    )
    # The function itself may have written in a transaction that is still open.
    if not await _is_valid_for_others(call, claim):
        note(call, IN_TRANSACTION)
        return await release(call, claim)
    if left <= 0 or not wanted:
        note(call, "its timeout is over" if wanted else "cache_if= says so")
        return await _give_up(call, claim, tried=True)
    if _is_changed(call, claim):
        call.stats.warn_once("nothing is stored", _CHANGED)
        note(call, str(_CHANGED))
        return await _give_up(call, claim, tried=True)
    # The queries of a QuerySet, and what else pickling does, are part of it.
    computation = Computation(claim.origins)
    try:
        payload = await call.store.call(encode, kind, result)
    except Exception as error:  # a class decides what pickling raises
        call.stats.trouble_once("the result cannot be pickled", error)
        note(call, "the result cannot be pickled")
        return await _give_up(call, claim, tried=True)
    finally:
        computation.end()
    if claim.uses is not None and _ROW in payload:
        note(call, IN_TRANSACTION)
        return await release(call, claim)  # it was read before, perhaps uncommitted
    # Even if the breaker has opened meanwhile: other callers may be waiting.
    try:
        depends = await claim.origins.pack(call)
        if depends is None:
            note(call, claim.origins.void)
            return await _give_up(call, claim, tried=False)
        new = pack_entry(call, claim, kind, payload, timeout, cost, depends)
        if is_too_large(call, new):
            note(call, "it has more than max_bytes=")
            return await _give_up(call, claim, tried=True)
        if await put(call, claim, new, left):
            call.function.expect(call.key, depends)
        else:
            note(call, "it was invalidated, or a newer one was stored, meanwhile")
            name = call.function.name
            logger.debug("%s: not stored, the right to do so is gone", name)
        if claim.renews:
            await renew_dependents(call, new)
    except MISTAKES:
        raise
    except Exception as error:
        call.stats.trouble_once("the cache did not take the result", error)
        note(call, "the cache did not take it")
        await _give_up(call, claim, tried=True)


#: Why a result is not stored, as :func:`note` takes it.
IN_TRANSACTION = "a transaction of its caller has written"


def note(call: Call, why: str, until: float = 0.0, depends: bytes = b"") -> None:
    """Remember, for explanations, an entry that was stored, or why none was.

    :param until: the time after which it is not served; 0.0: it was not stored.
    """
    now = call.clock.time()
    tags: tuple[str, ...] = ()
    parts: dict[str, str] = {}
    if until:
        tags = call.key.tags if isinstance(call.key, TaggedKey) else ()
        if depends:
            names = record.dependencies(depends)[1]
            tags = (*tags, *(name.rpartition("\t")[2] for name in names))
        if call.stats.history.wants_parts(now):
            with suppress(Exception):  # an argument has changed, and is no key any more
                parts = call.plan.parts_of(call.args, call.kwargs)
    digests = {name: digest_of(text) for name, text in parts.items()}
    trace = Trace(now, until, why, tags, digests)
    call.stats.history.note(call.key, trace)


#: Part of the pickle of each model instance.
_ROW = model_unpickle.__name__.encode()


async def _is_valid_for_others(call: Call, claim: Claim) -> bool:
    """Return whether the result depends on nothing that other callers do not see."""
    if claim.uses is None:
        return await call.may_store()
    if await call.count_uses() == claim.uses:
        return True
    call.function.queries = True
    return False


_CHANGED = ValueError(
    "an argument, a captured variable or the value of extra= was changed during the "
    "call; pass what the function reads, or describe it with args_rewrite="
)


def _is_changed(call: Call, claim: Claim) -> bool:
    """Return whether the arguments have changed since the right to store was taken."""
    if claim.state is None:
        return False
    try:
        return call.state() != claim.state
    except Exception:  # they cannot be part of a key any more
        return True


async def put(call: Call, claim: Claim, new: bytes, left: float) -> bool:
    """Store ``new`` for ``left`` seconds, if the right to do so is still valid.

    A refresh replaces the values of refreshes that began before it. If a later one has
    begun, ``new`` gets its stamp: readers get ``new`` until the later refresh ends,
    which may fail. Any other change in between wins: an invalidation, or a newer value.
    """
    held, ours = parsed(claim.lease), new
    if claim.tags and (claim.found is not None or left > call.kept_for()):
        await call.look(kept=left)  # else its tags might expire before it
    for _ in range(PATIENCE):
        if await call.store.swap(call.key, held.raw, ours, left):
            now = call.clock.time()
            call.stats.stored(now, len(ours))
            note(call, "", min(now + left, LATEST), parsed(new).depends)
            return True
        found = await call.store.get(call.key)
        if isinstance(found, Record) and found.raw == held.raw:
            raise CacheDidNotAnswer(
                f"the cache {call.store.alias!r} does not replace values; its "
                "server has to allow SET, EVAL or WATCH on Redis, cas on Memcached"
            )
        if claim.keeps is None or not isinstance(found, Record):
            return False
        number, stamp = parsed(claim.lease).stamp.begun, found.stamp
        if found.token != held.token or stamp.stored >= number:
            if found.start >= claim.started:  # perhaps ours, by a cancelled task
                call.stats.stored(call.clock.time(), len(found.raw))
            return False
        if stamp.begun > number:
            stamp = stamp._replace(stored=number)
            ours = record.restamp(parsed(new), stamp, found.token)
        held = found
    # Others begin refreshes all the time. They may all fail, and leave the old value.
    await invalidate_call(call)
    return False


async def renew_dependents(call: Call, new: bytes) -> None:
    """Invalidate the results that were made with the entry before ``new``."""
    name, tags = call.function.name, call.own_tags()
    why = f"a refresh of {name}"
    await renew_tags(call.store, name, tags, beside=call.key, why=why)
    await note_refreshed(call, new)


def timeout_of(call: Call, result: Any) -> float:
    timeout = call.policy.timeout_for(result, call.args, call.kwargs)
    timeout = call.store.seconds_of(timeout)
    return call.policy.with_jitter(timeout, call.clock.random())


def pack_entry(
    call: Call,
    claim: Claim,
    kind: int,
    payload: bytes,
    timeout: float,
    cost: float,
    depends: bytes = b"",
) -> bytes:
    """Return the record of a result, with the token of its lease; if it replaces an
    entry, with a new one, so that no earlier refresh replaces it."""
    assert claim.lease is not None
    renewed, stamp = claim.keeps is not None, None
    if claim.origins.stale:
        stamp = Stamp(call.clock.time(), STALE_ORIGIN_FRESH_FOR, 0)
    if len(payload) > call.policy.compress:
        payload = compress(payload)
    return pack(
        kind,
        call.clock.token() if renewed else record.token_of(claim.lease),
        payload,
        start=claim.started,
        timeout=record.cap(timeout),
        cost=cost,
        tags=claim.tags,
        depends=depends,
        stamp=stamp,
    )


def is_too_large(call: Call, new: bytes) -> bool:
    """Return whether an entry has more than ``max_bytes=``; count and log it."""
    size, most = len(new), call.policy.max_bytes
    if size > most:
        call.stats.too_large += 1
        log_sometimes(
            logger.warning,
            "%s: not stored: an entry of %d bytes, with max_bytes=%d",
            call.function.name,
            size,
            int(most),
        )
    return size > most


async def release(call: Call, claim: Claim, error: BaseException | None = None) -> None:
    """Tell waiting callers that nothing was stored, if the lease is still there.

    :param error: what the function raised. The waiting callers raise it too; if the
        caller was cancelled, or is to exit, one of them takes over.
    """
    if claim.lease is None:
        return
    lease = parsed(claim.lease)
    if error is None or isinstance(error, Exception):
        payload = await _payload(call, claim, error)
        mark = pack(record.FAILED, lease.token, payload, tags=claim.tags)
    else:
        mark = pack(record.CLEARED, call.clock.token())
    try:
        if await call.store.swap(call.key, lease.raw, mark, record.FAILED_FOR):
            return
    except MISTAKES:
        raise
    except Exception as trouble:
        call.stats.trouble("the cache failed after the call", trouble)
    # A server that replaces nothing may delete: else other callers would wait for
    # nothing. But only our lease: by now the key may hold the block of a transaction.
    with suppress(Exception):
        if not call.store.breaker.blocks(call.clock.monotonic()):
            found = await call.store.get(call.key)
            if isinstance(found, Record) and found.raw == lease.raw:
                await call.store.delete(call.key)


async def _payload(call: Call, claim: Claim, error: Exception | None) -> bytes:
    """Return an exception as the payload of a mark; empty if no caller waits for it
    (``wait=0``), or if it is large, cannot be pickled, or depends on what other callers
    do not see."""
    if error is not None and call.policy.wait != 0:
        with suppress(Exception):  # a class decides what pickling raises
            payload = record.dumps_exception(error)
            holds_row = claim.uses is not None and _ROW in payload
            if len(payload) > _LARGEST_ERROR or holds_row or _is_changed(call, claim):
                return b""
            return payload if await _is_valid_for_others(call, claim) else b""
    return b""


def release_in_thread(call: Call, claim: Claim) -> None:
    """Free the key for others from another thread: this one may not wait."""
    here = call._replace(store=call.plan.store)
    with suppress(RuntimeError):  # the process is ending: the lease expires
        threads.submit(lambda: run(release(here, claim, GeneratorExit())))


async def confirm(call: Call, claim: Claim, *, afresh: bool = False) -> Claim:
    """Return the claim with the state of the arguments, before the computation. Give up
    the right to store if their owner has changed them since the key was made.

    :param afresh: compare the keys of plain arguments too: another thread may have
        another context.
    """
    if claim.lease is None:
        return claim
    with suppress(Exception):  # else they cannot be part of a key any more
        state = call.state()
        if (state is None and not afresh) or call.key_now() == call.key:
            return claim._replace(state=state)
    await _give_up(call, claim, tried=False)
    return claim._replace(lease=None, keeps=None)


async def _give_up(
    call: Call, claim: Claim, *, tried: bool, error: BaseException | None = None
) -> None:
    """Give up the right to store; an entry that readers still get stays, as after a
    refresh that raised if the function was ``tried``."""
    if claim.keeps is None:
        return await release(call, claim, error)
    await postpone_refresh(call, claim, tried=tried)
    if tried:
        call.stats.refresh_failed(call.key, call.clock, "nothing was stored")


def tell_failure(call: Call, error: BaseException) -> None:
    """Count a refresh whose function raised, and that leaves readers the old value."""
    name = type(error).__name__
    call.stats.refresh_failed(call.key, call.clock, f"{name} was raised", error)


async def postpone_refresh(call: Call, claim: Claim, *, tried: bool) -> None:
    """Leave the old value to readers; after a failure, start no refresh for a while.

    The pause grows with each failure.
    """
    if claim.lease is None or claim.keeps is None:
        return
    if call.store.breaker.blocks(call.clock.monotonic()):
        return
    kept, new = parsed(claim.lease), claim.keeps.raw
    if tried:
        attempts = max(kept.stamp.attempts, 1)
        seconds = call.policy.retry_after(attempts)
        stamp = kept.stamp._replace(
            at=call.clock.time(), seconds=seconds, attempts=attempts
        )
        new = record.restamp(kept, stamp)
    try:
        await call.replace_entry(kept, new)
    except MISTAKES:
        raise
    except Exception as error:
        call.stats.trouble("the cache failed after the call", error)
