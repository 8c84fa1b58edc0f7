"""What happened: counters for ``cache_info()``, signals, the log, and users' hooks."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

from .. import signals
from ..conf import conf
from ..signals import Event
from . import reporter
from .totals import Totals, bucket

__all__ = ["CacheInfo", "Stats"]

logger = logging.getLogger("cache_memoize")


class CacheInfo(NamedTuple):
    """Of one function: in this process since it started, or in the whole site."""

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
    #: How often a caller began to wait for another's computation.
    waits: int = 0
    #: How often the function ran, in the background too.
    computations: int = 0
    #: Seconds that it ran, on average.
    mean: float = 0.0
    #: Seconds within which 95 % of its runs ended, within 9 %.
    p95: float = 0.0

    @classmethod
    def of(cls, totals: Totals, breaker: str) -> CacheInfo:
        return cls(
            totals.hits,
            totals.misses,
            totals.stale,
            totals.errors,
            totals.saved,
            breaker,
            totals.waits,
            totals.computations,
            totals.mean,
            totals.p95,
        )


class Stats:
    """Counted without a lock: under free threading, an increment may get lost."""

    __slots__ = (
        "__weakref__",
        "alias",
        "computations",
        "costs",
        "errors",
        "function",
        "hits",
        "misses",
        "name",
        "path",
        "quiet",
        "saved",
        "spent",
        "stale",
        "waits",
        "warned",
    )

    def __init__(
        self, name: str, path: str = "", function: Callable[..., Any] | None = None
    ) -> None:
        self.name = name
        self.path = path or name
        self.function = function
        self.alias = ""
        self.hits = self.misses = self.stale = self.waits = self.errors = 0
        self.computations = 0
        self.spent = self.saved = 0.0
        self.costs: dict[int, int] = {}
        self.warned: set[str] = set()
        #: Nothing was counted since stats/reporter.py has last looked.
        self.quiet = True

    def totals(self) -> Totals:
        return Totals(
            self.hits,
            self.misses,
            self.stale,
            self.waits,
            self.errors,
            self.computations,
            self.spent,
            self.saved,
            self.costs.copy(),
        )

    # --- events ----------------------------------------------------------------------

    def after_hit(
        self,
        hook: Callable[..., object] | None,
        key: str,
        cost: float,
        args: Any,
        kwargs: Any,
        kind: str = "hit",
    ) -> None:
        """What a hit does besides being counted."""
        self._tell(kind, key, cost)
        if hook is not None:
            self.hook(hook, args, kwargs)

    def served(
        self,
        hook: Callable[..., object] | None,
        key: str,
        cost: float,
        args: Any,
        kwargs: Any,
        *,
        stale: bool = False,
    ) -> None:
        """An entry was served, whose computation took ``cost`` seconds."""
        self.hits += 1
        self.saved += cost
        self.stale += stale
        self.after_hit(hook, key, cost, args, kwargs, "stale" if stale else "hit")

    def missed(self, key: str) -> None:
        self.misses += 1
        self._tell("miss", key)

    def waited(self, key: str) -> None:
        self.waits += 1
        self._tell("wait", key)

    def computed(self, key: str, cost: float) -> None:
        """The function has run for ``cost`` seconds, whatever came of it."""
        self.computations += 1
        self.spent += cost
        place = bucket(cost)
        self.costs[place] = self.costs.get(place, 0) + 1
        self._tell("computed", key, cost)

    def invalidated(self, key: str) -> None:
        self._tell("invalidated", key)

    def _failed(self, what: str) -> None:
        self.errors += 1
        self._tell("error", "", detail=what)

    def _tell(
        self, kind: str, key: str, seconds: float = 0.0, detail: str = ""
    ) -> None:
        if self.quiet:
            reporter.wake(self)
        if signals.ALL[kind].receivers or logger.isEnabledFor(logging.DEBUG):
            event = Event(kind, self.path, self.alias, key, seconds, detail)
            announce(event, self.function)

    # --- the log, and hooks ----------------------------------------------------------

    def trouble(self, what: str, error: BaseException) -> None:
        """Note that the cache failed; raises if the settings say so."""
        self._failed(what)
        if conf().ON_ERROR == "raise":
            raise error
        logger.warning("%s: %s: %r", self.name, what, error)

    def trouble_once(self, what: str, error: BaseException) -> None:
        """The same for what will be so at every call: one warning per function."""
        if what not in self.warned or conf().ON_ERROR == "raise":
            self.warned.add(what)
            self.trouble(what, error)
        else:
            self._failed(what)

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


def announce(event: Event, function: Any = None) -> None:
    """To the log, and to whoever listens."""
    if event.kind != "error":  # that is a warning of its own
        what = event.function, event.kind, event.key, event.seconds
        logger.debug("%s: %s %s (%.6f s)", *what)
    signals.ALL[event.kind].send_robust(function, event=event)
