"""Memoized functions by their dotted paths, and arguments as words.

Of the project only the named module is imported, with its parents.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.util
import inspect
import json
import pkgutil
import shlex
import sys
import types
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

from django.apps import apps
from django.core.exceptions import ObjectDoesNotExist
from django.core.management.base import CommandError
from django.db import DatabaseError
from django.db.models import Model

from ..cache.connections import aliases
from ..conf import suggestion
from ..memoized import Memoized
from ..methods import BoundMethod, MemoizedClassMethod

__all__ = [
    "arguments",
    "check_alias",
    "find",
    "find_bound",
    "is_method",
    "load",
    "lookup",
]

#: How others spell what Python spells its own way.
_SPELLINGS = {"true": "True", "false": "False", "null": "None", "none": "None"}


# --- functions -----------------------------------------------------------------------


def find(path: str) -> Memoized[Any, Any, Any]:
    """The memoized function ``app.module.func`` or ``app.module.Class.method``.

    Raises CommandError for a name that leads nowhere, or to something else.
    """
    module, _, found = lookup(path)
    memoized = _memoized_in(found)
    if memoized is not None:
        return memoized
    what = type(found).__name__
    raise CommandError(
        f"{path} is not memoized, but a {what}{_others(module, path)}; put "
        "@cache_memoize(...) above its def, or name another"
    )


def find_bound(path: str, instance: str | None) -> Memoized[Any, Any, Any]:
    """The same for one call: a method has to have its instance, which for a model is
    the row with this primary key. ``instance``: a literal, or None."""
    memoized = find(path)
    if not is_method(path):
        if instance is not None:
            raise CommandError(f"{path} is no method of instances; leave --self out")
        return memoized
    owner = lookup(path)[1]
    if not issubclass(owner, Model):
        raise CommandError(
            f"{path} is a method, so a call of it has an instance, and "
            f"{owner.__name__} is no model; name it on an instance in a module: "
            "app.module.instance.method"
        )
    if instance is None:
        raise CommandError(
            f"{path} is a method, so a call of it has an instance; give its primary "
            "key, as in --self 42"
        )
    try:
        row = owner._base_manager.get(pk=_literal(instance, ""))
    except (ObjectDoesNotExist, DatabaseError, TypeError, ValueError) as error:
        raise CommandError(
            f"there is no {owner.__name__} with the primary key {instance}: {error}"
        ) from error
    return BoundMethod(memoized._memoized.wrapper, row)


def is_method(path: str) -> bool:
    """Whether this path leads to a method of instances by way of their class: then the
    first argument of a call is the instance."""
    owner = lookup(path)[1]
    here = inspect.getattr_static(owner, path.rpartition(".")[2], None)
    others = (classmethod, staticmethod, MemoizedClassMethod)
    return isinstance(owner, type) and not isinstance(here, others)


def lookup(path: str) -> tuple[types.ModuleType, Any, Any]:
    """The module that a dotted path begins with, what it leads to, and between them
    the owner of that."""
    parts = path.replace(":", ".").split(".")
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        raise CommandError(
            f"{path!r} is no dotted path; write app.module.func, or "
            "app.module.Class.method"
        )
    names = [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
    existing = []
    for name in names:
        if not _is_module(name):
            break
        load(name)
        existing.append(name)
    if not existing:
        roots = {config.name.partition(".")[0] for config in apps.get_app_configs()}
        roots |= {name for name in sys.modules if "." not in name and name[0] != "_"}
        raise CommandError(
            f"there is no module {parts[0]!r}{suggestion([parts[0]], roots)}; is its "
            "folder in PYTHONPATH, or --pythonpath?"
        )
    if existing == names:  # a module; unless its package has put something in front
        existing.pop()
        if isinstance(_get(existing[-1], parts[-1]), types.ModuleType):
            module = sys.modules[names[-1]]
            raise CommandError(
                f"{path} is a module{_others(module, path)}; name a function in it"
            )
    module = owner = found = sys.modules[existing[-1]]
    for at, part in enumerate(parts[len(existing) :], len(existing)):
        try:
            owner, found = found, getattr(found, part)
        except AttributeError:
            raise _not_there(module, parts, at) from None
    return module, owner, found


def load(name: str) -> types.ModuleType:
    """Import a module; CommandError with the reason when that fails."""
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise CommandError(
            f"importing {name} failed: {type(error).__name__}: {error}; --traceback "
            "shows where"
        ) from error


def _is_module(name: str) -> bool:
    if name in sys.modules:
        return True
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # its parent is no package
        return False


def _get(module: str, name: str) -> Any:
    return getattr(sys.modules[module], name, None)


def _memoized_in(found: Any) -> Memoized[Any, Any, Any] | None:
    """``found``, what a property hides, or what a decorator above ours has wrapped."""
    if isinstance(found, property):
        found = found.fget
    elif isinstance(found, (classmethod, staticmethod)):  # as a class body has them
        found = found.__func__
    if isinstance(found, types.MethodType) and hasattr(found, "_memoized"):
        return BoundMethod(found._memoized.wrapper, found.__self__)
    if isinstance(found, (types.FunctionType, BoundMethod)):
        memoized: Any = found if hasattr(found, "_memoized") else None
        return memoized  # type: ignore[no-any-return]
    return None


def _names_in(module: types.ModuleType) -> list[str]:
    """The paths of what is memoized in a module."""
    return sorted(set(_walk(module, module.__name__)))


def _walk(owner: Any, path: str) -> Iterator[str]:
    for name, value in list(vars(owner).items()):
        if _memoized_in(value) is not None:
            yield f"{path}.{name}"
        elif isinstance(value, type) and isinstance(owner, types.ModuleType):
            yield from _walk(value, f"{path}.{name}")


def _not_there(module: types.ModuleType, parts: list[str], at: int) -> CommandError:
    before = ".".join(parts[:at])
    submodules = [
        ".".join([before, each.name, *parts[at + 1 :]])
        for each in pkgutil.iter_modules(getattr(module, "__path__", []))
        if difflib.get_close_matches(parts[at], [each.name], 1)
    ]
    others = _others(module, ".".join(parts), submodules)
    return CommandError(f"{before} has no {parts[at]!r}{others}")


def _others(module: types.ModuleType, path: str, more: Iterable[str] = ()) -> str:
    """What was perhaps meant, or else what there is to choose from."""
    start = len(module.__name__) + 1  # what all have in common makes none closer
    known = _names_in(module)
    rests = {each[start:]: each for each in [*known, *more]}
    if close := difflib.get_close_matches(path[start:], rests, 1):
        return f" (did you mean {rests[close[0]]}?)"
    if not known:
        return " (nothing is memoized there)"
    dots = ", ..." if len(known) > 5 else ""
    return f" (memoized there: {', '.join(known[:5])}{dots})"


def check_alias(alias: str) -> None:
    """Raises CommandError for a cache that the settings do not know."""
    if alias not in aliases():
        raise CommandError(
            f"there is no cache {alias!r} in CACHES{suggestion([alias], aliases())}; "
            f"known are {', '.join(sorted(aliases()))}"
        )


# --- arguments -----------------------------------------------------------------------


def arguments(words: Iterable[str]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call, of which each is one word: a Python literal, or
    ``name=literal``. Nothing is evaluated.

    A word without quotes is never taken for text. It would be pleasant, until somebody
    writes ``true``, ``[1`` or ``2024-10-11``, and forgets a call that nobody made.
    """
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not (equals and name.isidentifier()):
            if kwargs:
                raise CommandError(
                    f"{word} comes after {next(iter(kwargs))}=...; put arguments "
                    "without a name first"
                )
            args.append(_literal(word, ""))
        elif name in kwargs:
            raise CommandError(f"{name}= is given twice; leave one out")
        else:
            kwargs[name] = _literal(text, f"{name}=")
    return tuple(args), kwargs


def _literal(text: str, before: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes that are none
            return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        quoted = shlex.quote(before + json.dumps(text, ensure_ascii=False))
        meant = _SPELLINGS.get(text.lower())
        cure = f"{before}{meant}, or for the text {quoted}" if meant else quoted
        raise CommandError(
            f"{before}{text} is no Python literal; write {cure}"
        ) from None
