"""Many calls at once: ``map`` reads them by one command, ``warm`` refreshes them.

Written once for sync and async, like the flows. What is no hit goes through the flows
of a single call: one call after the other, or together, if a function was registered
that computes many. Who holds the leases of several calls waits for nobody, so that no
two can wait for each other.
"""

from __future__ import annotations

import inspect
from collections.abc import (
    AsyncIterable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Set,
)
from contextlib import contextmanager
from typing import Any, NamedTuple

from django.apps import apps
from django.db.models import QuerySet

from ..cache import record
from ..cache.connections import UNREAD, afetch_many, fetch_many
from ..cache.record import (
    AHEAD,
    TAIL,
    freshness,
    loads,
)
from . import claim as flows
from . import settle
from .call import Claim, computing, serve
from .progress import Progress, chunks
from .refresh import Refreshable, arevalidate, revalidate
from .transactions import live

__all__ = ["Batch", "Batchable"]

#: So many calls are read by one command, and computed by one call of a bulk function.
CHUNK = 500


class Batchable(Refreshable):
    """What many calls at once need to know of a memoized function."""

    alias: str
    #: The kind of the records that a hit may take without a second look.
    plain: int
    #: Takes a list of items and gives their results in the same order.
    many: Callable[..., Any] | None = None


class _Call(NamedTuple):
    item: Any
    args: tuple[Any, ...]
    key: str
    #: What was read under the key.
    first: Any = UNREAD


