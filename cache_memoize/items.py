"""For type checkers: what an item of ``map``, ``warm`` and their likes may be.

An item is the one argument of a call, or a tuple of its arguments, so its type follows
from the parameters that can be given by position. Python cannot compute with parameter
lists, but a function can be told apart by the calls that it takes: the protocols below
say which, and the first one that fits a function says what its items are.

A default may be left out, so of ``(a, b=1)`` an item is ``a``, ``(a,)`` or ``(a, b)``.
Keyword-only parameters keep their defaults: no item gives them. Where this cannot be
written down, an item is Any: from four parameters on, with ``*args``, and where a
keyword has to be given. It is too generous for a parameter that takes tuples: ``(1,
2)`` is two arguments, and ``((1, 2),)`` would be right; but a named tuple is one
argument, and no type tells the two apart.

The overloads are the same four times: no type can stand for a control of unknown items.
Nothing here does anything when the program runs.
"""

# Which of two protocols fits first is the point.
# mypy: disable-error-code="overload-overlap"

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Coroutine, Iterable
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    Literal,
    Protocol,
    TypeVar,
    overload,
)

from .protocol.progress import Progress

__all__ = ["amap_control", "awarm_control", "map_control", "warm_control"]

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
T = TypeVar("T")
A_in = TypeVar("A_in", contravariant=True)
B_in = TypeVar("B_in", contravariant=True)
C_in = TypeVar("C_in", contravariant=True)
I_in = TypeVar("I_in", contravariant=True)


# --- calls that a function takes -----------------------------------------------------
# _One23: with one, two or three arguments; _From1: with none or one; and so on.


class _Four(Protocol):
    def __call__(self, a: Any, b: Any, c: Any, d: Any, /) -> object: ...


class _From3(Protocol[A_in, B_in, C_in]):
    def __call__(self, a: A_in = ..., b: B_in = ..., c: C_in = ..., /) -> object: ...


class _One23(Protocol[A_in, B_in, C_in]):
    def __call__(self, a: A_in, b: B_in = ..., c: C_in = ..., /) -> object: ...


class _Two3(Protocol[A_in, B_in, C_in]):
    def __call__(self, a: A_in, b: B_in, c: C_in = ..., /) -> object: ...


class _Three(Protocol[A_in, B_in, C_in]):
    def __call__(self, a: A_in, b: B_in, c: C_in, /) -> object: ...


class _From2(Protocol[A_in, B_in]):
    def __call__(self, a: A_in = ..., b: B_in = ..., /) -> object: ...


class _One2(Protocol[A_in, B_in]):
    def __call__(self, a: A_in, b: B_in = ..., /) -> object: ...


class _Two(Protocol[A_in, B_in]):
    def __call__(self, a: A_in, b: B_in, /) -> object: ...


class _From1(Protocol[A_in]):
    def __call__(self, a: A_in = ..., /) -> object: ...


class _One(Protocol[A_in]):
    def __call__(self, a: A_in, /) -> object: ...


class _None(Protocol):
    def __call__(self) -> object: ...


# --- the controls --------------------------------------------------------------------


class _Map(Protocol[I_in, T]):
    @overload
    def __call__(
        self, items: Iterable[I_in], /, *, return_exceptions: Literal[False] = False
    ) -> list[T]: ...
    @overload
    def __call__(
        self, items: Iterable[I_in], /, *, return_exceptions: bool
    ) -> list[T | Exception]: ...


class _AMap(Protocol[I_in, T]):
    @overload
    async def __call__(
        self,
        items: Iterable[I_in] | AsyncIterable[I_in],
        /,
        *,
        return_exceptions: Literal[False] = False,
    ) -> list[T]: ...
    @overload
    async def __call__(
        self,
        items: Iterable[I_in] | AsyncIterable[I_in],
        /,
        *,
        return_exceptions: bool,
    ) -> list[T | Exception]: ...


class _Warm(Protocol[I_in]):
    def __call__(self, items: Iterable[I_in], /) -> Iterable[Progress]: ...


