"""The items of ``manage.py memoize warm``: JSON lines, or what a callable returns."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import Any, NamedTuple

from django.core.management.base import CommandError
from django.db.models import QuerySet

from ..describe import describe_error
from .naming import look_up


class Call(NamedTuple):
    """The arguments of one call."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any] = {}

    @property
    def item(self) -> Any:
        """The positional arguments as an item of :meth:`warm` and :meth:`many`."""
        if len(self.args) == 1 and type(self.args[0]) is not tuple:
            return self.args[0]
        return self.args


#: The number of the line or item, from 1, and its call or the reason why it has none.
NumberedItem = tuple[int, "Call | ValueError"]


def read_lines(lines: Iterable[str | bytes]) -> Iterator[NumberedItem]:
    """Yield the calls of JSON lines, each when its line has come; skip empty lines."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield number, _parse_item(json.loads(line.strip()))
        except json.JSONDecodeError as error:
            yield number, ValueError(f"not JSON: {error.msg}, column {error.colno}")
        except (ValueError, RecursionError) as error:
            yield number, ValueError(f"not readable as JSON: {error}")
        except TypeError as error:
            yield number, ValueError(str(error))


def _parse_item(data: Any) -> Call:
    if isinstance(data, list):
        return Call(tuple(data))
    if not isinstance(data, dict):
        return Call((data,))
    args, kwargs = data.get("args", []), data.get("kwargs", {})
    known = data and data.keys() <= {"args", "kwargs"}
    if not (known and isinstance(args, list) and isinstance(kwargs, dict)):
        raise TypeError(
            'an object takes "args", an array, and "kwargs", an object; write '
            "[{...}] for an argument that is an object"
        )
    return Call(tuple(args), kwargs)


def read_callable(path: str) -> tuple[Iterator[NumberedItem], int | None]:
    """Call the function at a dotted path; return its items, as :meth:`warm` takes
    them, and their number if it is known."""
    function = look_up(path)[2]
    if not callable(function):
        raise CommandError(
            f"{path} is a {type(function).__name__}, and cannot be called; give --from "
            "a function that returns the items"
        )
    total = None
    with _errors_of(path):
        items: Any = function()
    if isinstance(items, QuerySet):
        total, items = items.count(), items.iterator()
    elif isinstance(items, Sized):
        total = len(items)
    if not isinstance(items, Iterable) or isinstance(items, (str, bytes)):
        raise CommandError(
            f"{path}() returned a {type(items).__name__}; return an iterable of items, "
            "each one argument or a tuple of arguments"
        )
    return _number_items(path, items), total


def _number_items(path: str, items: Iterable[Any]) -> Iterator[NumberedItem]:
    with _errors_of(path):
        for number, item in enumerate(items, 1):
            yield number, Call(item if type(item) is tuple else (item,))


@contextmanager
def _errors_of(path: str) -> Iterator[None]:
    """Turn the exceptions of a function of the project into CommandErrors."""
    try:
        yield
    except Exception as error:
        raise CommandError(
            f"{path} raised {describe_error(error)}; --traceback shows where"
        ) from error
