"""For type checkers: what an item of ``map``, ``warm`` and their likes may be.

An item is the one argument of a call, or a tuple of its arguments, so its type follows
from the parameters that can be given by position. Python cannot compute with parameter
lists, but a function can be told apart by the calls that it takes: the protocols below
say which. Nothing here does anything when the program runs.
"""

# Which of two protocols fits first is the point.
# mypy: disable-error-code="overload-overlap"

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, overload

__all__ = ["HasItems", "Item"]

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
A_in = TypeVar("A_in", contravariant=True)
B_in = TypeVar("B_in", contravariant=True)
C_in = TypeVar("C_in", contravariant=True)
I = TypeVar("I")  # noqa: E741


class Item(Generic[I]):
    """Stands for the type of an item; there is no object of it."""


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


class HasItems:
    """The first protocol that fits a function says what its items are.

    A default may be left out, so of ``(a, b=1)`` an item is ``a``, ``(a,)`` or ``(a,
    b)``. Keyword-only parameters keep their defaults: no item gives them. Where this
    cannot be written down, an item is Any: from four parameters on, with ``*args``, and
    where a keyword has to be given. It is too generous for a parameter that takes
    tuples: ``(1, 2)`` is two arguments, and ``((1, 2),)`` would be right; but a named
    tuple is one argument, and no type tells the two apart.
    """

    if TYPE_CHECKING:

        @overload
        def _items(self: _Four) -> Item[Any]: ...
        @overload
        def _items(
            self: _From3[A, B, C],
        ) -> Item[tuple[()] | A | tuple[A] | tuple[A, B] | tuple[A, B, C]]: ...
        @overload
        def _items(
            self: _One23[A, B, C],
        ) -> Item[A | tuple[A] | tuple[A, B] | tuple[A, B, C]]: ...
        @overload
        def _items(
            self: _Two3[A, B, C],
        ) -> Item[tuple[A, B] | tuple[A, B, C]]: ...
        @overload
        def _items(self: _Three[A, B, C]) -> Item[tuple[A, B, C]]: ...
        @overload
        def _items(
            self: _From2[A, B],
        ) -> Item[tuple[()] | A | tuple[A] | tuple[A, B]]: ...
        @overload
        def _items(self: _One2[A, B]) -> Item[A | tuple[A] | tuple[A, B]]: ...
        @overload
        def _items(self: _Two[A, B]) -> Item[tuple[A, B]]: ...
        @overload
        def _items(self: _From1[A]) -> Item[tuple[()] | A | tuple[A]]: ...
        @overload
        def _items(self: _One[A]) -> Item[A | tuple[A]]: ...
        @overload
        def _items(self: _None) -> Item[tuple[()]]: ...
        @overload
        def _items(self) -> Item[Any]: ...
        def _items(self) -> Any: ...
