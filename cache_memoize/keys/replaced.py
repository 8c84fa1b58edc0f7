"""Classes and functions in whose place another one is, and mocks. Pure.

A test patches ``shop.Service``, or a shell reloads ``shop``: then the name of the class
does not lead to it any more, and it still is the class of that name.
"""

from __future__ import annotations

import types
import uuid
from typing import Any

__all__ = ["is_mock", "mock_token", "replaces"]


def replaces(named: Any, value: Any) -> bool:
    """Return whether ``named`` is in the place of a class or function: the same one,
    after its module was reloaded, or a mock."""
    if "<locals>" in value.__qualname__:
        return False
    if is_mock(type(named)) or is_mock(type(getattr(named, "mock", None))):
        return True
    return type(named) is type(value) and _definition(named) == _definition(value)


#: Types of values that are compared; a list of them by its members.
_PLAIN = {bool, bytes, float, int, str, type(None)}


def _definition(value: Any) -> Any:
    """Return what tells a class or function from others of its name: bases, code, what
    a function holds, and the attributes of a class."""
    if isinstance(value, types.FunctionType):
        if "_memoized" in vars(value):
            return _definition(vars(value)["_memoized"].func)
        return value.__code__, _held(value)
    bases = [(base.__module__, base.__qualname__) for base in value.__mro__]
    members = {
        name: _code_of(each) or _text_of(each)
        for name, each in vars(value).items()
        if _code_of(each) or not name.startswith("__")
    }
    return bases, members


def _held(function: types.FunctionType) -> Any:
    """Return defaults and captured variables: plain values as text, the function that a
    decorator wraps by what it holds, other objects by identity."""
    inner = getattr(function, "__wrapped__", None)
    defaults = function.__defaults__, sorted((function.__kwdefaults__ or {}).items())
    found: list[Any] = [_text_of(each, id) for each in defaults]
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    for name, cell in cells:
        try:
            held = cell.cell_contents
        except ValueError:  # not assigned yet
            held = None
        if held is inner and isinstance(held, types.FunctionType):
            found.append(_definition(held))
        elif name != "__class__":  # captured by super()
            found.append(_text_of(held, id))
    return found


def _text_of(value: Any, other: Any = lambda value: type(value).__qualname__) -> Any:
    if type(value) in (list, tuple):
        return type(value), [_text_of(each, other) for each in value]
    if isinstance(value, type):
        return value.__module__, value.__qualname__
    return repr(value) if type(value) in _PLAIN else other(value)


def _code_of(member: Any) -> Any:
    if isinstance(member, property):
        member = member.fget
    if isinstance(member, (types.FunctionType, classmethod, staticmethod)):
        return getattr(getattr(member, "__wrapped__", member), "__code__", None)
    return None


def is_mock(cls: type) -> bool:
    """Return whether it is a class of a mock: each mock has a class of its own."""
    return any(base.__name__ == "NonCallableMock" for base in cls.__mro__)


def mock_token(value: Any) -> Any:
    """Return a text that no other mock has, of any process."""
    return vars(value).setdefault("_cache_memoize_key", uuid.uuid4().hex)
