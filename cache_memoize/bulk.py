"""The controls of a memoized function that take many calls at once."""

from __future__ import annotations

import inspect
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
    Sized,
)
from typing import Any, Generic, Literal, ParamSpec, TypeVar, overload

from asgiref.sync import async_to_sync, sync_to_async

from .cache.store import run
from .protocol.many import Batch
from .protocol.progress import (
    Progress,
    Steps,
    achunks,
    aiterate,
    chunks,
)

__all__ = ["Bulk", "Results"]

Q = ParamSpec("Q")
T = TypeVar("T")

#: An item is the one argument of a call, or a tuple of its arguments.
Items = Iterable[Any] | AsyncIterable[Any]
#: What a function for :meth:`Bulk.many` gives.
Results = Sequence[T] | Mapping[Any, T]


class Bulk(Generic[T]):
    """A part of :class:`Memoized`: ``map``, ``warm``, and ``many`` for both."""

    _core: Any
    func: Any
    args: Any

    @overload
    def map(
        self, items: Iterable[Any], /, *, return_exceptions: Literal[False] = False
    ) -> list[T]: ...
    @overload
    def map(
        self, items: Iterable[Any], /, *, return_exceptions: bool
    ) -> list[T | Exception]: ...
    def map(self, items: Iterable[Any], /, *, return_exceptions: bool = False) -> Any:
        """The results for many items, in order. An item is the argument of a call, or
        a tuple of its arguments.

        Hits are read together, 500 by one command of the cache; what is missing is
        computed, one after the other, or by the function given to :meth:`many`. Equal
        items are computed once. If some raise, the others are computed and stored all
        the same; then the first error is raised.

        :param return_exceptions: put errors into the list in place of results.
        """
        batch = Batch(self._core, self.args, items)
        if batch.is_async:  # what gives the items is sync code
            return async_to_sync(batch.map)(list(items)).get(return_exceptions)
        return run(batch.map(items)).get(return_exceptions)

    @overload
    async def amap(
        self, items: Items, /, *, return_exceptions: Literal[False] = False
    ) -> list[T]: ...
    @overload
    async def amap(
        self, items: Items, /, *, return_exceptions: bool
    ) -> list[T | Exception]: ...
    async def amap(self, items: Items, /, *, return_exceptions: bool = False) -> Any:
        batch = Batch(self._core, self.args, items)
        if batch.is_async:
            found = await batch.map([item async for item in aiterate(items)])
            return found.get(return_exceptions)
        given = [item async for item in aiterate(items)]
        sync_map: Any = sync_to_async(self.map)
        return await sync_map(given, return_exceptions=return_exceptions)

    def warm(self, items: Iterable[Any], /) -> Iterable[Progress]:
        """Refresh many items, as in :meth:`map`, and say after each how far it is.

        An iterator: nothing is done before somebody loops over it. What the function
        raises is part of the :class:`Progress`, and the next item follows.
        """
        batch = Batch(self._core, self.args, items)
        return Steps(batch.memo.name, _warm(batch, items))

    def awarm(self, items: Items, /) -> AsyncIterable[Progress]:
        batch = Batch(self._core, self.args, items)
        return Steps(batch.memo.name, _awarm(batch, items))

    # What the function returns can be checked, but not what it takes: the items have
    # the form in which they are given to map(), and a method has its instance before
    # them, which nothing tells apart from an argument while the class is being made.
    @overload
    def many(self, function: Callable[Q, list[T]], /) -> Callable[Q, list[T]]: ...
    @overload
    def many(self, function: Callable[Q, Results[T]], /) -> Callable[Q, Results[T]]: ...
    def many(self, function: Any, /) -> Any:
        """Register what computes many items at once, for :meth:`map` and :meth:`warm`.

        It takes a list of items and gives a list of their results in the same order, or
        a dict from item to result; for a method, the instance comes first. It is a
        coroutine function if the memoized function is one. Use it as a decorator.
        """
        core = self.func.core  # registering reads no settings
        if not callable(function):
            raise TypeError(
                f"{core.name}.many takes a function of a list of items, not a "
                f"{type(function).__name__}; put @{core.name}.many above its def"
            )
        if inspect.iscoroutinefunction(function) != inspect.iscoroutinefunction(
            core.function
        ):
            raise TypeError(
                f"{core.name}.many: this function and the memoized one must both be "
                "coroutine functions, or neither; change one of them"
            )
        core.many = function
        return function


def _warm(batch: Batch, items: Iterable[Any]) -> Iterator[Progress]:
    batch.total = len(items) if isinstance(items, Sized) else None
    for chunk in chunks(items, batch.size):
        if batch.is_async:
            yield from async_to_sync(batch.refresh)(chunk)
        else:
            yield from run(batch.refresh(chunk))


async def _awarm(batch: Batch, items: Items) -> AsyncIterator[Progress]:
    if isinstance(items, Sized) and not isinstance(items, AsyncIterable):
        batch.total = len(items)  # that of a QuerySet would be a query
    async for chunk in achunks(items, batch.size):
        if batch.is_async:
            steps = await batch.refresh(chunk)
        else:
            steps = await sync_to_async(run)(batch.refresh(chunk))
        for step in steps:
            yield step
