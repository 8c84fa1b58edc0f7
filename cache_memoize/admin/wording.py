"""Figures, values, options and functions in words, for people."""

from __future__ import annotations

import inspect
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from django.utils.formats import number_format
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ..conf import conf
from ..options import SIGNATURE
from ..planning import Function, plan_of
from ..protocol.policy import BACKEND

__all__ = [
    "Option",
    "Options",
    "documentation",
    "duration",
    "options",
    "percent",
    "signature",
    "source",
    "what",
]


def duration(seconds: float) -> str:
    """As "1.5 ms"; a dash for none."""
    if not seconds:
        return "–"
    for limit, factor, unit in _UNITS:
        if seconds < limit:
            amount = seconds * factor
            places = 0 if amount >= 99.95 or amount == int(amount) else 1
            amount = round(amount, places)
            return f"{number_format(amount, places, force_grouping=True)} {unit}"
    return _("for ever")


_UNITS = [
    (0.001, 1e6, "µs"),
    (1, 1e3, "ms"),
    (120, 1, "s"),
    (2 * 60 * 60, 1 / 60, "min"),
    (2 * 24 * 60 * 60, 1 / 60 / 60, "h"),
    (float("inf"), 1 / 24 / 60 / 60, "d"),
]


def percent(rate: float | None) -> str:
    """As "98.2 %"; a dash where nothing was called."""
    if rate is None:
        return "–"
    # 100 % and 0 % mean: all, and none.
    shown = min(max(rate * 100, 0.1), 99.9) if 0 < rate < 1 else rate * 100
    return f"{number_format(round(shown, 1), 1)} %"


def what(value: Any) -> str:
    """The type and size of a value. The value itself is for nobody to see."""
    name = type(value).__name__
    if type(value) in (str, bytes):
        count = len(value)
        text = ngettext("%(name)s of length %(n)s", "%(name)s of length %(n)s", count)
    elif type(value) in (list, tuple, set, frozenset, dict):
        count = len(value)
        text = ngettext("%(name)s with %(n)s item", "%(name)s with %(n)s items", count)
    else:
        return name
    return text % {"name": name, "n": number_format(count, force_grouping=True)}


def source(function: Function) -> str:
    """``shop/catalogue.py:12``: no folder that is not part of the module's name."""
    code = getattr(inspect.unwrap(function.func), "__code__", None)
    if code is None:
        return ""
    file = Path(code.co_filename)
    depth = function.func.__module__.count(".") + 1 + (file.stem == "__init__")
    return f"{'/'.join(file.parts[-depth:])}:{code.co_firstlineno}"


def documentation(function: Function) -> str:
    return inspect.getdoc(function.func) or ""


def signature(function: Function) -> str:
    return f"{function.name}{inspect.signature(function.func)}"


class Option(NamedTuple):
    name: str
    value: str
    #: Who gives it.
    who: str


class Options(NamedTuple):
    said: list[Option]
    #: Those of which neither the function nor the project says anything.
    silent: list[Option]


def options(function: Function) -> Options:
    project, found = conf().DEFAULTS, Options([], [])
    of = plan_of(function).options
    for name in SIGNATURE.parameters:
        value = getattr(of, name)
        # A guard does not take everything from the project.
        settings = (
            name not in function.given and name in project and project[name] == value
        )
        if name in function.given:
            found.said.append(Option(name, _shown(value), _("this function")))
        elif settings:
            found.said.append(Option(name, _shown(value), _("settings")))
        else:
            found.silent.append(Option(name, _shown(value), _("library")))
    return found


def _shown(value: Any) -> str:
    """An option as it may have been written."""
    if value is BACKEND:
        return "DEFAULT_TIMEOUT"
    if isinstance(value, (tuple, list, set, frozenset)):
        return ", ".join(sorted(map(_shown, value)) or ["()"])
    if value is None or isinstance(value, (bool, int, float, str)):
        return repr(value)[:80]
    if isinstance(value, timedelta):
        return str(value)
    name = getattr(value, "__qualname__", None)
    return name or type(value).__name__  # never what it is made of
