"""Memoized methods, whose controls know the instance.

``@cache_memoize`` returns a function, with the controls as its attributes. But accessed
on an instance, a function becomes a plain bound method, whose attributes are those of
the function: ``obj.m.invalidate(x)`` would not know ``obj``. So in a class body the
decorator returns a :class:`MemoizedMethod`. Accessed on the class, it returns the
function; accessed on an instance, a :class:`BoundMethod`, whose controls know it.
"""

from __future__ import annotations

import functools
import inspect
import types
import warnings
from typing import Any, ParamSpec, TypeVar

from .hints import OTHER_CONTROLS, refused_control
from .memoized import CONTROLS, Memoized
from .protocol.call import Function

__all__ = [
    "BoundMethod",
    "MemoizedClassMethod",
    "MemoizedMethod",
    "attach",
    "is_in_class_body",
]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


def is_in_class_body(function: Any) -> bool:
    """Return whether a function was defined in a class body, by its qualified name."""
    owner = getattr(function, "__qualname__", "").rpartition(".")[0]
    return bool(owner) and not owner.endswith("<locals>")


class MemoizedMethod:
    """A memoized function in a class body.

    It has the attributes of the function, and sets attributes on both: so the order of
    decorators that set attributes (``@admin.display``) does not matter.
    """

    def __init__(self, wrapper: Any) -> None:
        names = ("__module__", "__name__", "__qualname__", "__doc__")
        own = {name: getattr(wrapper, name) for name in names}
        self.__dict__.update(vars(wrapper), **own, _wrapper=wrapper)

    #: A function, for code that inspects class bodies (pydantic, mock.patch).
    __class__: Any = property(lambda self: types.FunctionType)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._wrapper(*args, **kwargs)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return (
            self._wrapper if instance is None else BoundMethod(self._wrapper, instance)
        )

    def __set_name__(self, owner: type, name: str) -> None:
        """Learn the class; called only if no other decorator is above."""
        memoized = self._wrapper._memoized
        memoized.owner = owner
        memoized.needs_class = isinstance(self, MemoizedClassMethod)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_wrapper"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        self.__dict__[name] = value
        setattr(self._wrapper, name, value)


class MemoizedClassMethod(MemoizedMethod):
    """A memoized classmethod: bound to the class."""

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return BoundMethod(self._wrapper, type(instance) if owner is None else owner)


class BoundMethod(functools.partial, Memoized[P, R, T]):  # type: ignore[type-arg]
    """A memoized method bound to its instance (or class).

    It is a ``functools.partial`` of the function, so that calls go through C.
    """

    __doc__ = property(lambda self: self.func.__doc__)

    @property
    def _memoized(self) -> Function:  # type: ignore[override]
        return self.func._memoized  # type: ignore[attr-defined, no-any-return]

    @property
    def _receiver(self) -> tuple[Any, ...]:  # type: ignore[override]
        return self.args

    def _whole_arguments(self, args: Any, kwargs: Any) -> list[tuple[Any, ...]]:
        """Return the arguments with the instance.

        Code for version 0.2.1 passes it again: obj.m.invalidate(obj, 1). If that fits
        both as the instance and as an argument, two calls may be meant.
        """
        whole, function = (*self.args, *args), self._memoized
        again = bool(args) and args[0] is self.args[0]
        if not (again or function.fits_placeholder(args, kwargs)):
            return [whole]
        if not function.binder.fits(args, kwargs):
            return [whole]
        if function.binder.fits(whole, kwargs):
            return [whole, args]
        warnings.warn(
            f"{function.name}: the control of a bound method knows its instance; "
            f"write obj.{self.func.__name__}.invalidate(...) without it",
            DeprecationWarning,
            stacklevel=5,
        )
        return [args]

    def __getattr__(self, name: str) -> Any:
        # All others are the function's: __name__, attributes set by other decorators.
        if name == "__wrapped__":
            return getattr(self.func, name).__get__(self.args[0])
        return getattr(self.func, name)

    @property
    def __self__(self) -> Any:
        return self.args[0]

    @property
    def __func__(self) -> Any:
        return self.func

    @property
    def __signature__(self) -> inspect.Signature:
        signature = inspect.signature(self.func)
        parameters = list(signature.parameters.values())[1:]
        return signature.replace(parameters=parameters)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, BoundMethod):
            return NotImplemented
        return self.func is other.func and self.args[0] is other.args[0]

    def __hash__(self) -> int:
        return hash((self.func, id(self.args[0])))

    def __reduce__(self) -> Any:
        return getattr, (self.args[0], self.func.__name__)

    def __repr__(self) -> str:
        return f"<memoized {self._memoized.name} at {id(self):#x}>"


class _Unbound(Memoized[P, R, T]):
    def __init__(self, function: Function) -> None:
        self._memoized = function


def attach(wrapper: Any, function: Function) -> None:
    """Set the controls as attributes of the wrapper that callers call."""
    controls: Memoized[..., Any, Any] = _Unbound(function)
    wrapper._memoized = function
    for name in CONTROLS:
        setattr(wrapper, name, getattr(controls, name))
    for name in OTHER_CONTROLS:
        refused = refused_control(function.name, name)
        setattr(wrapper, name, types.MethodType(refused, controls))
    function.wrapper = wrapper
