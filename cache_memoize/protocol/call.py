"""What the protocol knows of one memoized function, and of one call of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, NamedTuple

from django.apps import apps

from ..cache import record, signing
from ..cache.connections import UNREAD
from ..cache.record import Record, Stamp
from ..cache.store import Look, Store
from ..clock import Clock
from ..keys.binding import address
from ..keys.tags import TaggedKey
from ..stats import counters
from . import transactions
from .policy import Policy

__all__ = ["Claim", "Memo", "computing", "serve"]

#: Whether this context is computing something. Who computes never waits for others:
#: so no circle of waiters can form, and recursion cannot block itself.
computing: ContextVar[bool] = ContextVar("cache_memoize_computing", default=False)


class Memo:
    """What the flows need to know of one memoized function."""

    policy: Policy
    hit: Callable[..., object] | None
    miss: Callable[..., object] | None

    def __init__(self, function: Callable[..., Any], clock: Clock) -> None:
        module, self.name = address(function)
        self.clock = clock
        self.function = function
        self.stats = counters.Stats(self.name, f"{module}.{self.name}", function)
        #: Seconds of the slowest run that outlasted its lease in this process.
        self.slowest = 0.0

    @property
    def kind(self) -> int:
        """What stands under a key when the function has returned."""
        return record.ENTRY if self.policy.store_result else record.RAN

    def lease(self) -> int:
        return math.ceil(self.policy.lease_for(self.slowest))

    def grace(self, kind: int) -> float:
        """For how many seconds after its timeout such a record is still there."""
        return self.policy.stale if kind == record.ENTRY else 0.0


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


def encode(kind: int, result: Any) -> bytes:
    """The payload of a record of this kind; raises what pickling raises."""
    if kind == record.RAN:
        return b""
    if kind == record.RAISED:
        return record.dumps_exception(result)
    return record.dumps(result)


def decode(found: Record) -> Any:
    if found.kind == record.RAN:
        return True
    if found.kind == record.RAISED:
        return record.loads_exception(found.raw)
    return record.loads(found.raw)


def serve(memo: Memo, claim: Claim, args: Any, kwargs: Any) -> Any:
    """An entry that the flow found: after waiting, past its timeout, or no plain value.
    None any more if this caller has just refreshed it."""
    found = claim.found
    if found is None:
        memo.stats.missed(claim.key)
        return claim.value
    late = found.kind in record.ENTRIES and not found.is_fresh(memo.clock.time())
    memo.stats.served(memo.hit, claim.key, found.cost, args, kwargs, stale=late)
    if found.kind == record.RAISED:
        raise claim.value
    return claim.value


# --- what is asked before anything is read or stored ---------------------------------


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
    return await transactions.ask(store, transactions.is_dirty, store.alias, keys)


async def look_at(
    store: Store, key: str, first: Any = UNREAD, *, hold: float = 0.0
) -> Look:
    """Return what is stored under ``key``, with its tags; ``first`` was just read.

    A missing tag gets a new token, but not inside a transaction on the database that
    the cache is in: there the others would wait for its end.
    """
    may_write = True
    if isinstance(key, TaggedKey) and (database := store.database()):
        may_write = await transactions.ask(store, transactions.may_store, 0, database)
    return await store.seen(key, first, hold=hold, may_write=may_write)


async def may_store(memo: Memo, store: Store, since: float = 0.0) -> bool:
    """Whether what is computed here and now may be stored for everybody."""
    hold = memo.policy.hold
    if hold and memo.clock.time() - since < hold:  # a tag was forgotten just now
        return False
    database = store.database()
    return await transactions.ask(store, transactions.may_store, hold, database)


def lifetime(seconds: float) -> int | None:
    """Whole seconds, at least one: backends take fractions for "delete at once".

    Thirty years and more are for ever: dates so far away overflow in some backends.
    """
    return None if seconds >= 1e9 else max(1, math.ceil(seconds))


async def stamp(
    memo: Memo, store: Store, key: str, there: Record, stamped: Stamp | None
) -> bytes | None:
    """Put a token of ours on an entry that readers still get; None: it is gone."""
    left = min(there.remaining(memo.clock.time()), there.timeout) + memo.policy.stale
    limit = max(left, float(memo.lease()))
    new = signing.seal(key, record.restamp(there, memo.clock.token(), stamped))
    return new if await store.swap(key, there.raw, new, lifetime(limit)) else None
