"""Which default prefixes are taken, to warn where two functions would share one."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable
from typing import Any

_ambiguous: set[str] = set()
_functions: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()


def note(prefix: str, whole: bool, function: Callable[..., Any]) -> None:
    """Remember a default prefix; warn when it cannot tell two functions apart.

    That is so when their closures hold what cannot be part of a key (``whole`` is
    False), or when both are alive and made of different code.
    """
    code = getattr(function, "__code__", None)
    other = getattr(_functions.get(prefix), "__code__", None)
    if prefix in _ambiguous or (other is not None and other != code):
        name = prefix.split(" ", 1)[0]  # what follows are values
        warnings.warn(
            f"cache_memoize: two functions are both known as {name!r}, and what sets "
            "them apart cannot be part of a key, so they would share their entries; "
            "give each its own prefix=",
            RuntimeWarning,
            stacklevel=5,
        )
    if not whole:
        _ambiguous.add(prefix)
    if code is not None:
        _functions[prefix] = function
