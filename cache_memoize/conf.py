"""The setting ``CACHE_MEMOIZE``: its names, their defaults, and the one reader.

It is read when it is used, so ``override_settings`` works. Whoever remembers something
that was made of it asks :func:`on_change`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from .options import PROJECT_WIDE

__all__ = ["Conf", "changed", "conf", "on_change", "secrets", "site_id", "suggestion"]


@dataclass(frozen=True)
class _Kind:
    """The values that a setting may have."""

    text: str
    fits: Callable[[Any], bool]
    #: All of them, or their type.
    values: Any


def _one_of(*values: Any) -> _Kind:
    return _Kind(f"one of {list(values)}", lambda value: value in values, values)


def _is_interval(value: Any) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and 0 <= value < float("inf")


_DICT = _Kind("a dict", lambda value: isinstance(value, dict), dict)
_TEXT = _Kind("a string", lambda value: isinstance(value, str), str)
_SECONDS = _Kind("a number of seconds, or 0", _is_interval, float)


def _setting(kind: _Kind, default: Any) -> Any:
    return field(default=default, metadata={"kind": kind})


@dataclass(frozen=True, kw_only=True)
class Conf:
    """The setting, checked. The fields have the names that a project writes."""

    #: Options of the decorator, for functions that do not give them themselves.
    DEFAULTS: dict[str, Any] = field(default_factory=dict, metadata={"kind": _DICT})
    #: False: functions are called as if they were not memoized.
    ENABLED: bool = _setting(_one_of(True, False), True)
    #: Part of every key that the library makes.
    KEY_PREFIX: str = _setting(_TEXT, "")
    #: When the cache does not work: "log" a warning and compute, or "raise" the error
    #: to the caller, as tests may want.
    ON_ERROR: str = _setting(_one_of("log", "raise"), "log")
    #: Where a stale value is refreshed: in a thread of this process (for an async
    #: function in a task of its loop), by the caller itself, or by django.tasks.
    REFRESH: str = _setting(_one_of("thread", "inline", "task"), "thread")
    #: Whether entries are signed, and an entry without a right signature is a miss.
    SIGN: bool = _setting(_one_of(False, True), False)
    #: Seconds between two reports of what a process has counted; 0: none.
    STATS_INTERVAL: float = _setting(_SECONDS, 5.0)

    @classmethod
    def of(cls, given: Any) -> Conf:
        """Return the setting that a project has given; raise ImproperlyConfigured for
        whatever is wrong in it."""
        if not isinstance(given, dict):
            raise ImproperlyConfigured(
                f"CACHE_MEMOIZE is a {type(given).__name__}; it must be a dict"
            )
        kinds = {each.name: each.metadata["kind"] for each in fields(cls)}
        unknown = given.keys() - kinds
        if unknown:
            raise ImproperlyConfigured(
                f"CACHE_MEMOIZE has unknown names {sorted(unknown, key=str)}"
                f"{suggestion(unknown, kinds)}; known are {sorted(kinds)}"
            )
        for name, value in given.items():
            if not kinds[name].fits(value):
                raise ImproperlyConfigured(
                    f"CACHE_MEMOIZE[{name!r}] must be {kinds[name].text}, not {value!r}"
                )
        _check_defaults(given.get("DEFAULTS", {}))
        return cls(**given)


def _check_defaults(given: dict[str, Any]) -> None:
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


_NOT_GIVEN: dict[str, Any] = {}
#: The setting as it was last seen, and what it says.
_last: tuple[Any, Conf] = (_NOT_GIVEN, Conf())
_listeners: list[Callable[[], object]] = []


def conf() -> Conf:
    """Return the setting; raise ImproperlyConfigured if something in it is wrong."""
    global _last
    given = getattr(settings, "CACHE_MEMOIZE", _NOT_GIVEN)
    seen, checked = _last
    if seen is not given:
        checked = Conf.of(given)
        _last = given, checked
    return checked


def on_change(listener: Callable[[], object]) -> None:
    """Have ``listener`` called whenever the setting has changed."""
    _listeners.append(listener)


def _changed(*, setting: str, **kwargs: Any) -> None:
    global _last
    if setting == "CACHE_MEMOIZE":
        _last = (None, Conf())
        for listener in _listeners:
            listener()


setting_changed.connect(_changed, dispatch_uid="cache_memoize.conf")


def changed(**changes: Any) -> dict[str, Any]:
    """Return the whole setting as it would be with these changes."""
    conf()
    return {**getattr(settings, "CACHE_MEMOIZE", {}), **changes}


def suggestion(unknown: Iterable[str], known: Iterable[str]) -> str:
    """Return " (did you mean ...?)" if something known looks like it."""
    close = {
        match
        for name in unknown
        for match in difflib.get_close_matches(str(name), sorted(known), 1)
    }
    return f" (did you mean {', '.join(sorted(close))}?)" if close else ""


def secrets() -> list[str | bytes]:
    """Return the keys that signatures are made with (the first) and checked with."""
    return [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]


def site_id() -> Any:
    """Return ``SITE_ID``, or None."""
    return getattr(settings, "SITE_ID", None)
