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
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

from ..cache import record, tokens
from ..cache.breaker import Breaker
from ..cache.connections import UNREAD
from ..cache.errors import MISTAKES
from ..cache.pickler import Unstorable, check_awaited
from ..cache.record import Record, Stamp
from ..cache.store import AsyncStore, Store
from ..cache.tokens import DAY, Look, Terms
from ..clock import Clock
from ..keys.binding import address
from ..keys.closure import captures_plain_values, is_plain
from ..keys.tags import Expected, TaggedKey, call_tags, remember_expected, tag_of_calls
from ..stats.counters import Stats
from . import transactions
from .capture import Origins
from .policy import Policy

__all__ = ["Call", "Claim", "Function", "Plan"]


#: Tables and functions that a function is remembered to depend on, about.
MOST_ORIGINS = 100


class Function:
    """A memoized function, with the data that do not depend on settings."""

    __slots__ = (
        "__weakref__",
        "binder",
        "clock",
        "expected",
        "func",
        "given",
        "made_of",
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
        #: Tags that entries of any call are expected to depend on; None: none has been
        #: seen that depends on tags besides those of its call.
        self.expected: Expected | None = None
        #: The tables, and the functions, that results have depended on: their tags.
        self.made_of: set[str] = set()

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

    def expect(self, key: str, depends: bytes) -> None:
        """Remember the tags that the entry under a key depends on."""
        if depends or self.expected is not None:
            packed, tokens = record.dependencies(depends)
            common = {tag_of_calls(name) or name for name in tokens}
            if len(self.made_of) < MOST_ORIGINS:
                self.made_of |= common
            if self.expected is None:
                self.plan = None  # the next one reads them with the entry
            self.expected = remember_expected(key, packed, tokens)

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
    #: The same for all variants of a call, without the values of ``vary_on=``.
    call_of: Callable[[Any, Any], str]
    #: Returns the arguments of a call as text; None if they are plain values.
    state_of: Callable[[Any, Any], str | None]
    #: Returns the parts of the key of a call as text, by name.
    parts_of: Callable[[Any, Any], dict[str, str]]
    #: Returns the captured variables in the key as text; None: there are none.
    captured: Callable[[], str] | None
    #: Reads the value under a key: the only I/O of a hit.
    fetch: Callable[[str, str], Any]
    afetch: Callable[[str, str], Any]
    #: The same for many calls.
    fetch_many: Callable[[str, list[str]], Any]
    afetch_many: Callable[[str, list[str]], Any]
    #: The kinds of the records that a hit may return without a second look.
    hit_kinds: tuple[int, ...]
    #: The key of the tag that all calls have; None for a function without tags.
    tag: str | None
    #: Whether results depend on the tables that are read.
    reads: bool
    #: The tags of the tables that all results depend on.
    tables: frozenset[str]
    #: False: the cache is neither read nor written.
    stores: bool
    #: The time before its timeout in which an entry may be refreshed, as a multiple of
    #: its cost.
    early_zone: float
    #: The longest timeout of an entry for a hit without a second look.
    longest: float
    #: The fraction of hits that are audited.
    audited: float
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

    def kept_for(self) -> float:
        """Return the seconds for which the entry of a computation that begins now is
        kept; for a callable timeout, a day."""
        timeout = self.policy.timeout
        seconds = DAY if callable(timeout) else self.store.seconds_of(timeout)
        return float(seconds + self.policy.stale + self.lease_seconds())

    def key_now(self) -> str:
        """Return the key of the arguments as they are now."""
        return self.plan.key_of(self.args, self.kwargs)

    def state(self) -> str | None:
        """Return the arguments as text; None if they cannot change."""
        return self.plan.state_of(self.args, self.kwargs)

    # --- before reading and storing ---

    def can_use_cache(self) -> bool:
        return not self.refusal()

    def refusal(self) -> str:
        """Return why the cache is neither read nor written; empty if it is."""
        if not self.plan.stores:
            return "it is disabled, or has timeout=0"
        if self.store.breaker.blocks(self.clock.monotonic()):
            return "the cache has failed, and is left alone for a while"
        return "" if self.store.backend().stores else "the cache keeps nothing"

    def own_tags(self) -> tuple[str, str]:
        """Return the tags that results depend on which were made with this call."""
        return call_tags(self.function.prefix, self.key)

    async def is_invalidated_here(self) -> bool:
        """Return whether a transaction of this thread has invalidated this call."""
        if not transactions.live:
            return False
        key = self.key
        keys = (key, *key.tags) if isinstance(key, TaggedKey) else (key,)
        return await transactions.ask_connections(
            self.store, transactions.has_invalidated, self.store.alias, keys
        )

    async def look(self, first: Any = UNREAD, *, kept: float | None = None) -> Look:
        """Return the record under the key, with its tags; ``first`` was just read.

        A missing tag gets a new token, but not inside a transaction on the database of
        the cache itself: other callers would wait for its end.

        :param kept: the seconds for which the tags are needed at least.
        """
        store, terms = self.store, Terms()
        if isinstance(self.key, TaggedKey):
            kept, hold = self.kept_for() if kept is None else kept, self.policy.hold
            terms = Terms(kept, hold)
            if database := store.database():
                may_write = await transactions.ask_connections(
                    store, transactions.can_share_results, 0, database
                )
                terms = terms._replace(may_write=may_write)
        look = await tokens.look_after(store, self.key, first, terms)
        found, longest = look.record, self.plan.longest
        if isinstance(found, Record) and found.timeout > longest:
            # It was stored by an earlier version of the function.
            look = look._replace(record=found._replace(timeout=longest))
        return await self.own_view(look)

    async def own_view(self, look: Look) -> Look:
        """Return a look as a transaction of this thread is to see it, which may have
        invalidated what the entry depends on: then compute, and store nothing."""
        if transactions.live and look.known and not await self._sees(look.known):
            return Look(None, None)
        return look

    async def _sees(self, names: Iterable[str]) -> bool:
        """Return whether no transaction of this thread has invalidated these tags."""
        for name in names:
            alias, _, key = name.rpartition("\t")
            if await transactions.ask_connections(
                self.store,
                transactions.has_invalidated,
                alias or self.store.alias,
                (key,),
            ):
                return False
        return True

    async def holds_rows(self) -> bool:
        """Return whether other callers would wait for what this one writes now, until
        its transaction on the database of the cache itself ends."""
        if not self.store.database():
            return False
        return await self.store.ask_thread(self.store.is_in_transaction)

    async def may_store(self, is_young: bool = False) -> bool:
        """Return whether a result computed now in this thread may be stored for all.

        :param is_young: whether a tag of the call was invalidated less than ``hold``
            ago.
        """
        if is_young:
            return False
        hold, database = self.policy.hold, self.store.database()
        return await transactions.ask_connections(
            self.store, transactions.can_share_results, hold, database
        )

    async def count_uses(self, is_young: bool = False) -> transactions.Uses:
        """Return a count of the uses of databases; None if a result may not be stored
        even if the function uses none.

        Arguments and captured objects may hold uncommitted rows.
        """
        given = [self.args, self.kwargs]
        if is_young or not (
            is_plain(given) and captures_plain_values(self.function.func)
        ):
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
        return await self.store.swap(self.key, entry.raw, new, limit)


class Claim(NamedTuple):
    """The state of a call before its computation: an entry, the right to store, both,
    or neither."""

    #: The entry to serve; its value is decoded.
    found: Record | None = None
    value: Any = None
    #: The record that the key must still hold when the result is stored; None: do not
    #: store.
    lease: bytes | None = None
    #: Why it must not be stored, if the caller was refused the right.
    why: str = ""
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
    #: Collects what the result is made of, in each claim to compute.
    origins: Origins = cast("Origins", None)
    #: Whether results that were made with the last one are out of date.
    renews: bool = False
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
