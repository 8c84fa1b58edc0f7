"""``local="request"``: a memory for the length of one request, before the shared cache.

It holds entries as bytes, so that every call has an object of its own. Each thread and
each task has its own memory; one scope knows all of them, so that whatever is written
under a key anywhere in a request is forgotten in the whole of it.
"""

from __future__ import annotations

import asyncio
import importlib
from asyncio import _get_running_loop
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from threading import get_ident
from typing import Any
from weakref import WeakSet

from django.core.signals import request_finished, request_started

from ..keys.tags import is_tag
from .record import KIND_SIZE

__all__ = ["afetching", "fetching", "forget", "local", "watch_requests"]

#: A command in a block may make calls, and start tasks, without end.
MOST = 10_000
MOST_OWNERS = 100

#: What tells a key from all others, as clients.place_of() knows it.
Place = Any
#: By alias and key, and by place: an entry, and the tags that its call had.
Memory = dict[tuple[str, str], dict[Place, tuple[bytes, tuple[str, ...]]]]


class Scope:
    """What lives as long as a request, or a ``with local():`` block."""

    def __init__(self, outer: Scope | None, *, is_request: bool = False) -> None:
        self.outer = outer
        self.is_request = is_request
        #: Contexts that were copied from this one may outlive it.
        self.closed = False
        #: Another one after everything that is forgotten.
        self.generation = object()
        self._memories: dict[Any, Memory] = {}
        #: All scopes around it and in it, those of its tasks too.
        self.family: WeakSet[Scope] = WeakSet() if outer is None else outer.family
        self.family.add(self)

    def memory(self) -> Memory:
        """That of the running task, or of this thread."""
        owner: Any = get_ident()
        if _get_running_loop() is not None:
            owner = asyncio.current_task() or owner
        memory = self._memories.get(owner)
        if memory is None:
            if len(self._memories) >= MOST_OWNERS:
                self._memories.clear()
            memory = self._memories.setdefault(owner, {})
        return memory

    def recall(self, alias: str, key: str, place: Place) -> bytes | None:
        """What was remembered there of a call with these tags."""
        there = self.memory().get((alias, key))
        raw, tags = _NOTHING if there is None else there.get(place, _NOTHING)
        return raw if tags == getattr(key, "tags", ()) else None

    def remember(
        self, alias: str, key: str, place: Place, raw: bytes, generation: object
    ) -> None:
        """``generation``: that from before ``raw`` was read."""
        memory = self.memory()
        if len(memory) >= MOST:
            memory.clear()
        memory.setdefault((alias, key), {})[place] = raw, getattr(key, "tags", ())
        if self.generation is not generation:  # after: who forgets changes it first
            memory.pop((alias, key), None)

    def forget(self, alias: str, key: str) -> None:
        self.generation = object()
        for memory in list(self._memories.values()):
            memory.pop((alias, key), None)
            if is_tag(key):
                for call, there in list(memory.items()):
                    if any(key in tags for _, tags in list(there.values())):
                        memory.pop(call, None)

    def relatives(self) -> list[Scope]:
        while True:
            try:
                return list(self.family)
            except RuntimeError:
                continue  # another thread has just opened one

    def close(self) -> None:
        self.closed = True
        self._memories.clear()


_NOTHING: tuple[Any, tuple[str, ...]] = (None, ())

_scope: ContextVar[Scope | None] = ContextVar("cache_memoize_scope", default=None)


def fetching(
    fetch: Callable[[str, Any], Any], plain: int, place_of: Callable[[str, str], Place]
) -> Callable[..., Any]:
    """``fetch``, asked only for what this request has not seen yet."""
    kind = plain.to_bytes(KIND_SIZE, "little")

    def from_memory(alias: str, key: str) -> Any:
        scope = _scope.get()
        if scope is None or scope.closed:
            return fetch(alias, key)
        place = place_of(alias, key)
        raw: Any = scope.recall(alias, key, place)
        if raw is None:
            generation = scope.generation
            raw = fetch(alias, key)
            if type(raw) is bytes and raw.endswith(kind):
                scope.remember(alias, key, place, raw, generation)
        return raw

    return from_memory


def afetching(
    fetch: Callable[[str, Any], Awaitable[Any]],
    plain: int,
    place_of: Callable[[str, str], Place],
) -> Callable[..., Awaitable[Any]]:
    """:func:`fetching` for async functions."""
    kind = plain.to_bytes(KIND_SIZE, "little")

    async def from_memory(alias: str, key: str) -> Any:
        scope = _scope.get()
        if scope is None or scope.closed:
            return await fetch(alias, key)
        place = place_of(alias, key)
        if place is None:
            return await fetch(alias, key)
        raw: Any = scope.recall(alias, key, place)
        if raw is None:
            generation = scope.generation
            raw = await fetch(alias, key)
            if type(raw) is bytes and raw.endswith(kind):
                scope.remember(alias, key, place, raw, generation)
        return raw

    return from_memory


def forget(alias: str, key: str) -> None:
    """Something was written under this key, for whichever tenant."""
    scope = _scope.get()
    for each in () if scope is None else scope.relatives():
        each.forget(alias, key)


@contextmanager
def local() -> Iterator[None]:
    """A block in which functions with ``local="request"`` ask the shared cache once per
    call, as in a request. For what runs outside of one: a command, a Celery task."""
    scope = Scope(_scope.get())
    before = _scope.set(scope)
    try:
        yield
    finally:
        scope.close()
        with suppress(ValueError):  # an async generator was closed by another context
            _scope.reset(before)


# --- requests ------------------------------------------------------------------------


def _begin(**kwargs: Any) -> None:
    _end()  # of a request whose end nobody told
    _scope.set(Scope(_scope.get(), is_request=True))


def _end(**kwargs: Any) -> None:
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
    """Requests, and tasks of ``django.tasks``, are scopes from now on."""
    signals = [(request_started, request_finished)]
    with suppress(ImportError):  # Django 6
        tasks = importlib.import_module("django.tasks.signals")
        signals.append((tasks.task_started, tasks.task_finished))
    for started, finished in signals:
        started.connect(_begin, dispatch_uid="cache_memoize.local")
        finished.connect(_end, dispatch_uid="cache_memoize.local")
