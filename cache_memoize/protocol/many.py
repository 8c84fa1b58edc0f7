"""Many calls at once: ``map`` reads them by one command, ``warm`` refreshes them.

Calls that are no hits go through the protocol of a single call: one after the other, or
together if a function that computes many is registered. A caller that holds the leases
of several calls never waits, so that no two callers can wait for each other.
"""

from __future__ import annotations

from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Iterable,
    Iterator,
    Mapping,
    Set,
    Sized,
)
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

from asgiref.sync import async_to_sync, sync_to_async
from django.db.models import QuerySet

from ..cache import record
from ..cache.connections import UNREAD
from ..cache.record import AHEAD, TAIL, freshness, loads
from ..cache.store import run
from .call import Call, Claim, Function, Plan
from .capture import Computation, Origins, inherit, note_calls, running
from .claim import can_wait, claim, overtake, serve
from .progress import Progress, achunks, chunks
from .refresh import arevalidate, revalidate
from .settle import fail, release, release_in_thread, settle
from .transactions import live

__all__ = ["CHUNK", "Batch", "awarm", "warm"]

#: At most this many calls are read by one command, or computed by one bulk function.
CHUNK = 500


#: In place of the result of an item that a dict of results lacks.
_NONE = object()


@dataclass(slots=True)
class _Item:
    given: Any
    call: Call
    #: The value that was read under the key.
    first: Any = UNREAD
    claim: Claim = Claim()


