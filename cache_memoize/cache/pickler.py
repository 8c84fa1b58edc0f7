"""Results to pickles; results that a hit could not return as they are get refused.

Pickle takes objects that are another value when they come back: a bare ``object()``
is no longer the sentinel that callers compare it with, and a raw query that was not
evaluated is sent again by each hit. Others cannot be pickled, and the error of pickle
does not tell why.
"""

from __future__ import annotations

import copyreg
import io
import pickle
from types import AsyncGeneratorType
from typing import Any

from django.db.models.query import RawQuerySet
from django.template.response import SimpleTemplateResponse

__all__ = ["Unstorable", "check_awaited", "dumps"]


class Unstorable(TypeError):
    """A result that a hit could not return as it is; its text names the cure."""


def dumps(value: Any, *, by_parts: bool = False) -> bytes:
    """Pickle ``value``; ``by_parts``: exceptions as their arguments and attributes."""
    buffer = io.BytesIO()
    pickler = _PartsPickler if by_parts else _Pickler
    pickler(buffer, pickle.HIGHEST_PROTOCOL).dump(value)
    return buffer.getvalue()


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        cls = type(value)
        if cls is object:
            raise Unstorable(
                "a bare object() would be another object on each hit; return None, or "
                "a member of an Enum"
            )
        check_awaited(value)
        if issubclass(cls, RawQuerySet):
            value._fetch_all()
            # Without the cursor, which cannot be pickled.
            state = {**vars(value), "query": value.query.clone(value.db)}
            return copyreg.__newobj__, (cls,), state  # type: ignore[attr-defined]
        if issubclass(cls, SimpleTemplateResponse) and not value.is_rendered:
            raise Unstorable(
                f"a {cls.__qualname__} is not rendered yet; memoize the function that "
                "computes its data, or return response.render()"
            )
        return NotImplemented


class _PartsPickler(_Pickler):
    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, BaseException):
            return _exception, (type(value), value.args, vars(value))
        return super().reducer_override(value)


def _exception(cls: Any, args: tuple[Any, ...], attributes: dict[str, Any]) -> Any:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(attributes)
    return error


def check_awaited(value: Any) -> None:
    """Refuse what can be awaited only once, as the result of an async function."""
    cls = type(value)
    if hasattr(cls, "__await__") or cls is AsyncGeneratorType:
        raise Unstorable(
            f"an object of type {cls.__qualname__} has to be awaited first; if the "
            "function is a plain wrapper of an async one, write it as async def with "
            "await, or put @cache_memoize directly above the async def; instead of an "
            "async generator, return a list"
        )
