"""What happened: counters for ``cache_info()``, the log, and the user's hooks."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

from . import conf

__all__ = ["CacheInfo", "Stats"]

logger = logging.getLogger("cache_memoize")


class CacheInfo(NamedTuple):
    """Of one function, in this process, since it started."""

    hits: int
    misses: int
    #: Those of the hits that were past their timeout.
    stale: int
    #: How often the cache failed this function.
    errors: int
    #: Seconds of computation that hits made unnecessary.
    saved: float
    #: The state of the circuit breaker of its cache: closed, open or half-open.
    breaker: str


class Stats:
    """Counted without a lock: under free threading, an increment may get lost."""

    __slots__ = ("errors", "hits", "misses", "name", "saved", "stale", "warned")

    def __init__(self, name: str) -> None:
        self.name = name
        self.hits = 0
        self.misses = 0
        self.stale = 0
        self.errors = 0
        self.saved = 0.0
        self.warned: set[str] = set()

    def trouble(self, what: str, error: BaseException) -> None:
        """Note that the cache failed; raises if the settings say so."""
        self.errors += 1
        if conf.get("ON_ERROR") == "raise":
            raise error
        logger.warning("%s: %s: %r", self.name, what, error)

    def trouble_once(self, what: str, error: BaseException) -> None:
        """The same for what will be so at every call: one warning per function."""
        if what not in self.warned or conf.get("ON_ERROR") == "raise":
            self.warned.add(what)
            self.trouble(what, error)
        else:
            self.errors += 1

    def warn_once(self, what: str, error: BaseException) -> None:
        """Say once per function what is not as it was wished, and no trouble."""
        if what not in self.warned:
            self.warned.add(what)
            logger.warning("%s: %s: %r", self.name, what, error)

    def hook(self, hook: Callable[..., object], args: Any, kwargs: Any) -> None:
        """Call a hit or miss callable; whatever it raises stays here."""
        try:
            hook(*args, **kwargs)
        except Exception:
            name = getattr(hook, "__qualname__", type(hook).__qualname__)
            logger.exception("%s: %s raised; the call goes on", self.name, name)
