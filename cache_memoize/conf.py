"""The setting ``CACHE_MEMOIZE``: its names, their defaults, and the one reader.

Read when used, so ``override_settings`` works.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

#: name: (default, what it may be)
SETTINGS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    # What happens when the cache does not work: "log" a warning and compute, or
    # "raise" the error to the caller, as tests may want.
    "ON_ERROR": ("log", ("log", "raise")),
    # Where a stale value is refreshed: in a thread of this process (for an async
    # function in a task of its loop), by the caller itself, or by django.tasks.
    "REFRESH": ("thread", ("thread", "inline", "task")),
    # Whether entries are signed, and an entry without a right signature is a miss.
    "SIGN": (False, (False, True)),
}


def get(name: str) -> Any:
    """The value of one setting, checked."""
    default, allowed = SETTINGS[name]
    given = getattr(settings, "CACHE_MEMOIZE", {})
    unknown = given.keys() - SETTINGS.keys()
    if unknown:
        raise ImproperlyConfigured(
            f"CACHE_MEMOIZE has unknown names {sorted(unknown)}; known are "
            f"{sorted(SETTINGS)}"
        )
    value = given.get(name, default)
    if value not in allowed:
        raise ImproperlyConfigured(
            f"CACHE_MEMOIZE[{name!r}] is {value!r}; it must be one of {list(allowed)}"
        )
    return value


def secrets() -> list[str | bytes]:
    """The keys that signatures are made with (the first) and checked with (all)."""
    return [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
