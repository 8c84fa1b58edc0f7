"""The progress of many calls, and the chunks that they are made in. Pure."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from itertools import islice
from typing import Any, Generic, NamedTuple, TypeVar

__all__ = ["Progress", "Steps", "achunks", "aiterate", "chunks"]

T = TypeVar("T")


class Progress(NamedTuple):
    """The progress of :meth:`warm` after one item."""

    #: The item that was refreshed last.
    item: Any
    #: The error that the function raised for it, if any.
    error: Exception | None
    done: int
    #: The number of the ``done`` items for which the function raised.
    failed: int
    #: The number of all items; None if it is not known before the end.
    total: int | None


class _Begun(Generic[T]):
    def __init__(self, name: str, steps: T) -> None:
        self.name = name
        self.steps = steps

    def __iter__(self) -> T:
        # Without __del__ from now on: Python drops a Ctrl-C that comes there.
        self.__class__ = _Begun
        return self.steps

    __aiter__ = __iter__

    def __next__(self) -> Progress:
        steps: Any = self.__iter__()
        return next(steps)  # type: ignore[no-any-return]


class Steps(_Begun[T]):
    """The iterator of ``warm``. Warns if it is dropped before it was iterated over."""

    def __del__(self) -> None:
        warnings.warn(
            f"{self.name}.warm() did nothing, because it was not iterated over; "
            "write 'for step in ...'",
            RuntimeWarning,
            stacklevel=2,
        )


# --- chunks --------------------------------------------------------------------------


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while chunk := list(islice(rest, size)):
        yield chunk


async def achunks(
    items: Iterable[T] | AsyncIterable[T], size: int
) -> AsyncIterator[list[T]]:
    chunk = []
    async for item in aiterate(items):
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


async def aiterate(items: Iterable[T] | AsyncIterable[T]) -> AsyncIterator[T]:
    """Iterate over items of either kind; asynchronously if they can, as a QuerySet."""
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item
