"""Option callables, such as ``tags=``: each gets the call in one form. Pure.

``f(1)``, ``f(a=1)`` and ``f(1, b=2)`` may be one call. So a callable of the call's
arguments gets positional parameters by position, with defaults filled in, and
keyword-only ones by keyword, for every spelling. A callable that takes fewer gets the
arguments that it names: ``tags=lambda post_id: ...`` fits ``f(post_id, lang="en")``. A
callable that fits no call is refused at decoration; at a call, the error would depend
on the spelling.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from inspect import Parameter, signature
from typing import Any, NamedTuple

from .binding import Binder

__all__ = ["fit"]

_BY_POSITION = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
_BY_NAME = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)


class _Taken(NamedTuple):
    """The arguments of a call that a callable takes."""

    #: The number of arguments that it takes by position; the others by name. None: all.
    positional: int | None
    #: Parameters that it takes by name; None: all keyword arguments.
    named: frozenset[str] | None

    def leaves_out(self, name: str, by_name: bool) -> bool:
        """Return whether the callable does not get a bound argument."""
        if self.named is None or (self.positional is None and not by_name):
            return False
        return name not in self.named


def fit(
    given: Callable[..., Any], option: str, binder: Binder, leading: int = 0
) -> Callable[..., Any]:
    """Return ``given``, called with any spelling of a call; errors name the option.

    :param leading: the number of arguments before those of the call: the result.
    :raises TypeError: if ``given`` cannot take the arguments of any call.

    The attribute ``leaves_out`` of the returned function tells whether ``given`` does
    not get an argument.
    """
    taken = _taken(given, option, binder, leading)

    @functools.wraps(given, updated=())
    def ask(*args: Any, **kwargs: Any) -> Any:
        try:
            first, args = args[:leading], args[leading:]
            args, kwargs = binder.normalize(args, kwargs)
            if taken.positional is not None:
                kwargs = dict(zip(binder.positional, args, strict=False)) | kwargs
                args = args[: taken.positional]
            if taken.named is not None:
                kwargs = {k: v for k, v in kwargs.items() if k in taken.named}
            return given(*first, *args, **kwargs)
        except Exception as error:
            error.add_note(f"Raised by {option}= of {binder.name}.")
            raise

    ask.leaves_out = taken.leaves_out  # type: ignore[attr-defined]
    return ask


def _taken(
    given: Callable[..., Any], option: str, binder: Binder, leading: int
) -> _Taken:
    try:
        own = signature(given)
    except (ValueError, TypeError):  # bool: of the result, if there is one
        return _Taken(0, frozenset()) if leading else _Taken(None, None)
    parameters = list(own.parameters.values())
    by_position = [p for p in parameters if p.kind in _BY_POSITION]
    first, rest = by_position[:leading], by_position[leading:]
    takes_any = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    if takes_any or _fits_by_position(rest, binder):
        positional, in_order = None, rest[: len(binder.positional)]
    else:
        in_order = _in_order(rest, option)
        positional = len(in_order)
    others = [p for p in parameters if p not in first and p not in in_order]
    if len(first) < leading and not takes_any:
        missing = ["a parameter for the result"]
    else:
        missing = _missing(others, binder, positional)
    if missing:
        name = binder.name
        raise TypeError(
            f"cache_memoize: {option}= of {name} is called with the arguments of "
            f"{name}{binder.signature}, which do not fit {own}: {', '.join(missing)}; "
            "name parameters of the function, or take *args, **kwargs"
        )
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return _Taken(positional, None)
    return _Taken(positional, frozenset(p.name for p in others if p.kind in _BY_NAME))


def _fits_by_position(rest: list[Parameter], binder: Binder) -> bool:
    """Return whether these parameters get all positional arguments by position."""
    names = {p.name for p in rest}
    known = names <= {*binder.positional, *binder.keyword_only}
    if binder.var_positional:
        return not known
    named = known and not names.isdisjoint(binder.keyword_only)
    return len(rest) >= len(binder.positional) and not named


def _in_order(rest: list[Parameter], option: str) -> list[Parameter]:
    """Return the parameters that get the first arguments by position: a hook in C, such
    as list.append, names nothing. (For a key that is no excuse.)"""
    if option not in ("hit_callable", "miss_callable"):
        return []
    return [p for p in rest if p.kind is p.POSITIONAL_ONLY]


def _missing(
    others: list[Parameter], binder: Binder, positional: int | None
) -> list[str]:
    """Return the names of the parameters that no call has a value for."""
    if binder.var_positional or binder.var_keyword:
        return []  # they may hold everything
    names = {*binder.keyword_only, *(() if positional is None else binder.positional)}
    return [
        p.name
        for p in others
        if p.kind in (*_BY_POSITION, Parameter.KEYWORD_ONLY)
        and p.default is p.empty
        and (p.name not in names or p.kind is p.POSITIONAL_ONLY)
    ]