class Batch:
    """Many calls of one function. ``bound``: the instance of a method, if it is one."""

    def __init__(self, memo: Batchable, bound: tuple[Any, ...], items: Any) -> None:
        iterable = isinstance(items, (Iterable, AsyncIterable))
        if not iterable or isinstance(items, (str, bytes)):
            raise TypeError(
                f"{memo.name}.map() and warm() take an iterable of items, not a "
                f"{type(items).__name__}; write [item] for one"
            )
        self.memo = memo
        self.bound = bound
        #: How many items there are, if somebody knows.
        self.total: int | None = None
        self.done = self.failed = 0
        self.is_async = inspect.iscoroutinefunction(memo.function)
        self.store = memo.astore if self.is_async else memo.store
        #: So many are computed together.
        self.size = 1 if memo.many is None else CHUNK

    async def map(self, items: Iterable[Any]) -> Results:
        items, args, keys = self._keyed(items)
        results = Results(keys)
        where = _first_places(keys)
        for chunk in chunks(where, CHUNK):
            seen, error = await self._read(chunk)
            missing = [
                _Call(items[n], args[n], key, raw)
                for key, raw in self._take_hits(chunk, seen, args, where, results)
                for n in [where[key]]
            ]
            for group in self._groups(missing):
                await self._compute(group, results, error=error)
                error = None  # told once
        return results

    async def refresh(self, items: Iterable[Any]) -> list[Progress]:
        """Compute these items anew."""
        items, args, keys = self._keyed(items)
        results, found = Results(keys), []
        places = _first_places(keys).values()
        calls = [_Call(items[n], args[n], keys[n]) for n in places]
        await self._compute(calls, results, refresh=True)
        for item, key in zip(items, keys, strict=True):
            error = results.errors.get(key)
            self.done += 1
            self.failed += error is not None
            found.append(Progress(item, error, self.done, self.failed, self.total))
        return found

    def _keyed(
        self, items: Iterable[Any]
    ) -> tuple[list[Any], list[tuple[Any, ...]], list[str]]:
        items, bound, key_of = list(items), self.bound, self.memo.key_of
        # Exactly a tuple: a named tuple is one argument.
        args = [
            (*bound, *item) if type(item) is tuple else (*bound, item) for item in items
        ]
        return items, args, [key_of(each, {}) for each in args]

    async def _read(self, keys: list[str]) -> tuple[dict[str, Any] | None, Any]:
        """What stands under the keys, or what reading them raised."""
        memo = self.memo
        if (
            not (memo.policy.stores and apps.ready)
            or self.store.breaker.tripped
            or live
        ):
            return None, None
        try:
            if self.is_async:
                return await afetch_many(memo.alias, keys), None
            return fetch_many(memo.alias, keys), None
        except Exception as error:
            return None, error

    def _take_hits(
        self,
        chunk: list[str],
        seen: dict[str, Any] | None,
        args: list[tuple[Any, ...]],
        where: dict[str, int],
        results: Results,
    ) -> list[tuple[str, Any]]:
        """Take what counts; gives the keys of the others, with what was read there."""
        memo, stats, zone = self.memo, self.memo.stats, self.memo.policy.zone
        now, plain, missing = memo.clock.time(), memo.plain, []
        for key in chunk:
            raw = UNREAD if seen is None else seen.get(key)
            try:
                if type(raw) is bytes:
                    start, timeout, cost, kind = freshness(raw[TAIL])
                    if kind == plain and AHEAD < now - start < timeout - zone * cost:
                        results.values[key] = loads(raw)
                        stats.served(memo.hit, key, cost, args[where[key]], {})
                        continue
            except Exception:
                pass  # whatever it is, the flow will see it
            missing.append((key, raw))
        return missing

    def _groups(self, missing: list[_Call]) -> Iterator[list[_Call]]:
        """What is computed together; last, and each alone, what others are at."""
        yield from chunks([call for call in missing if not _is_leased(call)], self.size)
        yield from chunks([call for call in missing if _is_leased(call)], 1)

    async def _compute(
        self,
        group: list[_Call],
        results: Results,
        *,
        refresh: bool = False,
        error: Any = None,
    ) -> None:
        """Claim, call and settle all of a group."""
        memo, several = self.memo, len(group) > 1
        mine: list[tuple[_Call, Claim]] = []
        later: list[_Call] = []
        values = None
        patient = several and not refresh and await flows.can_wait(self.store)
        try:
            with _computing(several):
                for call in group:
                    claim = await self._claim(call, refresh, error)
                    error = None
                    if claim.found is not None:
                        await self._serve(call, claim, results)
                    elif patient and await self._is_taken(call, claim):
                        later.append(call)
                    else:
                        mine.append((call, claim))
            if memo.varies and not refresh:  # whose keys were made just now
                mine = [(call, await self._here(call, claim)) for call, claim in mine]
            began = memo.clock.monotonic()
            if mine:
                with _computing(True):
                    # Not in a coroutine of its own: StopIteration would change.
                    got = self._start([call for call, _ in mine])
                    values = self._checked(mine, await got if self.is_async else got)
        except BaseException as raised:
            await self._fail(mine, raised)
            if not isinstance(raised, Exception):
                raise
            done = {*results.values, *results.errors, *(call.key for call in later)}
            results.errors |= {c.key: raised for c in group if c.key not in done}
        if values is not None:
            took = memo.clock.monotonic() - began
            share = took / len(mine)
            for place, (call, claim) in enumerate(mine):
                # Its share of the cost; the leases have to last for the whole.
                claim = claim._replace(began=memo.clock.monotonic() - share)
                try:
                    await self._settle(call, claim, values[place], results)
                except BaseException as ended:
                    await self._fail(mine[place + 1 :], ended)
                    raise
                memo.slowest = max(memo.slowest, took)
        for call in later:  # holding nothing
            await self._compute([call], results)

    async def _here(self, call: _Call, claim: Claim) -> Claim:
        """The claim, without the right to store if its key is another one by now: the
        function may have activated another language for an item before."""
        if claim.lease is None or self.memo.key_of(call.args, {}) == call.key:
            return claim
        await settle.release(self.memo, self.store, claim)
        return claim._replace(lease=None)

    async def _claim(self, call: _Call, refresh: bool, error: Any) -> Claim:
        memo, store = self.memo, self.store
        if refresh:
            return await flows.overtake(memo, store, call.key)
        return await flows.claim(memo, store, call.key, call.first, error)

    async def _is_taken(self, call: _Call, claim: Claim) -> bool:
        """Return whether another caller computes it now, or has just done so."""
        if claim.lease is not None or self.store.breaker.tripped:
            return False
        try:
            there = await self.store.get(call.key)
        except Exception:
            return False  # the flows have told of such trouble
        theirs = record.LEASES | record.ENTRIES
        return isinstance(there, record.Record) and there.kind in theirs

    async def _fail(
        self, mine: list[tuple[_Call, Claim]], error: BaseException
    ) -> None:
        """Free the keys. What a function for many raised is no single item's result."""
        memo = self.memo
        if memo.many is not None:
            if not isinstance(error, GeneratorExit):  # nothing may be awaited then
                await self.store.shield(self._free(mine))
            return
        for call, claim in mine:
            await settle.fail(memo, self.store, claim, error, call.args, {})
            if memo.miss and isinstance(error, memo.policy.cache_exceptions):
                memo.stats.hook(memo.miss, call.args, {})

    async def _free(self, mine: list[tuple[_Call, Claim]]) -> None:
        for _, claim in mine:
            if claim.keeps is None:  # readers have the old value
                await settle.release(self.memo, self.store, claim)

    async def _serve(self, call: _Call, claim: Claim, results: Results) -> None:
        if claim.lease is not None and self.is_async:
            claim = await arevalidate(self.memo, claim, call.args, {})
        elif claim.lease is not None:
            claim = revalidate(self.memo, claim, call.args, {})
        try:
            results.values[call.key] = serve(self.memo, claim, call.args, {})
        except Exception as stored:
            results.errors[call.key] = stored

    def _start(self, calls: list[_Call]) -> Any:
        memo = self.memo
        for call in calls:
            memo.stats.missed(call.key)
        if memo.many is not None:
            return memo.many(*self.bound, [call.item for call in calls])
        return memo.function(*calls[0].args)

    def _checked(self, mine: list[tuple[_Call, Claim]], got: Any) -> list[Any]:
        if self.memo.many is None:
            return [got]
        trouble, found = "", []
        if isinstance(got, Mapping):
            found = [got[call.item] for call, _ in mine if call.item in got]
            if len({call.item for call, _ in mine}) < len(mine):
                trouble = "a dict for items that are equal, such as 1 and True"
        elif isinstance(got, (QuerySet, Set, str)):
            trouble = f"a {type(got).__name__}, whose order is not that of the items"
        else:
            found = list(got)
        if trouble or len(found) != len(mine):
            raise ValueError(
                f"{self.memo.name}.many: the function gave "
                f"{trouble or f'{len(found)} results for {len(mine)} items'}; give a "
                "list with one for each item, in the same order, or a dict by item"
            )
        return found

    async def _settle(
        self, call: _Call, claim: Claim, value: Any, results: Results
    ) -> None:
        memo = self.memo
        try:
            await settle.settle(memo, self.store, claim, value, call.args, {})
        except Exception as raised:  # the user's timeout= or cache_if=
            results.errors[call.key] = raised
            return
        if memo.miss is not None:
            memo.stats.hook(memo.miss, call.args, {})
        results.values[call.key] = value


