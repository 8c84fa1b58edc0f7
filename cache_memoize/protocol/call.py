"""The data of the protocol: function, plan, call, claim.

One object travels through the protocol: a :class:`Call`. It names the
:class:`Function` (which lives as long as the process), the :class:`Plan` (a snapshot of
its options under the present settings), and the arguments. A call keeps the plan that
it began with: if the settings change meanwhile, it cannot store under the
key of one plan in the cache of another.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..cache import record
from ..cache.breaker import Breaker
from ..cache.connections import UNREAD
from ..cache.errors import MISTAKES
from ..cache.pickler import Unstorable, check_awaited
from ..cache.record import Record, Stamp
from ..cache.store import AsyncStore, Look, Store
from ..clock import Clock
from ..keys.binding import address
from ..keys.closure import captures_plain_values, is_plain
from ..keys.tags import TaggedKey
from ..stats.counters import Stats
from . import transactions
from .policy import Policy

__all__ = ["Call", "Claim", "Computation", "Function", "Plan", "computation"]


class Computation:
    """A computation under way, in the context of what it calls and of the tasks that it
    starts. A task may outlive it."""

    __slots__ = ("_reset", "ended", "outer")

    def __init__(self) -> None:
        self.ended = False
        #: The computation around this one.
        self.outer = computation()
        self._reset = _computation.set(self)

    def end(self) -> None:
        self.ended = True
        with suppress(ValueError):  # a coroutine closed in another context
            _computation.reset(self._reset)


_computation: ContextVar[Computation | None] = ContextVar(
    "cache_memoize_computation", default=None
)


def computation() -> Computation | None:
    """Return the computation that this context is inside of, or None.

    A computation never waits for another one: so callers cannot wait for each other in
    a circle, nor recursion for itself.
    """
    found = _computation.get()
    while found is not None and found.ended:
        found = found.outer
    return found


class Function:
    """A memoized function, with the data that do not depend on settings."""

    __slots__ = (
        "__weakref__",
        "binder",
        "clock",
        "func",
        "given",
        "many",
        "name",
        "needs_class",
        "owner",
        "plan",
        "prefix",
        "queries",
        "slowest",
        "stats",
        "wrapper",
    )

    def __init__(
        self, func: Callable[..., Any], given: dict[str, Any], clock: Clock
    ) -> None:
        module, self.name = address(func)
        #: The user's function.
        self.func = func
        #: The options that were passed to the decorator.
        self.given = given
        self.clock = clock
        self.stats = Stats(self.name, f"{module}.{self.name}", func)
        #: The class in whose body a method stands, unless another decorator is above.
        self.owner: type | None = None
        #: Whether the first argument is a class.
        self.needs_class = False
        #: Computes many results at once, for map() and warm().
        self.many: Callable[..., Any] | None = None
        #: The function that callers call, with the controls.
        self.wrapper: Any = None
        #: Seconds of the slowest run that outlasted its lease in this process.
        self.slowest = 0.0
        #: Whether a run in a transaction that had written used a database.
        self.queries = False
        #: Made at the first call, and made anew after the settings have changed.
        self.plan: Plan | None = None
        self.binder: Any = None
        self.prefix = ""

    @property
    def path(self) -> str:
        """Module and qualified name, as in events, figures and labels. (Warnings and
        errors have the qualified name alone: ``name``.)"""
        return self.stats.path

    def fits_receiver(self, first: Any) -> bool:
        """Return whether an argument may be the instance, or class, of a method."""
        owner = self.owner
        if owner is None:
            return not self.needs_class or isinstance(first, type)
        if self.needs_class:
            return isinstance(first, type) and issubclass(first, owner)
        # Or of another class that has the same method.
        found = getattr(type(first), self.wrapper.__name__, None)
        return isinstance(first, owner) or found is self.wrapper

    def fits_placeholder(self, args: Any, kwargs: Any) -> bool:
        """Return whether the first argument can only be in the place of an instance
        that is not part of the key, as in m.invalidate(None, 1) for version 0.2.1."""
        given, first = self.given, self.binder.positional[:1]
        keyed = not (given.get("args_rewrite") or given.get("key_generator_callable"))
        if not args or (keyed and not {*first}.intersection(given.get("ignore", ()))):
            return False
        missing = self.binder.fits((None, *args), kwargs)
        return not missing and self.binder.fits(args, kwargs)

    @property
    def is_async(self) -> bool:
        return inspect.iscoroutinefunction(self.func)


@dataclass(frozen=True, slots=True)
class Plan:
    """A frozen snapshot of a function's options under the present settings, made by
    ``planning.make_plan()``."""

    options: Any
    policy: Policy
    alias: str
    breaker: Breaker
    store: Store
    astore: AsyncStore
    #: Returns the key of a call from its arguments.
    key_of: Callable[[Any, Any], str]
    #: Returns the arguments of a call as text; None if they are plain values.
    state_of: Callable[[Any, Any], str | None]
    #: Returns the captured variables in the key as text; None: there are none.
    captured: Callable[[], str] | None
    #: Reads the value under a key: the only I/O of a hit.
    fetch: Callable[[str, str], Any]
    afetch: Callable[[str, str], Any]
    #: The kind of the records that a hit may return without a second look.
    hit_kind: int
    #: The key of the tag that all calls have; None for a function without tags.
    tag: str | None
    #: False: the cache is neither read nor written.
    stores: bool
    #: The time before its timeout in which an entry may be refreshed, as a multiple of
    #: its cost.
    early_zone: float
    hit: Callable[..., object] | None
    miss: Callable[..., object] | None
    #: Whether keys depend on more than arguments (``vary_on``), and whether that is the
    #: same in a thread of our own.
    varies: bool
    context_travels: bool

    @property
    def breaker_state(self) -> str:
        """The state of the circuit breaker of the cache: closed, open or half-open."""
        return self.breaker.state(self.store.clock.monotonic())

    @property
    def result_kind(self) -> int:
        """The kind of the record of a result."""
        return record.ENTRY if self.policy.store_result else record.RAN

    def grace(self, kind: int) -> float:
        """Return the seconds after its timeout for which a record is kept."""
        return self.policy.stale if kind == record.ENTRY else 0.0


class Call(NamedTuple):
    """One call of a memoized function."""

    function: Function
    plan: Plan
    #: The plan's store, or its async one.
    store: Store
    key: str
    args: Any = ()
    kwargs: Any = {}

    @property
    def policy(self) -> Policy:
        return self.plan.policy

    @property
    def stats(self) -> Stats:
        return self.function.stats

    @property
    def clock(self) -> Clock:
        return self.function.clock

    def lease_seconds(self) -> int:
        return math.ceil(self.policy.lease_for(self.function.slowest))

    def key_now(self) -> str:
        """Return the key of the arguments as they are now."""
        return self.plan.key_of(self.args, self.kwargs)

    def state(self) -> str | None:
        """Return the arguments as text; None if they cannot change."""
        return self.plan.state_of(self.args, self.kwargs)

    # --- before reading and storing ---

    def can_use_cache(self) -> bool:
        return (
            self.plan.stores
            and not self.store.breaker.blocks(self.clock.monotonic())
            and self.store.backend().stores
        )

    async def is_invalidated_here(self) -> bool:
        """Return whether a transaction of this thread has invalidated this call."""
        if not transactions.live:
            return False
        key = self.key
        keys = (key, *key.tags) if isinstance(key, TaggedKey) else (key,)
        return await transactions.ask_connections(
            self.store, transactions.has_invalidated, self.store.alias, keys
        )

    async def look(self, first: Any = UNREAD, *, hold: float = 0.0) -> Look:
        """Return the record under the key, with its tags; ``first`` was just read.

        A missing tag gets a new token, but not inside a transaction on the database of
        the cache itself: other callers would wait for its end.
        """
        may_write, store = True, self.store
        if isinstance(self.key, TaggedKey) and (database := store.database()):
            may_write = await transactions.ask_connections(
                store, transactions.can_share_results, 0, database
            )
        return await store.seen(self.key, first, hold=hold, may_write=may_write)

    async def holds_rows(self) -> bool:
        """Return whether other callers would wait for what this one writes now, until
        its transaction on the database of the cache itself ends."""
        if not self.store.database():
            return False
        return await self.store.ask_thread(self.store.is_in_transaction)

    async def may_store(self, since: float = 0.0) -> bool:
        """Return whether a result computed now in this thread may be stored for all.

        :param since: seconds since the epoch when the youngest tag of the call got its
            token: an invalidation, after which nothing is stored for ``hold``.
        """
        hold = self.policy.hold
        if hold and self.clock.time() - since < hold:
            return False
        database = self.store.database()
        return await transactions.ask_connections(
            self.store, transactions.can_share_results, hold, database
        )

    async def count_uses(self, since: float = 0.0) -> transactions.Uses:
        """Return a count of the uses of databases; None if a result may not be stored
        even if the function uses none.

        Arguments and captured objects may hold uncommitted rows.
        """
        hold, given = self.policy.hold, [self.args, self.kwargs]
        if hold and self.clock.time() - since < hold:
            return None
        if not (is_plain(given) and captures_plain_values(self.function.func)):
            return None
        return await transactions.ask_connections(
            self.store, transactions.count_database_uses, self.store.database()
        )

    async def begin_refresh(
        self, entry: Record, seconds: float, attempts: int
    ) -> bytes | None:
        """Put the next number on an entry that readers still get; return the new
        record, or None if the entry is gone.

        :param seconds: how long no other caller begins a refresh by itself.
        """
        begun, stored, token = entry.stamp.begun + 1, entry.stamp.stored, b""
        if begun > record.LAST_NUMBER:  # results of earlier refreshes are dropped
            begun, stored, token = 1, 0, self.clock.token()
        stamp = Stamp(self.clock.time(), seconds, attempts, begun, stored)
        new = record.restamp(entry, stamp, token)
        return new if await self.replace_entry(entry, new) else None

    async def replace_entry(self, entry: Record, new: bytes) -> bool:
        """Replace an entry by one with the same value, for as long as it is kept."""
        left = min(entry.remaining(self.clock.time()), entry.timeout)
        limit = max(left + self.policy.stale, float(self.lease_seconds()))
        return await self.store.swap(self.key, entry.raw, new, lifetime(limit))


class Claim(NamedTuple):
    """The state of a call before its computation: an entry, the right to store, both,
    or neither."""

    #: The entry to serve; its value is decoded.
    found: Record | None = None
    value: Any = None
    #: The record that the key must still hold when the result is stored; None: do not
    #: store.
    lease: bytes | None = None
    #: Whether the cache may not have got the lease, because its answer was lost. Then
    #: the lease is freed after the computation: a result may be too late by then.
    unsure: bool = False
    #: The tokens of the tags when the right to store was taken.
    tags: bytes = b""
    #: The entry that readers still get; ``lease`` is the same with a new stamp.
    keeps: Record | None = None
    #: The uses of databases so far, if a result that was read there may not be stored.
    uses: transactions.Uses = None
    #: The caller as others of this process know it; none in sync code.
    leader: Any = None
    #: The arguments as text when the right to store was taken; None: plain values.
    state: str | None = None
    started: float = 0.0
    began: float = 0.0


def parsed(ours: bytes | None) -> Record:
    """Return the record in bytes that this process has packed."""
    found = record.parse(ours)
    assert found is not None
    return found


def encode(kind: int, result: Any) -> bytes:
    """Return the payload of a record. Raise TypeError for what cannot be pickled,
    without the text of the error, which may show the value."""
    if kind == record.RAN:
        check_awaited(result)
        return b""
    if kind == record.RAISED:
        return record.dumps_exception(result)
    try:
        return record.dumps(result)
    except (*MISTAKES, Unstorable):  # a QuerySet in async code; our own text
        raise
    except Exception as error:  # a class decides what pickling raises
        name, raised = type(result).__name__, type(error).__name__
        raise TypeError(f"pickling a {name} raises {raised}") from error


def decode(found: Record) -> Any:
    if found.kind == record.RAN:
        return True
    return record.loads(found.raw)


def lifetime(seconds: float) -> int | None:
    """Return whole seconds, at least one: some backends delete at once for a fraction.

    Thirty years and more are unlimited: later dates overflow in some backends.
    """
    return None if seconds >= 1e9 else max(1, math.ceil(seconds))