class Batch:
    """Many calls of one function; ``receiver`` holds the instance of a method."""

    def __init__(
        self, function: Function, plan: Plan, receiver: tuple[Any, ...], items: Any
    ) -> None:
        iterable = isinstance(items, (Iterable, AsyncIterable))
        if not iterable or isinstance(items, (str, bytes)):
            raise TypeError(
                f"{function.name}.map() and warm() take an iterable of items, not a "
                f"{type(items).__name__}; write [item] for one"
            )
        self.function, self.plan, self.receiver = function, plan, receiver
        #: The number of items, if it is known.
        self.total: int | None = None
        self.done = self.failed = 0
        self.is_async = function.is_async
        self.store = plan.astore if self.is_async else plan.store
        #: The most items that are computed together.
        self.size = 1 if function.many is None else CHUNK

    async def map(self, items: Iterable[Any]) -> Results:
        items, args, keys = self._keyed(items)
        results = Results(keys)
        first = _first_places(keys)
        for chunk in chunks(first, CHUNK):
            seen, error = await self._read(chunk)
            missing = [
                self._item(items[first[key]], args[first[key]], key, raw)
                for key, raw in self._take_hits(chunk, seen, args, first, results)
            ]
            for group in self._groups(missing):
                await self._compute(group, results, error=error)
                error = None  # reported once
        return results

    async def refresh(self, items: Iterable[Any]) -> list[Progress]:
        """Compute and store the items anew; return the progress after each."""
        items, args, keys = self._keyed(items)
        results, steps = Results(keys), []
        places = _first_places(keys).values()
        group = [self._item(items[n], args[n], keys[n]) for n in places]
        await self._compute(group, results, refresh=True)
        for item, key in zip(items, keys, strict=True):
            error = results.errors.get(key)
            self.done += 1
            self.failed += error is not None
            steps.append(Progress(item, error, self.done, self.failed, self.total))
        return steps

    def _keyed(
        self, items: Iterable[Any]
    ) -> tuple[list[Any], list[tuple[Any, ...]], list[str]]:
        items, receiver, key_of = list(items), self.receiver, self.plan.key_of
        # Exactly a tuple: a named tuple is one argument.
        args = [
            (*receiver, *item) if type(item) is tuple else (*receiver, item)
            for item in items
        ]
        return items, args, [key_of(each, {}) for each in args]

    def _item(self, given: Any, args: Any, key: str, first: Any = UNREAD) -> _Item:
        call = Call(self.function, self.plan, self.store, key, args, {})
        return _Item(given, call, first)

    async def _read(self, keys: list[str]) -> tuple[dict[str, Any] | None, Any]:
        """Return the values under the keys, and the error that reading them raised."""
        plan = self.plan
        if not plan.stores or plan.breaker.tripped or live:
            return None, None
        await note_calls(self.function, plan, self.store, keys)
        try:
            if self.is_async:
                return await plan.afetch_many(plan.alias, keys), None
            return plan.fetch_many(plan.alias, keys), None
        except Exception as error:
            return None, error

    def _take_hits(
        self,
        chunk: list[str],
        seen: dict[str, Any] | None,
        args: list[tuple[Any, ...]],
        first: dict[str, int],
        results: Results,
    ) -> list[tuple[str, Any]]:
        """Put the hits into ``results``; return the other keys with the values read."""
        plan, stats, missing = self.plan, self.function.stats, []
        kinds, zone, now = plan.hit_kinds, plan.early_zone, self.function.clock.time()
        longest = plan.longest
        for key in chunk:
            raw = UNREAD if seen is None else seen.get(key)
            try:
                if type(raw) is bytes:
                    start, timeout, cost, kind = freshness(raw[TAIL])
                    age = now - start
                    left = timeout - zone * cost
                    if kind in kinds and AHEAD < age < left <= longest:
                        results.values[key] = loads(raw)
                        if running:
                            inherit(plan, record.parse(raw))
                        stats.served(plan.hit, key, cost, args[first[key]], {})
                        continue
            except Exception:
                pass  # claim() reads it again and handles the error
            missing.append((key, raw))
        return missing

    def _groups(self, missing: list[_Item]) -> Iterator[list[_Item]]:
        """Yield groups to compute together; then, one by one, the items that other
        callers are computing."""
        free = [item for item in missing if not _is_leased(item)]
        yield from chunks(free, self.size)
        yield from chunks([item for item in missing if _is_leased(item)], 1)

    async def _compute(
        self,
        group: list[_Item],
        results: Results,
        *,
        refresh: bool = False,
        error: Any = None,
    ) -> None:
        """Claim, call and settle all of a group."""
        mine: list[_Item] = []
        later: list[_Item] = []
        values, began = None, 0.0
        try:
            if refresh:
                await self._overtake(group, mine)
            else:
                await self._claim(group, results, error, mine, later)
            began = self.function.clock.monotonic()
            if mine:
                with _computing(True, self._share_origins(mine)):
                    # Not in another coroutine: StopIteration would change its meaning.
                    got = self._start(mine)
                    values = self._checked(mine, await got if self.is_async else got)
        except BaseException as raised:
            await self._fail(mine, raised)
            if not isinstance(raised, Exception):
                raise
            settled = {*results.values, *results.errors}
            settled.update(item.call.key for item in later)
            keys = {item.call.key for item in group} - settled
            results.errors |= dict.fromkeys(keys, raised)
        if values is not None:
            took = self.function.clock.monotonic() - began
            await self._settle(mine, values, took, results)
        for item in later:  # no lease is held now
            await self._compute([item], results)

    def _share_origins(self, mine: list[_Item]) -> Origins:
        """Return what collects the origins of all results of a group."""
        every = [item.claim.origins for item in mine]
        if len(every) == 1:
            return every[0]
        one, known = every[0], dict(chain.from_iterable(o.known.items() for o in every))
        shared = Origins(one.alias, known, one.terms, calls=one.calls, reads=one.reads)
        for item in mine:
            item.claim = item.claim._replace(origins=shared)
        return shared

    async def _overtake(self, group: list[_Item], mine: list[_Item]) -> None:
        with _computing(len(group) > 1):
            for item in group:
                item.claim = await overtake(item.call)
                mine.append(item)

    async def _claim(
        self,
        group: list[_Item],
        results: Results,
        error: Any,
        mine: list[_Item],
        later: list[_Item],
    ) -> None:
        """Serve the entries found; put the items to compute now into ``mine``, those
        that other callers are computing into ``later``."""
        several = len(group) > 1
        patient = several and await can_wait(self.store)
        with _computing(several):
            for item in group:
                item.claim = await claim(item.call, item.first, error)
                error = None
                if item.claim.found is not None:
                    await self._serve(item, results)
                elif patient and await self._is_taken(item):
                    later.append(item)
                else:
                    mine.append(item)
        if self.plan.varies:
            for item in mine:
                await self._check_key(item)

    async def _check_key(self, item: _Item) -> None:
        """Give up the right to store if the key has changed: the function may have
        activated another language for an earlier item."""
        if item.claim.lease is not None and item.call.key_now() != item.call.key:
            await release(item.call, item.claim)
            item.claim = item.claim._replace(lease=None)

    async def _is_taken(self, item: _Item) -> bool:
        """Return whether another caller is computing the item, or has just done so."""
        if item.claim.lease is not None or self.store.breaker.tripped:
            return False
        try:
            found = await self.store.get(item.call.key)
        except Exception:
            return False  # claim() has reported such errors
        theirs = record.LEASES | record.ENTRIES
        return isinstance(found, record.Record) and found.kind in theirs

    async def _serve(self, item: _Item, results: Results) -> None:
        call, ours = item.call, item.claim
        if ours.lease is not None:
            if self.is_async:
                ours = await arevalidate(call, ours)
            else:
                ours = revalidate(call, ours)
        try:
            results.values[call.key] = serve(call, ours)
        except Exception as stored:
            results.errors[call.key] = stored

    def _start(self, mine: list[_Item]) -> Any:
        function = self.function
        for item in mine:
            function.stats.missed(item.call.key)
        if function.many is not None:
            return function.many(*self.receiver, [item.given for item in mine])
        return function.func(*mine[0].call.args)

    def _checked(self, mine: list[_Item], got: Any) -> list[Any]:
        """Return the results in the order of the items, or refuse them. A dict may lack
        items, as that of ``in_bulk()`` lacks rows that are gone."""
        if self.function.many is None:
            return [got]
        trouble, found = "", []
        if isinstance(got, Mapping):
            found = [got.get(item.given, _NONE) for item in mine]
            items = {item.given for item in mine}
            if len(items) < len(mine):
                trouble = "a dict for items that are equal, such as 1 and True"
            elif any(r is _NONE for r in found) and not got.keys() <= items:
                trouble = "a dict whose keys are not the items"
        elif isinstance(got, (QuerySet, Set, str)):
            trouble = f"a {type(got).__name__}, whose order is not that of the items"
        else:
            found = list(got)
        if trouble or len(found) != len(mine):
            raise ValueError(
                f"{self.function.name}.many: the function returned "
                f"{trouble or f'{len(found)} results for {len(mine)} items'}; return a "
                "list with one for each item, in the same order, or a dict by item"
            )
        return found

    async def _settle(
        self, mine: list[_Item], values: list[Any], took: float, results: Results
    ) -> None:
        clock = self.function.clock
        for place, item in enumerate(mine):
            # Its share of the cost; but leases have to last for the whole group.
            began = clock.monotonic() - took / len(mine)
            item.claim = item.claim._replace(began=began)
            try:
                if values[place] is _NONE:
                    await self._fail([item], results.lack(item))
                    continue
                await settle(item.call, item.claim, values[place])
                results.values[item.call.key] = values[place]
            except Exception as raised:  # the user's timeout= or cache_if=
                results.errors[item.call.key] = raised
            except BaseException as ended:
                await self._fail(mine[place + 1 :], ended)
                raise
            self.function.slowest = max(self.function.slowest, took)

    async def _fail(self, mine: list[_Item], error: BaseException) -> None:
        """Free the keys. An error of a function for many is not an item's result."""
        if self.function.many is None:
            for item in mine:
                await fail(item.call, item.claim, error)
        elif isinstance(error, GeneratorExit):  # awaiting is not allowed then
            for item in mine:
                release_in_thread(item.call, item.claim)
        else:
            await self.store.shield(_free(mine, error))


