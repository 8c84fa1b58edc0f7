"""The calls that ``manage.py memoize warm`` is to make: JSON lines, or what a function
of the project gives."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sized
from typing import Any, NamedTuple

from django.core.management.base import CommandError
from django.db.models import QuerySet

from .naming import lookup

__all__ = ["Call", "Given", "from_callable", "from_lines"]


class Call(NamedTuple):
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = {}

    @property
    def item(self) -> Any:
        """As :meth:`warm` takes it, and a function registered with :meth:`many`."""
        if len(self.args) == 1 and type(self.args[0]) is not tuple:
            return self.args[0]
        return self.args


#: What was given, and where; what could not be read is the reason.
Given = tuple[int, "Call | ValueError"]


def from_lines(lines: Iterable[str | bytes]) -> Iterator[Given]:
    """Calls of JSON lines, each as soon as it is there; empty ones are left out."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield number, _call_of(json.loads(line.strip()))
        except json.JSONDecodeError as error:
            yield number, ValueError(f"no JSON: {error.msg}, column {error.colno}")
        except (ValueError, RecursionError) as error:
            yield number, ValueError(f"no JSON that can be read: {error}")
        except TypeError as error:
            yield number, ValueError(str(error))


def _call_of(data: Any) -> Call:
    if isinstance(data, list):
        return Call(tuple(data))
    if not isinstance(data, dict):
        return Call((data,))
    args, kwargs = data.get("args", []), data.get("kwargs", {})
    known = data and data.keys() <= {"args", "kwargs"}
    if not (known and isinstance(args, list) and isinstance(kwargs, dict)):
        raise TypeError(
            'an object takes "args", an array, and "kwargs", an object; write '
            "[{...}] for an argument that is one"
        )
    return Call(tuple(args), kwargs)


def from_callable(path: str) -> tuple[Iterator[Given], int | None]:
    """The items that ``path`` gives when called, as :meth:`warm` takes them, and how
    many there are, if that is known."""
    function = lookup(path)[2]
    if not callable(function):
        raise CommandError(
            f"{path} is a {type(function).__name__}, and cannot be called; give --from "
            "a function that gives the items"
        )
    items: Any = None
    with _raised_by(path):
        items = function()
    total = None
    if isinstance(items, QuerySet):
        total, items = items.count(), items.iterator()
    elif isinstance(items, Sized):
        total = len(items)
    if not isinstance(items, Iterable) or isinstance(items, (str, bytes)):
        raise CommandError(
            f"{path}() gave a {type(items).__name__}; return an iterable of items, "
            "each one argument or a tuple of them"
        )
    return _numbered(path, items), total


def _numbered(path: str, items: Iterable[Any]) -> Iterator[Given]:
    with _raised_by(path):
        for number, item in enumerate(items, 1):
            yield number, Call(item if type(item) is tuple else (item,))


class _raised_by:
    """What the project's function raises, as a CommandError that names it."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, Exception):
            raise CommandError(
                f"{self.path} raised {kind.__name__}: {error}; --traceback shows where"
            ) from error
