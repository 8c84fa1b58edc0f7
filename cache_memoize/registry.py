"""Which default prefixes are taken, to warn where two functions would share one."""

from __future__ import annotations

import warnings

_ambiguous: set[str] = set()


def note(prefix: str, whole: bool) -> None:
    """Remember a default prefix; warn when it cannot tell two functions apart."""
    if whole:
        return
    if prefix in _ambiguous:
        warnings.warn(
            f"cache_memoize: two functions made by one factory are both known as "
            f"{prefix!r}, and what they captured cannot be part of a key, so they "
            "would share their entries; give each its own prefix=",
            RuntimeWarning,
            stacklevel=4,
        )
    _ambiguous.add(prefix)
