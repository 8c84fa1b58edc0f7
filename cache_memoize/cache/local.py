"""``local="request"``: entries kept for the length of one request or block.

A call that is repeated in a request should not ask the cache again, and must still see
each invalidation that the request makes. Entries are kept as bytes, so that every call
has an object of its own. Each thread and each task has its own memory. A scope holds
all memories of a request, and a key that is written in one of them is dropped from all.
The scope is in a context variable, so copies of the context may outlive it: it is
closed at the end of the request.
"""

from __future__ import annotations

import asyncio
import importlib
from asyncio import _get_running_loop
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import _GeneratorContextManager, contextmanager, suppress
from contextvars import ContextVar
from threading import get_ident
from typing import Any
from weakref import WeakSet

from django.core.signals import request_finished, request_started

from ..keys.tags import is_tag
from .record import KIND_SIZE

__all__ = ["afetching", "drop_key", "fetching", "local", "watch_requests"]

#: Calls per memory, and memories per scope, at most: a block may last for hours.
MOST = 10_000
MOST_OWNERS = 100
#: Bytes that a scope keeps in all its memories, at most.
MOST_BYTES = 16 * 2**20

#: Identifies an entry, as connections.place_of() returns it.
Place = Any
#: By alias and key, then by place: an entry, and the tags of its call.
Memory = dict[tuple[str, str], dict[Place, tuple[bytes, tuple[str, ...]]]]


class Scope:
    """The memories of one request, or of one ``with local():`` block."""

    def __init__(self, outer: Scope | None, *, is_request: bool = False) -> None:
        self.outer = outer
        self.is_request = is_request
        self.closed = False
        #: Replaced whenever an entry is dropped.
        self.generation = object()
        self._memories: dict[Any, Memory] = {}
        #: Bytes that were kept since the memories were last emptied.
        self._size = 0
        #: All scopes around this one and in it, also those of its tasks.
        self.family: WeakSet[Scope] = WeakSet() if outer is None else outer.family
        self.family.add(self)

    def memory(self) -> Memory:
        """Return the memory of the running task, or of this thread."""
        owner: Any = get_ident()
        if _get_running_loop() is not None:  # get_running_loop() would raise: slow
            owner = asyncio.current_task() or owner
        memory = self._memories.get(owner)
        if memory is None:
            if len(self._memories) >= MOST_OWNERS:
                self._memories.clear()
            memory = self._memories.setdefault(owner, {})
        return memory

    def get_entry(self, alias: str, key: str, place: Place) -> bytes | None:
        """Return the entry of a call with these tags, or None."""
        by_place = self.memory().get((alias, key))
        raw, tags = _NOTHING if by_place is None else by_place.get(place, _NOTHING)
        return raw if tags == getattr(key, "all_tags", ()) else None

    def keep_entry(
        self, alias: str, key: str, place: Place, raw: bytes, generation: object
    ) -> None:
        """Keep an entry, unless one was dropped since ``generation``, which is from
        before ``raw`` was read."""
        tags: tuple[str, ...] = getattr(key, "all_tags", ())
        size = len(raw) + 2 * len(key) + sum(map(len, tags))  # the place has the key
        if size > MOST_BYTES:
            return
        self._size += size
        if self._size > MOST_BYTES:
            self._memories.clear()
            self._size = size
        memory = self.memory()
        if len(memory) >= MOST:
            memory.clear()
        memory.setdefault((alias, key), {})[place] = raw, tags
        if self.generation is not generation:  # drop_key() replaces it first
            memory.pop((alias, key), None)

    def drop_key(self, alias: str, key: str) -> None:
        """Drop what is stored under ``key``: an entry, or all entries with a tag."""
        self.generation = object()
        for memory in list(self._memories.values()):
            memory.pop((alias, key), None)
            if is_tag(key):
                for call, by_place in list(memory.items()):
                    if any(key in tags for _, tags in list(by_place.values())):
                        memory.pop(call, None)

    def related_scopes(self) -> list[Scope]:
        while True:
            try:
                return list(self.family)
            except RuntimeError:
                continue  # another thread has just opened a scope

    def close(self) -> None:
        self.closed = True
        self._memories.clear()


