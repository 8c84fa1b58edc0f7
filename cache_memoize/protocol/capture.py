"""The tags that a result is made of, collected while its function computes.

A result that was made with the result of another call is out of date as soon as that
is. The obvious scheme, a list of the results that used a call, would have to be
complete on a cache that may lose values. So a result depends on tags, as in
keys/tags.py: on those of each call that its function made, over any depth, and on one
that stands for the call itself, whose token is renewed when the call is invalidated. An
entry holds their names with it, because a reader cannot know them.

Each token is read before that which its tag stands for. An invalidation in between
makes the result out of date when it is stored, and no reader gets it.

A context variable holds the computation under way, so tasks and threads that get the
context of the computation add to it too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING

from .. import process
from ..cache import record
from ..cache.connections import is_in_memory
from ..cache.tokens import FOR_EVER, Terms, read_tokens, tokens_of
from ..keys.tags import call_tags, tag_of_calls
from ..process import logger

if TYPE_CHECKING:
    from ..cache.store import Store
    from .call import Call, Function, Plan

__all__ = [
    "Computation",
    "Origins",
    "computation",
    "inherit",
    "note_calls",
    "note_refreshed",
    "running",
]

#: Calls of one function that a result depends on one by one; above, on all of them.
MOST_CALLS = 16
#: Tags, and bytes of their names, that an entry has besides those of its call.
MOST_TAGS = 255
MOST_BYTES = 16 * 2**10

_INVALIDATED = "a tag that it depends on was invalidated during the computation"
#: Why a result is not stored that depends on the tables that it reads.
UNREADABLE = "a query of it names no table that can be read from its text"
_TOO_MANY = ValueError(
    f"it depends on more than {MOST_TAGS} tags, so nothing is stored; give the calls "
    "in it fewer tags, or leave them out with inherit=False"
)


class Origins:
    """The tags that a result under computation depends on, each with its token."""

    __slots__ = (
        *("alias", "calls", "known", "previous", "reads"),
        *("stale", "terms", "timeout", "tokens", "used", "void"),
    )

    def __init__(
        self,
        alias: str,
        known: Mapping[str, bytes] = {},
        terms: Terms = FOR_EVER,
        *,
        calls: bool = True,
        reads: bool = False,
    ) -> None:
        #: The cache that the result will be stored in. Names of tags of another cache
        #: start with its alias and a tab.
        self.alias = alias
        #: Tokens that were read before the computation.
        self.known = known
        self.terms = terms
        #: Whether it depends on the calls that are made for it, and on the tables.
        self.calls, self.reads = calls, reads
        self.tokens: dict[str, bytes] = {}
        #: The tags of calls whose entry may have been used.
        self.used: set[str] = set()
        #: The entry to be replaced, unless many results are computed together.
        self.previous: record.Record | None = None
        #: Seconds that the function has set in place of its ``timeout=``.
        self.timeout = math.inf
        #: Whether it is made of a stale value.
        self.stale = False
        #: Why the result must not be stored, if so.
        self.void = ""

    def name_of(self, alias: str, name: str) -> str | None:
        """Return the name, in this cache, of a tag that has ``name`` in another one.
        None if the other one is the memory of this process alone."""
        own, _, key = name.rpartition("\t")
        alias = own or alias
        if alias == self.alias:
            return key
        if is_in_memory(alias) and not is_in_memory(self.alias):
            if (alias, self.alias) not in _told:
                _told.add((alias, self.alias))
                logger.warning(
                    "results in the cache %r do not depend on calls in %r, which is "
                    "the memory of one process; use one cache for both",
                    self.alias,
                    alias,
                )
            return None
        return f"{alias}\t{key}"

    def add(self, alias: str, tokens: Mapping[str, bytes]) -> None:
        for each, token in tokens.items():
            name = self.name_of(alias, each)
            if name and self.tokens.setdefault(name, token) != token:
                self.void = _INVALIDATED

    async def note(self, store: Store, tags: Iterable[str]) -> None:
        """Depend on these tags, before what they stand for is read."""
        unknown = []
        for tag in tags:
            name = self.name_of(store.alias, tag)
            if name is None or name in self.tokens:
                continue
            if name in self.known:
                self.tokens[name] = self.known[name]
            else:
                unknown.append(tag)
        if not unknown or self.void:
            return
        try:
            if store.breaker.tripped:
                self.void = "the cache is left alone"
                return
            if store.database():
                is_inside: bool = await store.ask_thread(store.is_in_transaction)
                if is_inside:  # other callers would wait for its end
                    self.void = "the cache is in a database with an open transaction"
                    return
            tokens, is_young = await tokens_of(store, unknown, self.terms)
        except Exception:  # counted by the store; the cache would not take the result
            self.void = "the cache failed"
            return
        self.add(store.alias, tokens)
        if is_young or len(tokens) < len(unknown):
            self.void = _INVALIDATED

    def has_many_calls(self, alias: str, all_calls: str) -> bool:
        """Return whether it depends on many calls with this common tag."""
        name = self.name_of(alias, all_calls)
        return sum(tag_of_calls(each) == name for each in self.tokens) >= MOST_CALLS

    async def condense(self, store: Store) -> None:
        """Depend on the tag of all calls of a function in place of many of its
        calls."""
        many: dict[str, list[str]] = {}
        for name in self.tokens:
            if all_calls := tag_of_calls(name):
                many.setdefault(all_calls, []).append(name)
        for all_calls, names in many.items():
            if all_calls not in self.tokens and len(names) <= MOST_CALLS:
                continue
            alias, _, tag = all_calls.rpartition("\t")
            there = store.beside(alias) if alias else store
            await self.note(there, [tag])
            # Read after the token of all calls: an invalidation before is seen here.
            now = await read_tokens(store, names)
            if any(now.get(name) != self.tokens[name] for name in names):
                self.void = _INVALIDATED
            for name in names:
                del self.tokens[name]

    async def pack(self, call: Call) -> bytes | None:
        """Return the tags as a record holds them; None if nothing may be stored."""
        await self.condense(call.store)
        # The entry has the tags of its call anyway.
        names = sorted(self.tokens.keys() - set(getattr(call.key, "tags", ())))
        packed = record.pack_names(names)
        if len(names) > MOST_TAGS or len(packed) > MOST_BYTES:
            call.stats.warn_once("the result is not stored", _TOO_MANY)
            return None
        if self.void:
            if self.void is UNREADABLE:
                call.stats.warn_once("the result is not stored", ValueError(UNREADABLE))
            return None
        tokens = b"".join(self.tokens[name] for name in names)
        return record.pack_dependencies(packed, tokens) if names else b""


#: Pairs of caches of which the log has said that one does not see the other.
_told: set[tuple[str, str]] = set()


class Computation:
    """A computation under way, in the context of what it calls and of the tasks that it
    starts. A task may outlive it."""

    __slots__ = ("_reset", "ended", "origins", "outer")

    def __init__(self, origins: Origins | None = None, *, apart: bool = False) -> None:
        """Begin a computation.

        :param origins: collects what the result is made of; None: that of the
            computation around this one does.
        :param apart: the computation around this one does not use its result.
        """
        self.ended = False
        #: The computation around this one.
        self.outer = None if apart else computation()
        outer = self.outer.origins if self.outer else None
        self.origins: Origins | None = origins or outer
        self._reset = _computation.set(self)
        running.add(self)

    def end(self) -> None:
        self.ended = True
        running.discard(self)
        with suppress(ValueError):  # a coroutine closed in another context
            _computation.reset(self._reset)
        ours, outer = self.origins, self.outer
        theirs = outer.origins if outer else None
        if ours and theirs and theirs is not ours and theirs.calls:
            theirs.add(ours.alias, ours.tokens)
            theirs.stale = theirs.stale or ours.stale
            theirs.void = theirs.void or ours.void


_computation: ContextVar[Computation | None] = ContextVar(
    "cache_memoize_computation", default=None
)
#: The computations of this process. Empty while there is none: every call looks.
running: set[Computation] = set()


@process.after_fork
def _after_fork() -> None:
    """Leave out the computations of other threads, which are not in this process."""
    running.clear()


def reading() -> Origins | None:
    """Return the innermost result under computation that depends on the tables that
    are read, or None."""
    around = computation() if running else None
    while around is not None and not (around.origins and around.origins.reads):
        around = around.outer
    return around.origins if around else None


def computation() -> Computation | None:
    """Return the computation that this context is inside of, or None.

    A computation never waits for another one: so callers cannot wait for each other in
    a circle, nor recursion for itself.
    """
    found = _computation.get()
    while found is not None and found.ended:
        found = found.outer
    return found


def _origins_around(plan: Plan) -> Origins | None:
    if not running or not plan.stores:
        return None
    around = computation()
    found = around.origins if around else None
    return found if found and found.calls else None


async def note_calls(
    function: Function,
    plan: Plan,
    store: Store,
    keys: Sequence[str],
    *,
    refresh: bool = False,
) -> None:
    """Have the result under computation depend on calls, before they are read.

    :param refresh: the calls are computed anew; what is stored for them is not used.
    """
    origins = _origins_around(plan)
    if origins is None:
        return
    tags = [call_tags(function.prefix, key) for key in keys]
    many = len(keys) > MOST_CALLS or origins.has_many_calls(plan.alias, tags[0][1])
    found = {all_calls if many else one for one, all_calls in tags}
    found.update(tag for key in keys for tag in getattr(key, "tags", ()))
    if not refresh:
        origins.used |= found
    await origins.note(store, found)


async def note_refreshed(call: Call, new: bytes) -> None:
    """Have the result under computation depend on a call that was computed anew for it,
    and not on the tokens from before, which the refresh itself has renewed.

    The entry is read after the token: if it is still ours, a later invalidation renews
    the token.
    """
    origins = _origins_around(call.plan)
    if origins is None:
        return
    for tag in set(call.own_tags()) - origins.used:
        if name := origins.name_of(call.plan.alias, tag):
            origins.tokens.pop(name, None)
    await note_calls(call.function, call.plan, call.store, [call.key], refresh=True)
    found = await call.store.get(call.key)
    if not isinstance(found, record.Record) or found.token != record.token_of(new):
        origins.void = _INVALIDATED


def inherit(plan: Plan, found: record.Record | None, *, stale: bool = False) -> None:
    """Have the result under computation depend on what an entry depends on."""
    origins = _origins_around(plan)
    if origins is not None and found is not None:
        origins.add(plan.alias, record.dependencies(found.depends)[1])
        origins.stale = origins.stale or stale
