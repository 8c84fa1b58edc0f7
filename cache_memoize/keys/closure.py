"""Captured variables of nested functions as text; the default prefix. Pure.

A nested function has the name of all functions that its ``def`` makes, and returns what
its captured variables make of its arguments: so these are arguments too. Their values
at the call are part of the key, by the rules for arguments, and refused by these. The
values at decoration would not do: a loop, ``nonlocal`` or a later assignment changes
them. Captured functions are part of the key by module, name and code, with what they
capture themselves.

Two kinds of variables are left out. What a decorator captured around a function of a
module does not count: the name of the function leads to one function only. Neither does
a list, set or dict that the function only writes to (``calls.append(x)``); a method of
another type may write to its argument too, and so to the result.
"""

from __future__ import annotations

import collections
import datetime
import decimal
import functools
import sys
import types
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from .binding import FIXED, encode_part
from .encoding import digest, encode
from .instructions import is_only_written
from .replaced import replaces

__all__ = ["captured_text_of", "captures_plain_values", "default_prefix", "is_plain"]

#: Marks in the text of captured variables. No encoded value starts with one of them.
_CAPTURED, _FUNCTION, _AGAIN, _UNASSIGNED = "&@%?"

#: Types of values that hold nothing but themselves.
_PLAIN = FIXED | {
    *(float, decimal.Decimal, uuid.UUID),
    *(datetime.date, datetime.datetime, datetime.time, datetime.timedelta),
}
_COLLECTIONS = (tuple, list, set, frozenset)

#: Decorators are looked through to this depth.
_DEPTH = 20


def default_prefix(function: Callable[..., Any]) -> str:
    """Return module and qualified name; with a digest of the code, where functions of
    that name are made at each call of another one, or in each script."""
    if isinstance(function, functools.partial):
        prefix = default_prefix(function.func)
        return f"{prefix} {_partial_text(function, prefix)}"
    if isinstance(function, types.BuiltinFunctionType) and not isinstance(
        function.__self__, types.ModuleType | None
    ):
        raise TypeError(
            f"cache_memoize: {function.__qualname__} is a method of a built-in object, "
            "which is not part of its name; memoize a function that calls it"
        )
    name = getattr(function, "__qualname__", None)
    if name is None or "<lambda>" in name.rsplit(".", 1)[-1]:
        raise TypeError(
            "cache_memoize: a lambda, or a callable object, has no name of its own; "
            "write prefix='something.unique', or use def (and timeout= before it, if "
            "it was to be the timeout)"
        )
    prefix = f"{function.__module__}.{name}"
    code = getattr(function, "__code__", None)
    if "<locals>" not in name:
        # Scripts are all named __main__, and so is each new version in a notebook.
        is_script = function.__module__ == "__main__" and code is not None
        return f"{prefix} {_digest_of_code(code)}" if is_script else prefix
    if code is None:
        raise TypeError(
            f"cache_memoize: {prefix} is made inside a function and has no Python code "
            "that tells it from others of that name; write prefix='something.unique'"
        )
    return f"{prefix} {_digest_of_code(code)}"


def captured_text_of(
    function: Callable[..., Any], whose: str
) -> Callable[[], str] | None:
    """Return a function that returns the captured variables of ``function`` as text;
    None if it captures none.

    :param whose: the name of the function in errors.
    """
    inner: Any = function
    if isinstance(inner, functools.partial):
        texts = [captured_text_of(inner.func, whose)]
        parts = getattr(inner.func, "__self__", None), *inner.args
        if not FIXED.issuperset(map(type, (*parts, *inner.keywords.values()))):
            texts.append(functools.partial(_partial_text, inner, whose))
        given = [text for text in texts if text is not None]
        return (lambda: "".join(text() for text in given)) if given else None
    inner = getattr(inner, "__func__", inner)
    variables = list(_variables(inner))
    if not variables:
        return None
    start = _CAPTURED + _digest_of_code(inner.__code__)
    within = (inner,)

    def text() -> str:
        parts = [_variable_text(*each, whose, within) for each in variables]
        return start + "".join(parts)

    if "<locals>" in inner.__qualname__:
        return text
    is_named = False

    def text_of_unnamed() -> str:
        nonlocal is_named  # not before a module is loaded
        is_named = is_named or _is_known_by_name(inner)
        return "" if is_named else text()

    return text_of_unnamed


def _partial_text(function: functools.partial[Any], whose: str) -> str:
    owner = getattr(function.func, "__self__", None)
    parts = (owner, function.args, function.keywords)
    return encode_part(parts, whose, "functools.partial")


def _variables(function: Any) -> Iterator[tuple[str, types.CellType, bool]]:
    """Return the captured variables of a function, each with whether the function only
    writes to it."""
    code = getattr(function, "__code__", None)
    cells = getattr(function, "__closure__", None)
    if isinstance(code, types.CodeType) and cells:
        for variable, cell in zip(code.co_freevars, cells, strict=True):
            yield variable, cell, is_only_written(code, variable)