class _AWarm(Protocol[I_in]):
    def __call__(
        self, items: Iterable[I_in] | AsyncIterable[I_in], /
    ) -> AsyncIterable[Progress]: ...


if TYPE_CHECKING:

    class MapControl(Generic[T]):
        @overload
        def __get__(self, f: _Four, owner: Any) -> _Map[Any, T]: ...
        @overload
        def __get__(
            self, f: _From3[A, B, C], owner: Any
        ) -> _Map[tuple[()] | A | tuple[A] | tuple[A, B] | tuple[A, B, C], T]: ...
        @overload
        def __get__(
            self, f: _One23[A, B, C], owner: Any
        ) -> _Map[A | tuple[A] | tuple[A, B] | tuple[A, B, C], T]: ...
        @overload
        def __get__(
            self, f: _Two3[A, B, C], owner: Any
        ) -> _Map[tuple[A, B] | tuple[A, B, C], T]: ...
        @overload
        def __get__(
            self, f: _Three[A, B, C], owner: Any
        ) -> _Map[tuple[A, B, C], T]: ...
        @overload
        def __get__(
            self, f: _From2[A, B], owner: Any
        ) -> _Map[tuple[()] | A | tuple[A] | tuple[A, B], T]: ...
        @overload
        def __get__(
            self, f: _One2[A, B], owner: Any
        ) -> _Map[A | tuple[A] | tuple[A, B], T]: ...
        @overload
        def __get__(self, f: _Two[A, B], owner: Any) -> _Map[tuple[A, B], T]: ...
        @overload
        def __get__(
            self, f: _From1[A], owner: Any
        ) -> _Map[tuple[()] | A | tuple[A], T]: ...
        @overload
        def __get__(self, f: _One[A], owner: Any) -> _Map[A | tuple[A], T]: ...
        @overload
        def __get__(self, f: _None, owner: Any) -> _Map[tuple[()], T]: ...
        @overload
        def __get__(self, f: object, owner: Any) -> _Map[Any, T]: ...
        def __get__(self, f: Any, owner: Any) -> Any: ...

    class AMapControl(Generic[T]):
        @overload
        def __get__(self, f: _Four, owner: Any) -> _AMap[Any, T]: ...
        @overload
        def __get__(
            self, f: _From3[A, B, C], owner: Any
        ) -> _AMap[tuple[()] | A | tuple[A] | tuple[A, B] | tuple[A, B, C], T]: ...
        @overload
        def __get__(
            self, f: _One23[A, B, C], owner: Any
        ) -> _AMap[A | tuple[A] | tuple[A, B] | tuple[A, B, C], T]: ...
        @overload
        def __get__(
            self, f: _Two3[A, B, C], owner: Any
        ) -> _AMap[tuple[A, B] | tuple[A, B, C], T]: ...
        @overload
        def __get__(
            self, f: _Three[A, B, C], owner: Any
        ) -> _AMap[tuple[A, B, C], T]: ...
        @overload
        def __get__(
            self, f: _From2[A, B], owner: Any
        ) -> _AMap[tuple[()] | A | tuple[A] | tuple[A, B], T]: ...
        @overload
        def __get__(
            self, f: _One2[A, B], owner: Any
        ) -> _AMap[A | tuple[A] | tuple[A, B], T]: ...
        @overload
        def __get__(self, f: _Two[A, B], owner: Any) -> _AMap[tuple[A, B], T]: ...
        @overload
        def __get__(
            self, f: _From1[A], owner: Any
        ) -> _AMap[tuple[()] | A | tuple[A], T]: ...
        @overload
        def __get__(self, f: _One[A], owner: Any) -> _AMap[A | tuple[A], T]: ...
        @overload
        def __get__(self, f: _None, owner: Any) -> _AMap[tuple[()], T]: ...
        @overload
        def __get__(self, f: object, owner: Any) -> _AMap[Any, T]: ...
        def __get__(self, f: Any, owner: Any) -> Any: ...

    class WarmControl:
        @overload
        def __get__(self, f: _Four, owner: Any) -> _Warm[Any]: ...
        @overload
        def __get__(
            self, f: _From3[A, B, C], owner: Any
        ) -> _Warm[tuple[()] | A | tuple[A] | tuple[A, B] | tuple[A, B, C]]: ...
        @overload
        def __get__(
            self, f: _One23[A, B, C], owner: Any
        ) -> _Warm[A | tuple[A] | tuple[A, B] | tuple[A, B, C]]: ...
        @overload
        def __get__(
            self, f: _Two3[A, B, C], owner: Any
        ) -> _Warm[tuple[A, B] | tuple[A, B, C]]: ...
        @overload
        def __get__(self, f: _Three[A, B, C], owner: Any) -> _Warm[tuple[A, B, C]]: ...
        @overload
        def __get__(
            self, f: _From2[A, B], owner: Any
        ) -> _Warm[tuple[()] | A | tuple[A] | tuple[A, B]]: ...
        @overload
        def __get__(
            self, f: _One2[A, B], owner: Any
        ) -> _Warm[A | tuple[A] | tuple[A, B]]: ...
        @overload
        def __get__(self, f: _Two[A, B], owner: Any) -> _Warm[tuple[A, B]]: ...
        @overload
        def __get__(
            self, f: _From1[A], owner: Any
        ) -> _Warm[tuple[()] | A | tuple[A]]: ...
        @overload
        def __get__(self, f: _One[A], owner: Any) -> _Warm[A | tuple[A]]: ...
        @overload
        def __get__(self, f: _None, owner: Any) -> _Warm[tuple[()]]: ...
        @overload
        def __get__(self, f: object, owner: Any) -> _Warm[Any]: ...
        def __get__(self, f: Any, owner: Any) -> Any: ...

    class AWarmControl:
        @overload
        def __get__(self, f: _Four, owner: Any) -> _AWarm[Any]: ...
        @overload
        def __get__(
            self, f: _From3[A, B, C], owner: Any
        ) -> _AWarm[tuple[()] | A | tuple[A] | tuple[A, B] | tuple[A, B, C]]: ...
        @overload
        def __get__(
            self, f: _One23[A, B, C], owner: Any
        ) -> _AWarm[A | tuple[A] | tuple[A, B] | tuple[A, B, C]]: ...
        @overload
        def __get__(
            self, f: _Two3[A, B, C], owner: Any
        ) -> _AWarm[tuple[A, B] | tuple[A, B, C]]: ...
        @overload
        def __get__(self, f: _Three[A, B, C], owner: Any) -> _AWarm[tuple[A, B, C]]: ...
        @overload
        def __get__(
            self, f: _From2[A, B], owner: Any
        ) -> _AWarm[tuple[()] | A | tuple[A] | tuple[A, B]]: ...
        @overload
        def __get__(
            self, f: _One2[A, B], owner: Any
        ) -> _AWarm[A | tuple[A] | tuple[A, B]]: ...
        @overload
        def __get__(self, f: _Two[A, B], owner: Any) -> _AWarm[tuple[A, B]]: ...
        @overload
        def __get__(
            self, f: _From1[A], owner: Any
        ) -> _AWarm[tuple[()] | A | tuple[A]]: ...
        @overload
        def __get__(self, f: _One[A], owner: Any) -> _AWarm[A | tuple[A]]: ...
        @overload
        def __get__(self, f: _None, owner: Any) -> _AWarm[tuple[()]]: ...
        @overload
        def __get__(self, f: object, owner: Any) -> _AWarm[Any]: ...
        def __get__(self, f: Any, owner: Any) -> Any: ...


# --- what turns a method into a control ----------------------------------------------


def map_control(method: Callable[..., list[T]]) -> MapControl[T]:
    return method  # type: ignore[return-value]


def amap_control(
    method: Callable[..., Coroutine[Any, Any, list[T]]],
) -> AMapControl[T]:
    return method  # type: ignore[return-value]


def warm_control(method: Callable[..., Iterable[Progress]]) -> WarmControl:
    return method  # type: ignore[return-value]


def awarm_control(method: Callable[..., AsyncIterable[Progress]]) -> AWarmControl:
    return method  # type: ignore[return-value]
