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


def _definition(value: Any) -> Any:
    """Return what tells a class or function from others of its name: bases, code, and
    the names of attributes."""
    if isinstance(value, types.FunctionType):
        return value.__code__
    members = {name: _code_of(each) for name, each in vars(value).items()}
    bases = [(base.__module__, base.__qualname__) for base in value.__mro__]
    return bases, {k: v for k, v in members.items() if v or not k.startswith("__")}


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