def _variable_text(
    variable: str,
    cell: types.CellType,
    only_writes: bool,
    whose: str,
    within: tuple[Any, ...],
) -> str:
    try:
        value = cell.cell_contents
    except ValueError:
        return _UNASSIGNED
    if type(value) in FIXED:
        return encode(value)
    if only_writes and type(value) in _CONTAINERS:
        return encode(type(value).__name__)  # a method that it lacks raises an error
    if type(_unwrap_memoized(value)) is types.FunctionType:
        return _function_text(value, variable, whose, within)
    if variable == within[0].__name__ and _leads_to(value, within[0]):
        return f"{_AGAIN}0;"  # recursion, through a decorator that is no function
    return encode_part(value, whose, variable, "captured variable")


def _function_text(
    value: types.FunctionType, variable: str, whose: str, within: tuple[Any, ...]
) -> str:
    """Return a captured function, memoized or not, as text."""
    function = _unwrap_memoized(value)
    held = _attributes(function) | _attributes(value)
    for number, outer in enumerate(within):
        if function is outer:
            text = f"{_AGAIN}{number:x};"
            if held:
                text += encode_part(held, whose, variable, "captured variable")
            return text
    name = function.__module__, function.__qualname__
    text = _FUNCTION + encode(name) + encode(_digest_of_code(function.__code__))
    if not _is_known_by_name(function):
        parts = (function.__defaults__, function.__kwdefaults__, held)
        text += encode_part(parts, whose, variable, "captured variable")
        within = (*within, function)
        for each in _variables(function):
            text += _variable_text(*each, whose, within)
    return text + ")"


def _attributes(function: Any) -> dict[str, Any]:
    """Return what a project has set on a function."""
    return {
        name: value
        for name, value in vars(function).items()
        if not name.startswith("__")
        and not hasattr(getattr(value, "__self__", value), "_memoized")
        and name != "_memoized"
    }


def _unwrap_memoized(value: Any) -> Any:
    """Return the function that a memoized one calls; other values as they are."""
    while type(value) is types.FunctionType and "_memoized" in vars(value):
        value = vars(value)["_memoized"].func
    return value


def _is_known_by_name(function: Any) -> bool:
    """Return whether module and qualified name lead to ``function``, or to decorators
    above it: then no other function has that name."""
    found: Any = sys.modules.get(function.__module__)
    for name in function.__qualname__.split("."):
        found = getattr(found, "__dict__", {}).get(name)
    return _leads_to(found, function)


def _leads_to(value: Any, function: Any) -> bool:
    names = ("__wrapped__", "__func__", "fget", "func")
    depth = 0
    while value is not None and not _is_same(value, function) and depth < _DEPTH:
        value = next((v for n in names if (v := getattr(value, n, None))), None)
        depth += 1
    return _is_same(value, function)


def _is_same(value: Any, function: Any) -> bool:
    """Return whether it is the function, or the one of a module that was reloaded."""
    code = getattr(function, "__code__", None)
    if value is function or code is None or code.co_freevars != _SUPER:
        return value is function
    return replaces(value, function)


_SUPER = ("__class__",)  # captured by super()


# --- code ----------------------------------------------------------------------------

_of_code = digest("cache_memoize code")


@functools.lru_cache(1024)
def _digest_of_code(code: types.CodeType) -> str:
    """Return a digest of code, the same in every process of one version of Python."""
    return _of_code(_code_text(code))


def _code_text(code: types.CodeType) -> str:
    names = code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars
    counts = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount
    constants = [
        _code_text(each) if isinstance(each, types.CodeType) else encode(each)
        for each in code.co_consts
    ]
    steps = code.co_code, code.co_exceptiontable
    whole = encode((steps, names, counts, code.co_flags))
    return f"{_FUNCTION}{whole}{''.join(constants)})"


#: Types of which these methods write to nothing else.
_CONTAINERS = frozenset(
    {bytearray, dict, list, set, collections.Counter, collections.OrderedDict}
    | {collections.defaultdict, collections.deque}
)


def is_plain(value: Any, depth: int = 5) -> bool:
    """Return whether a value holds no objects, as rows of a database."""
    kind = type(value)
    if kind is dict:
        return is_plain([*value, *value.values()], depth)
    if kind in _COLLECTIONS:
        return depth > 0 and all(is_plain(each, depth - 1) for each in value)
    return kind in _PLAIN


def captures_plain_values(function: Any, within: tuple[Any, ...] = ()) -> bool:
    """Return whether a callable is Python code that holds no objects."""
    if type(function) is not types.FunctionType or len(within) > _DEPTH:
        return False
    if not is_plain([function.__defaults__, function.__kwdefaults__]):
        return False
    for _, cell, only_writes in _variables(function):
        with suppress(ValueError):  # not assigned yet
            value = _unwrap_memoized(cell.cell_contents)
            if only_writes and type(value) in _CONTAINERS:
                continue
            known = is_plain(value) or isinstance(value, (type, types.ModuleType))
            known = known or any(value is outer for outer in within)
            if not (known or captures_plain_values(value, (*within, function))):
                return False
    return True
