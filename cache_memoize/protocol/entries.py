"""Access to single entries: read one, store one."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..cache.connections import UNREADABLE
from ..cache.errors import MISTAKES
from .call import Call, decode, encode
from .claim import overtake
from .invalidation import invalidate_call
from .settle import (
    drop_copies,
    is_too_large,
    pack_entry,
    put,
    renew_dependents,
    timeout_of,
)

__all__ = ["Entry", "peek", "prime"]


class Entry(NamedTuple):
    """The stored result of a call."""

    #: The result; the exception itself if one was stored; True for a guard.
    value: Any
    #: Seconds since its computation started.
    age: float
    #: Whether it has expired, and is served only until there is a new one.
    stale: bool = False


async def peek(call: Call) -> Entry | None:
    """Return the entry of a call that would be a hit, or None."""
    try:
        if not call.can_use_cache() or await call.is_invalidated_here():
            return None
        look = await call.look()
        now, found = call.clock.time(), look.record
        if found is None or found is UNREADABLE:
            return None
        if found.tags != look.tags or not look.valid:
            return None
        if not found.is_fresh(now, call.plan.grace(found.kind)):
            return None
        age = max(0.0, now - found.start)  # the clock of its host may be ahead
        return Entry(decode(found), age, not found.is_fresh(now))
    except MISTAKES:
        raise
    except Exception as error:
        call.stats.trouble("peek() could not read the entry", error)
        return None


async def prime(call: Call, value: Any) -> None:
    """Store a value computed elsewhere; computations under way then store nothing."""
    if call.plan.reads:
        raise TypeError(
            f"{call.function.name}.prime(): the tables that the value depends on are "
            'not known, because of depends_on="reads"; name the models there, or call '
            "refresh()"
        )
    kind, timeout = call.plan.result_kind, timeout_of(call, value)
    try:
        payload = await call.store.call(encode, kind, value)
    except Exception as error:
        raise TypeError(
            f"{call.function.name}.prime(): a {type(value).__name__} cannot be stored, "
            f"because it cannot be pickled ({error}); pass plain data"
        ) from error
    # Like a refresh that takes no time, in two steps: so a command that a client sends
    # late, after it has given up, cannot undo an invalidation in between.
    claim = await overtake(call)
    try:
        if timeout == 0 and call.can_use_cache():
            # The value is not to be stored, but it outdates the entry.
            await invalidate_call(call)
        elif claim.lease is not None:
            new = pack_entry(call, claim, kind, payload, timeout, 0.0)
            if is_too_large(call, new):
                await invalidate_call(call)
            else:
                await put(call, claim, new, timeout + call.plan.grace(kind))
                await renew_dependents(call, new)
        await drop_copies(call)
    except MISTAKES:
        raise
    except Exception as error:
        call.stats.trouble("prime() could not store the value", error)