async def _free(mine: list[_Item], error: BaseException) -> None:
    # An exception of a function for many is not the result of one item.
    told = None if isinstance(error, Exception) else error
    for item in mine:
        if item.claim.keeps is None:  # readers have the old value
            await release(item.call, item.claim, told)


@contextmanager
def _computing(yes: bool, *origins: Origins) -> Iterator[None]:
    """Return a context in which this caller does not wait for other ones, because it
    computes or holds leases."""
    if not yes:
        yield
        return
    computation = Computation(*origins)
    try:
        yield
    finally:
        computation.end()


def _is_leased(item: _Item) -> bool:
    first, key = item.first, item.call.key
    found = record.parse(first.get(key) if isinstance(first, dict) else first)
    return found is not None and found.kind in record.LEASES


def _first_places(keys: list[str]) -> dict[str, int]:
    """Return each key once, in order, with the index of its first item."""
    found: dict[str, int] = {}
    for place, key in enumerate(keys):
        found.setdefault(key, place)
    return found


class Results:
    """The results and errors of :meth:`Batch.map`, by the keys of the items."""

    def __init__(self, keys: list[str]) -> None:
        self.keys = keys
        self.values: dict[str, Any] = {}
        self.errors: dict[str, Exception] = {}

    def lack(self, item: _Item) -> KeyError:
        """Keep and return the error for an item that the function for many left out."""
        error = KeyError(item.given)
        error.add_note(
            f"{item.call.function.name}.many: the function returned a dict without "
            "this item; return a value for it, such as None, if there is one"
        )
        self.errors[item.call.key] = error
        return error

    def in_order(self, return_exceptions: bool) -> list[Any]:
        """Return the results in the order of the items; raise the first error unless
        ``return_exceptions``."""
        if len(self.values) == len(self.keys):  # no two alike, and no errors
            return [self.values[key] for key in self.keys]
        found, served = [], set()
        for key in self.keys:
            if key in self.errors:
                if not return_exceptions:
                    raise self.errors[key]
                found.append(self.errors[key])
                continue
            # As with single calls, no two results share an object.
            value = self.values[key]
            found.append(_copy(value) if key in served else value)
            served.add(key)
        return found


def _copy(value: Any) -> Any:
    try:
        return record.loads(record.dumps(value))
    except Exception:  # then the value was not stored either
        return value


# --- warm ----------------------------------------------------------------------------


def warm(batch: Batch, items: Iterable[Any]) -> Iterator[Progress]:
    batch.total = len(items) if isinstance(items, Sized) else None
    for chunk in chunks(items, batch.size):
        if batch.is_async:
            yield from async_to_sync(batch.refresh)(chunk)
        else:
            yield from run(batch.refresh(chunk))


async def awarm(
    batch: Batch, items: Iterable[Any] | AsyncIterable[Any]
) -> AsyncIterator[Progress]:
    if isinstance(items, Sized) and not isinstance(items, AsyncIterable):
        batch.total = len(items)  # the len() of a QuerySet would be a query
    async for chunk in achunks(items, batch.size):
        if batch.is_async:
            steps = await batch.refresh(chunk)
        else:
            steps = await sync_to_async(run)(batch.refresh(chunk))
        for step in steps:
            yield step
