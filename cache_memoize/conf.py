"""The setting ``CACHE_MEMOIZE``: its names, their defaults, and the only reader.

It is read when it is used, so ``override_settings`` works. Modules that keep something
made from it register with :func:`on_change`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from .hints import did_you_mean, meant_by, suggestion
from .options import PROJECT_WIDE

__all__ = [
    "Conf",
    "changed",
    "conf",
    "is_debug",
    "is_test",
    "on_change",
    "secrets",
    "site_id",
]


@dataclass(frozen=True)
class _Kind:
    """The values that a setting may have."""

    text: str
    fits: Callable[[Any], bool]
    #: All values, or their type.
    values: Any


def _one_of(*values: Any) -> _Kind:
    return _Kind(f"one of {list(values)}", lambda value: value in values, values)


def _is_interval(value: Any) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and 0 <= value < float("inf")


_DICT = _Kind("a dict", lambda value: isinstance(value, dict), dict)
_TEXT = _Kind("a string", lambda value: isinstance(value, str), str)


def _are_texts(value: Any) -> bool:
    texts = isinstance(value, (list, tuple, set, frozenset))
    return texts and all(isinstance(each, str) for each in value)


_TEXTS = _Kind("a list of strings", _are_texts, list)
#: The defaults of the setting NEAR.
NEAR = {"entries": 10_000, "bytes": 32 * 2**20}


def _are_bounds(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() <= NEAR.keys()
        and all(type(each) is int and each >= 0 for each in value.values())
    )


_BOUNDS = _Kind(f"a dict of {list(NEAR)}, each a whole number", _are_bounds, dict)
_SECONDS = _Kind("a number of seconds, or 0", _is_interval, float)


def _setting(kind: _Kind, default: Any) -> Any:
    return field(default=default, metadata={"kind": kind})


@dataclass(frozen=True, kw_only=True)
class Conf:
    """The checked setting. The fields have the names of its keys."""

    #: Options of the decorator, for functions that do not have their own.
    DEFAULTS: dict[str, Any] = field(default_factory=dict, metadata={"kind": _DICT})
    #: False: functions are called as if they were not memoized.
    ENABLED: bool = _setting(_one_of(True, False), True)
    #: Part of every key that the library makes.
    KEY_PREFIX: str = _setting(_TEXT, "")
    #: If the cache does not work: "log" a warning and compute, or "raise" the error to
    #: the caller, for tests.
    ON_ERROR: str = _setting(_one_of("log", "raise"), "log")
    #: Where stale values are refreshed: in a thread of this process (for an async
    #: function in a task of its loop), by the caller itself, or by django.tasks.
    REFRESH: str = _setting(_one_of("thread", "inline", "task"), "thread")
    #: Whether entries are signed, and entries without a valid signature are misses.
    SIGN: bool = _setting(_one_of(False, True), False)
    #: Tables whose writes invalidate nothing, and whose reads nothing depends on.
    IGNORED_TABLES: Any = _setting(_TEXTS, ("django_session", "django_admin_log"))
    #: Aliases of the caches with functions that have depends_on=: every process of the
    #: site invalidates there what depends on the tables that it writes to.
    TABLE_CACHES: Any = _setting(_TEXTS, ("default",))
    #: Whether writes to the database invalidate what depends on their tables.
    WATCH_TABLES: bool = _setting(_one_of(True, False), True)
    #: The most entries, and the most bytes, that a process keeps copies of for each
    #: cache (local="process", or seconds).
    NEAR: dict[str, int] = field(
        default_factory=lambda: dict(NEAR), metadata={"kind": _BOUNDS}
    )
    #: Seconds between two reports of the counters of a process; 0: no reports.
    STATS_INTERVAL: float = _setting(_SECONDS, 5.0)

    @classmethod
    def of(cls, given: Any) -> Conf:
        """Return the checked setting; raise ImproperlyConfigured for anything wrong."""
        if not isinstance(given, dict):
            raise ImproperlyConfigured(
                f"CACHE_MEMOIZE is a {type(given).__name__}; it must be a dict"
            )
        kinds = {each.name: each.metadata["kind"] for each in fields(cls)}
        unknown = given.keys() - kinds
        if unknown:
            options = {
                option: given[name]
                for name in sorted(unknown, key=str)
                if (option := meant_by(name, PROJECT_WIDE, cutoff=1))
            }
            hint = did_you_mean([f"{{'DEFAULTS': {options}}}"] if options else [])
            raise ImproperlyConfigured(
                f"CACHE_MEMOIZE has unknown names {sorted(unknown, key=str)}"
                f"{hint or suggestion(unknown, kinds)}; known are {sorted(kinds)}; "
                "options of the decorator go into DEFAULTS, as {'timeout': 300}"
            )
        for name, value in given.items():
            if not kinds[name].fits(value):
                raise ImproperlyConfigured(
                    f"CACHE_MEMOIZE[{name!r}] must be {kinds[name].text}, not {value!r}"
                )
        _check_defaults(given.get("DEFAULTS", {}), kinds.keys() - {"DEFAULTS"})
        return cls(**given)


def _check_defaults(given: dict[str, Any], settings: Iterable[str]) -> None:
    unknown = given.keys() - PROJECT_WIDE
    if unknown:
        beside = {
            setting: given[name]
            for name in sorted(unknown, key=str)
            if (setting := meant_by(name, settings, cutoff=1))
        }
        hint = did_you_mean([f"{beside} beside 'DEFAULTS'"] if beside else [])
        raise ImproperlyConfigured(
            f"CACHE_MEMOIZE['DEFAULTS'] has {sorted(unknown, key=str)}"
            f"{hint or suggestion(unknown, PROJECT_WIDE)}; options for all functions "
            f"are {sorted(PROJECT_WIDE)}"
        )
    for name, value in given.items():
        if isinstance(value, Iterator):
            raise ImproperlyConfigured(
                f"CACHE_MEMOIZE['DEFAULTS'][{name!r}] is an iterator, which is "
                "exhausted after the first function; write a list"
            )


_NOT_GIVEN: dict[str, Any] = {}
#: The setting when it was last read, and its checked form.
_last: tuple[Any, Conf] = (_NOT_GIVEN, Conf())
#: By the name of a setting.
_listeners: dict[str, list[Callable[[], object]]] = {"CACHE_MEMOIZE": [], "CACHES": []}


def conf() -> Conf:
    """Return the setting; raise ImproperlyConfigured if something in it is wrong."""
    global _last
    given = getattr(settings, "CACHE_MEMOIZE", _NOT_GIVEN)
    seen, checked = _last
    if seen is not given:
        checked = Conf.of(given)
        _last = given, checked
    return checked


def on_change(listener: Callable[[], object], setting: str = "CACHE_MEMOIZE") -> None:
    """Register ``listener``, to be called after each change of the setting."""
    _listeners[setting].append(listener)


def _changed(*, setting: str, **kwargs: Any) -> None:
    global _last
    if setting == "CACHE_MEMOIZE":
        _last = (None, Conf())
    for listener in _listeners.get(setting, ()):
        listener()


setting_changed.connect(_changed, dispatch_uid="cache_memoize.conf")


def changed(**changes: Any) -> dict[str, Any]:
    """Return the whole setting with these changes."""
    conf()
    return {**getattr(settings, "CACHE_MEMOIZE", {}), **changes}


def secrets() -> list[str | bytes]:
    """Return the secrets that verify signatures; the first one makes them.

    An empty one is no secret: anybody could sign with it.
    """
    fallbacks = [secret for secret in settings.SECRET_KEY_FALLBACKS if secret]
    return [settings.SECRET_KEY, *fallbacks]


def site_id() -> Any:
    """Return ``SITE_ID``, or None."""
    return getattr(settings, "SITE_ID", None)


def is_debug() -> bool:
    """Return ``DEBUG``: whether this is a developer's machine."""
    return bool(settings.DEBUG)


def is_test() -> bool:
    """Return whether a test runner has set up Django's test environment."""
    return hasattr(sys.modules.get("django.core.mail"), "outbox")