@contextmanager
def _computing(yes: bool) -> Iterator[None]:
    """Who is computing, or holds leases, waits for nobody."""
    before = computing.set(yes or computing.get())
    try:
        yield
    finally:
        computing.reset(before)


def _is_leased(call: _Call) -> bool:
    first = call.first.get(call.key) if isinstance(call.first, dict) else call.first
    found = record.parse(first)
    return found is not None and found.kind in record.LEASES


def _first_places(keys: list[str]) -> dict[str, int]:
    """Each key once, in order, and where it comes first."""
    found: dict[str, int] = {}
    for place, key in enumerate(keys):
        found.setdefault(key, place)
    return found


class Results:
    """What came of :meth:`Batch.map`, by the keys of the items, in order."""

    def __init__(self, keys: list[str]) -> None:
        self.keys = keys
        self.values: dict[str, Any] = {}
        self.errors: dict[str, Exception] = {}

    def get(self, return_exceptions: bool) -> list[Any]:
        """In the order of the items; raises the first error, unless they are wanted."""
        if len(self.values) == len(self.keys):  # no two alike, and no errors
            return [self.values[key] for key in self.keys]
        found, served = [], set()
        for key in self.keys:
            if key in self.errors:
                if not return_exceptions:
                    raise self.errors[key]
                found.append(self.errors[key])
                continue
            # As if they had been called one by one: no two share an object.
            value = self.values[key]
            found.append(_copy(value) if key in served else value)
            served.add(key)
        return found


def _copy(value: Any) -> Any:
    try:
        return record.loads(record.dumps(value))
    except Exception:  # then nothing was stored either
        return value