_NOTHING: tuple[Any, tuple[str, ...]] = (None, ())

_scope: ContextVar[Scope | None] = ContextVar("cache_memoize_scope", default=None)


def fetching(
    fetch: Callable[[str, Any], Any],
    kinds: Iterable[int],
    place_of: Callable[[str, str], Place],
) -> Callable[..., Any]:
    """Return a function like ``fetch`` that returns known entries from memory."""
    ends = tuple(kind.to_bytes(KIND_SIZE, "little") for kind in kinds)

    def from_memory(alias: str, key: str) -> Any:
        scope = _scope.get()
        if scope is None or scope.closed:
            return fetch(alias, key)
        place = place_of(alias, key)
        raw: Any = scope.get_entry(alias, key, place)
        if raw is None:
            generation = scope.generation
            raw = fetch(alias, key)
            if type(raw) is bytes and raw.endswith(ends):
                scope.keep_entry(alias, key, place, raw, generation)
        return raw

    return from_memory


def afetching(
    fetch: Callable[[str, Any], Awaitable[Any]],
    kinds: Iterable[int],
    place_of: Callable[[str, str], Place],
) -> Callable[..., Awaitable[Any]]:
    """:func:`fetching` for async functions."""
    ends = tuple(kind.to_bytes(KIND_SIZE, "little") for kind in kinds)

    async def from_memory(alias: str, key: str) -> Any:
        scope = _scope.get()
        if scope is None or scope.closed:
            return await fetch(alias, key)
        place = place_of(alias, key)
        if place is None:
            return await fetch(alias, key)
        raw: Any = scope.get_entry(alias, key, place)
        if raw is None:
            generation = scope.generation
            raw = await fetch(alias, key)
            if type(raw) is bytes and raw.endswith(ends):
                scope.keep_entry(alias, key, place, raw, generation)
        return raw

    return from_memory


def drop_key(alias: str, key: str) -> None:
    """Drop what is known of ``key``, for all tenants: it was written."""
    scope = _scope.get()
    for each in () if scope is None else scope.related_scopes():
        each.drop_key(alias, key)


def local(*wrong: object) -> _GeneratorContextManager[None]:
    """Open a block in which functions with ``local="request"`` ask the cache once per
    call, as in a request. For code outside of requests: a command, a Celery task."""
    if wrong:
        raise TypeError("local() takes no argument (did you mean @local()?)")
    return _local()


@contextmanager
def _local() -> Iterator[None]:
    scope = Scope(_scope.get())
    before = _scope.set(scope)
    try:
        yield
    finally:
        scope.close()
        with suppress(ValueError):  # an async generator was closed by another context
            _scope.reset(before)


def _begin_request(**kwargs: Any) -> None:
    _end_request()  # of a request without a signal at its end
    _scope.set(Scope(_scope.get(), is_request=True))


def _end_request(**kwargs: Any) -> None:
    """Close the request, and the blocks in it: a generator may have left one open."""
    inner, scope = [], _scope.get()
    while scope is not None:
        inner.append(scope)
        if scope.is_request:
            for each in inner:
                each.close()
            _scope.set(scope.outer)
            return
        scope = scope.outer


def watch_requests() -> None:
    """Open a scope for each request, and each task of ``django.tasks``."""
    signals = [(request_started, request_finished)]
    with suppress(ImportError):  # Django 6
        tasks = importlib.import_module("django.tasks.signals")
        signals.append((tasks.task_started, tasks.task_finished))
    for started, finished in signals:
        started.connect(_begin_request, dispatch_uid="cache_memoize.local")
        finished.connect(_end_request, dispatch_uid="cache_memoize.local")
