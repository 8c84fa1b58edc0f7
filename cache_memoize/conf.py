"""The setting ``CACHE_MEMOIZE``: its names, their defaults, and the one reader.

Read when used, so ``override_settings`` works.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from .options import PROJECT_WIDE

__all__ = [
    "SETTINGS",
    "changed",
    "check",
    "defaults",
    "get",
    "secrets",
    "site_id",
    "suggestion",
]

#: name: (default, the values that it may have, or the type of them)
SETTINGS: dict[str, tuple[Any, Any]] = {
    # Options of the decorator, for functions that do not give them themselves.
    "DEFAULTS": ({}, dict),
    # False: functions are called as if they were not memoized.
    "ENABLED": (True, (True, False)),
    # Part of every key that the library makes.
    "KEY_PREFIX": ("", str),
    # What happens when the cache does not work: "log" a warning and compute, or
    # "raise" the error to the caller, as tests may want.
    "ON_ERROR": ("log", ("log", "raise")),
    # Where a stale value is refreshed: in a thread of this process (for an async
    # function in a task of its loop), by the caller itself, or by django.tasks.
    "REFRESH": ("thread", ("thread", "inline", "task")),
    # Whether entries are signed, and an entry without a right signature is a miss.
    "SIGN": (False, (False, True)),
    # Seconds between two reports of what a process has counted; 0: none.
    "STATS_INTERVAL": (5.0, float),
}


def get(name: str) -> Any:
    """The value of one setting, checked."""
    default, allowed = SETTINGS[name]
    given = getattr(settings, "CACHE_MEMOIZE", {})
    if not isinstance(given, dict):
        raise ImproperlyConfigured(
            f"CACHE_MEMOIZE is a {type(given).__name__}; it must be a dict"
        )
    unknown = given.keys() - SETTINGS.keys()
    if unknown:
        raise ImproperlyConfigured(
            f"CACHE_MEMOIZE has unknown names {sorted(unknown, key=str)}"
            f"{suggestion(unknown, SETTINGS)}; known are {sorted(SETTINGS)}"
        )
    value = given.get(name, default)
    if isinstance(allowed, tuple):
        if value not in allowed:
            raise ImproperlyConfigured(
                f"CACHE_MEMOIZE[{name!r}] is {value!r}; it must be one of "
                f"{list(allowed)}"
            )
        return value
    fits = isinstance(value, allowed)
    if allowed is float:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        fits = number and 0 <= value < float("inf")
    if not fits:
        what = {float: "a number of seconds, or 0", dict: "a dict", str: "a string"}
        raise ImproperlyConfigured(
            f"CACHE_MEMOIZE[{name!r}] must be {what[allowed]}, not {value!r}"
        )
    return value


def changed(**changes: Any) -> dict[str, Any]:
    """The whole setting as it would be with these changes; the rest is checked."""
    check()
    return {**getattr(settings, "CACHE_MEMOIZE", {}), **changes}


def defaults() -> dict[str, Any]:
    """The options that the project gives to every function."""
    given: dict[str, Any] = get("DEFAULTS")
    unknown = given.keys() - PROJECT_WIDE
    if unknown:
        raise ImproperlyConfigured(
            f"CACHE_MEMOIZE['DEFAULTS'] has {sorted(unknown, key=str)}"
            f"{suggestion(unknown, PROJECT_WIDE)}; options for all functions are "
            f"{sorted(PROJECT_WIDE)}"
        )
    for name, value in given.items():
        if isinstance(value, Iterator):
            raise ImproperlyConfigured(
                f"CACHE_MEMOIZE['DEFAULTS'][{name!r}] is an iterator, of which nothing "
                "is left after the first function; write a list"
            )
    return given


def check() -> None:
    """Raise ImproperlyConfigured for whatever is wrong in the setting."""
    for name in SETTINGS:
        get(name)
    defaults()


def suggestion(unknown: Iterable[str], known: Iterable[str]) -> str:
    """ ", did you mean ...", if something known looks like it."""
    close = {
        match
        for name in unknown
        for match in difflib.get_close_matches(str(name), sorted(known), 1)
    }
    return f" (did you mean {', '.join(sorted(close))}?)" if close else ""


def secrets() -> list[str | bytes]:
    """The keys that signatures are made with (the first) and checked with (all)."""
    return [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]


def site_id() -> Any:
    """``SITE_ID``, or None."""
    return getattr(settings, "SITE_ID", None)
