"""Classes and functions in whose place another one is, and mocks. Pure.

A test patches ``shop.Service``, or a shell reloads ``shop``: then the name of the class
does not lead to it any more, and it still is the class of that name.
"""

from __future__ import annotations

import copyreg
import re
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
    return _are_alike(named, value, {})


_PLAIN = {bool, bytes, float, int, str, type(None)}
#: Attributes of classes that say nothing about them, or not in every process.
_SKIPPED = re.compile(
    r"__(annotations_cache|dict|static_attributes|weakref)__|_abc_impl"
    r"|__pydantic_(core_schema|decorators|serializer|validator)__"
)


def _are_alike(one: Any, other: Any, seen: dict[Any, Any]) -> bool:
    """Return whether two objects are the same, or of the same definition: functions by
    code, defaults and captured variables, classes by bases and attributes, others by
    what pickle would store; in doubt they are not.

    :param seen: the pairs that are compared already, by their ids.
    """
    kind, pair = type(one), (id(one), id(other))
    if one is other or pair in seen:
        return True
    if kind is types.CodeType:
        return bool(one == other)
    if kind in _PLAIN:
        return kind is type(other) and repr(one) == repr(other)
    seen[pair] = one, other  # so that no other object gets an id of these
    if kind is object or not _are_alike(kind, type(other), seen):
        return False
    if kind.__module__ == "_thread":  # the lock of a cached_property, in Python 3.11
        return True
    try:
        parts = list(zip(_parts_of(one), _parts_of(other), strict=True))
    except Exception:  # a class decides what pickling raises
        return False
    return all(_are_alike(*each, seen) for each in parts)


def _parts_of(value: Any) -> list[Any]:
    """Return what tells an object from others of its type."""
    kind, attributes = type(value), getattr(value, "__dict__", {})
    if "_memoized" in attributes:
        return [attributes["_memoized"].func]
    if kind in (list, tuple):
        return list(value)
    if kind in (set, frozenset):
        return sorted(value, key=repr)
    if kind is dict:
        return [*value, *value.values()]
    if kind in (classmethod, staticmethod):
        return [value.__func__]
    if kind is property:
        return [value.fget, value.fset, value.fdel]
    if kind is types.CellType:
        return [value.cell_contents]  # raises an error if it is not assigned yet
    if kind is types.FunctionType:
        held = value.__defaults__, value.__kwdefaults__, value.__closure__
        return [value.__code__, *held, attributes]
    if isinstance(value, type):
        label = getattr(getattr(value, "_meta", None), "label", None)
        if label is not None:  # of a model: Django has one of that name
            return [label]
        members = {k: v for k, v in attributes.items() if not _SKIPPED.fullmatch(k)}
        return [value.__module__, value.__qualname__, value.__bases__, members]
    reduce: Any = copyreg.dispatch_table.get(kind)
    stored = reduce(value) if reduce else value.__reduce_ex__(4)
    if isinstance(stored, str):  # its name, in a module
        return [stored, attributes]
    function, args, *state = stored
    return [function, args, *state[:1], *map(list, filter(None, state[1:3]))]


def is_mock(cls: type) -> bool:
    """Return whether it is a class of a mock: each mock has a class of its own."""
    return any(base.__name__ == "NonCallableMock" for base in cls.__mro__)


def mock_token(value: Any) -> Any:
    """Return a text that no other mock has, of any process."""
    return vars(value).setdefault("_cache_memoize_key", uuid.uuid4().hex)
