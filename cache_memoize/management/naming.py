"""Memoized functions by their dotted paths, or all below a part of such a path.

For one function, only the named module is imported, with its parents; for several, all
that the site serves.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import pkgutil
import sys
import types
from collections.abc import Iterable, Iterator
from typing import Any

from django.apps import apps
from django.core import checks
from django.core.management.base import CommandError
from django.db import DatabaseError
from django.db.models import Model

from ..arguments import load_instance, parse_literal
from ..cache.connections import aliases
from ..describe import FunctionInfo, info_of, list_functions
from ..methods import BoundMethod
from ..options import suggestion


def import_functions(modules: Iterable[str]) -> list[FunctionInfo]:
    """Import the URLconf, which imports all that the site serves, and these modules;
    return all memoized functions."""
    try:
        checks.run_checks(tags=[checks.Tags.urls])
    except Exception as error:
        raise CommandError(
            f"importing the URLconf failed: {type(error).__name__}: {error}; "
            "manage.py check shows where"
        ) from error
    for name in modules:
        load_module(name)
    found = sorted(list_functions(), key=lambda info: (info.path, info.alias))
    if not found:
        raise CommandError(
            "no memoized function is imported; name modules that have some: --import"
        )
    return found


def select_functions(
    names: Iterable[str], modules: Iterable[str]
) -> list[FunctionInfo]:
    """Return the functions of these names, each once; without names, all.

    :param names: paths, or beginnings of paths that end with a dot.
    :param modules: to import, besides those of the names.
    """
    if not names:
        return import_functions(modules)
    for module in modules:
        load_module(module)
    found: dict[Any, FunctionInfo] = {}
    for name in names:
        below = _find_below(name) if name.endswith(".") else [find_function(name)]
        found |= {info.record: info for info in below}
    return list(found.values())


def _find_below(prefix: str) -> list[FunctionInfo]:
    """Return the functions whose paths begin with `prefix`, which ends with a dot."""
    prefix = prefix.replace(":", ".")
    _import_modules(_split_path(prefix[:-1], 1))
    known = import_functions([])
    found = [info for info in known if info.path.startswith(prefix)]
    if not found:
        owners = {info.path.rpartition(".")[0] for info in known}
        raise CommandError(
            f"the path of no memoized function begins with {prefix}"
            f"{suggestion([prefix[:-1]], owners)}; name modules that have some: "
            "--import"
        )
    return found


def find_function(path: str) -> FunctionInfo:
    """Return the memoized function ``app.module.func`` or ``app.module.Class.method``.

    Raises CommandError for a path that leads nowhere, or to something else.
    """
    if path.endswith("."):
        names = sorted({info.path for info in _find_below(path)})
        raise CommandError(f"write the name of one function: {', '.join(names)}")
    module, _, found = look_up(path)
    memoized = _find_memoized(found)
    if memoized is not None:
        return info_of(memoized)
    kind = type(found).__name__
    raise CommandError(
        f"{path} is not memoized, but a {kind}{_suggest_names(module, path)}; put "
        "@cache_memoize(...) above its def, or name another"
    )


def find_bound(path: str, pk: str | None) -> FunctionInfo:
    """Return a function for one call, bound to an instance if it is a method.

    :param pk: the primary key of the instance, as a literal.
    """
    info = find_function(path)
    if not info.is_method:
        if pk is not None:
            raise CommandError(f"{path} is not a method; leave --self out")
        return info
    owner = look_up(path)[1]
    if not (isinstance(owner, type) and issubclass(owner, Model)):
        kind = getattr(owner, "__name__", type(owner).__name__)
        raise CommandError(
            f"{path} is a method, so a call of it has an instance, and "
            f"{kind} is not a model; name it on an instance in a module: "
            "app.module.instance.method"
        )
    if pk is None:
        raise CommandError(
            f"{path} is a method, so a call of it has an instance; give its primary "
            "key, as in --self 42"
        )
    try:
        row = load_instance(owner._meta.label, parse_literal(pk))
    except (ValueError, DatabaseError) as error:
        raise CommandError(str(error)) from error
    return info_of(BoundMethod(info.memoized, row))


def look_up(path: str) -> tuple[types.ModuleType, Any, Any]:
    """Return the module, the owner and the object of a dotted path."""
    path = path.replace(":", ".")
    parts = _split_path(path, 2)
    existing = _import_modules(parts)
    if not existing:
        roots = {config.name.partition(".")[0] for config in apps.get_app_configs()}
        roots |= {name for name in sys.modules if "." not in name and name[0] != "_"}
        raise CommandError(
            f"there is no module {parts[0]!r}{suggestion([parts[0]], roots)}; is its "
            "folder in PYTHONPATH, or --pythonpath?"
        )
    if existing[-1] == path:  # a module; unless its package has an object of its name
        existing.pop()
        attribute = getattr(sys.modules[existing[-1]], parts[-1], None)
        if isinstance(attribute, types.ModuleType):
            others = _suggest_names(sys.modules[path], path)
            raise CommandError(f"{path} is a module{others}; name a function in it")
    module = owner = found = sys.modules[existing[-1]]
    for at, part in enumerate(parts[len(existing) :], len(existing)):
        try:
            owner, found = found, getattr(found, part)
        except AttributeError:
            raise _explain_missing(module, parts, at) from None
    return module, owner, found


def _split_path(path: str, least: int) -> list[str]:
    parts = path.split(".")
    if len(parts) < least or not all(part.isidentifier() for part in parts):
        raise CommandError(
            f"{path!r} is not a dotted path; write app.module.func, or "
            "app.module.Class.method"
        )
    return parts


def _import_modules(parts: list[str]) -> list[str]:
    """Import all modules that a dotted path leads through; return their names."""
    found: list[str] = []
    for end in range(1, len(parts) + 1):
        name = ".".join(parts[:end])
        if not _is_module(name):
            break
        load_module(name)
        found.append(name)
    return found


def load_module(name: str) -> types.ModuleType:
    """Import a module. Raises CommandError with the reason if that fails."""
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
    except ModuleNotFoundError:  # its parent is not a package
        return False


def _find_memoized(found: Any) -> Any:
    """Return the memoized function in `found`: itself, that of a property, or below
    another decorator; None if there is none."""
    if isinstance(found, property):
        found = found.fget
    elif isinstance(found, (classmethod, staticmethod)):  # as a class body has them
        found = found.__func__
    if isinstance(found, types.MethodType) and hasattr(found, "_memoized"):
        return BoundMethod(found._memoized.wrapper, found.__self__)
    is_function = isinstance(found, (types.FunctionType, BoundMethod))
    return found if is_function and hasattr(found, "_memoized") else None


def _walk_names(owner: Any, path: str) -> Iterator[str]:
    """Yield the paths of the memoized functions in a module and its classes."""
    for name, value in list(vars(owner).items()):
        if _find_memoized(value) is not None:
            yield f"{path}.{name}"
        elif isinstance(value, type) and isinstance(owner, types.ModuleType):
            yield from _walk_names(value, f"{path}.{name}")


def _explain_missing(
    module: types.ModuleType, parts: list[str], at: int
) -> CommandError:
    before = ".".join(parts[:at])
    submodules = [
        ".".join([before, each.name, *parts[at + 1 :]])
        for each in pkgutil.iter_modules(getattr(module, "__path__", []))
        if difflib.get_close_matches(parts[at], [each.name], 1)
    ]
    others = _suggest_names(module, ".".join(parts), submodules)
    return CommandError(f"{before} has no {parts[at]!r}{others}")


def _suggest_names(
    module: types.ModuleType, path: str, more: Iterable[str] = ()
) -> str:
    """Return the closest path in parentheses, or else those that exist."""
    start = len(module.__name__) + 1  # a common beginning makes no path closer
    existing = sorted(set(_walk_names(module, module.__name__)))
    rests = {each[start:]: each for each in [*existing, *more]}
    if close := difflib.get_close_matches(path[start:], rests, 1):
        return f" (did you mean {rests[close[0]]}?)"
    if not existing:
        return " (nothing is memoized there)"
    dots = ", ..." if len(existing) > 5 else ""
    return f" (memoized there: {', '.join(existing[:5])}{dots})"


def check_alias(alias: str) -> None:
    """Raise CommandError for a cache that is not in CACHES."""
    if alias not in aliases():
        raise CommandError(
            f"there is no cache {alias!r} in CACHES{suggestion([alias], aliases())}; "
            f"known are {', '.join(sorted(aliases()))}"
        )
