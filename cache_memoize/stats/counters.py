"""The counters of a function, for ``cache_info()``; its signals, log and hooks."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, NamedTuple

from .. import signals
from ..clock import Clock
from ..conf import conf
from ..process import log_sometimes, logger
from ..signals import Event
from .history import History, Trace
from .reporter import reporter
from .totals import Totals, bucket

__all__ = ["CacheInfo", "Stats", "logger", "note_invalidation", "stats_of_cache"]

#: Events without a line at DEBUG: of hits there are too many, and an error is logged as
#: a warning.
_NOT_LOGGED = frozenset({"hit", "error"})


class CacheInfo(NamedTuple):
    """The figures of a function, in this process since it started or in all."""

    hits: int
    misses: int
    #: Hits that were past their timeout.
    stale: int
    #: Failed operations of the cache.
    errors: int
    #: Seconds of computation that hits made unnecessary.
    saved: float
    #: The state of the circuit breaker of the cache: closed, open or half-open.
    breaker: str
    #: Callers that began to wait for the computation of another one.
    waits: int = 0
    #: Runs of the function, also in the background.
    computations: int = 0
    #: Mean seconds of a run.
    mean: float = 0.0
    #: Seconds within which 95 % of the runs ended, with an error of 9 % at most.
    p95: float = 0.0
    #: Refreshes that stored nothing, while callers go on getting the old value.
    failed: int = 0
    #: The first failed refresh since a result was stored; None: there is none.
    old_since: datetime | None = None
    #: Hits whose entry was a copy in the memory of the process.
    near: int = 0
    #: Mean bytes of a stored entry, as it is stored.
    size: int = 0
    #: Results that were not stored because of ``max_bytes=``.
    too_large: int = 0
    #: Invalidations by ``invalidate()`` and ``invalidate_all()``.
    invalidations: int = 0
    #: Hits that were computed again because of ``audit=``, and those of them whose
    #: value was wrong: something has changed without an invalidation.
    audited: int = 0
    wrong: int = 0

    @classmethod
    def of(cls, totals: Totals, breaker: str, old_since: float) -> CacheInfo:
        found: dict[str, Any] = {"breaker": breaker, "old_since": moment(old_since)}
        for name in cls._fields:
            found.setdefault(name, getattr(totals, name, None))
        return cls(**found)


def moment(seconds: float) -> datetime | None:
    """Return a time since the epoch as a moment; None for 0.0."""
    return datetime.fromtimestamp(seconds, UTC) if seconds else None


class Stats:
    """The counters of one function, and its events.

    They are counted without a lock: under free threading, an increment may get lost.
    """

    def __init__(
        self, name: str, path: str = "", function: Callable[..., Any] | None = None
    ) -> None:
        self.name = name
        self.path = path or name
        #: Returns the function, while it is alive: the reporter keeps these counters
        #: longer, and what a nested function captured may be large.
        self._function = _refer_to(function)
        self.alias = ""
        self.hits = self.misses = self.stale = self.waits = self.errors = 0
        self.failed = self.near = self.computations = self.too_large = 0
        self.invalidations = self.audited = self.wrong = 0
        #: The last entries of calls; of a cache, its last invalidations.
        self.history = History()
        #: Entries stored, and their bytes.
        self.stores = self.stored_bytes = 0
        #: When a result was last stored, and when a refresh first failed after that, in
        #: seconds since the epoch; 0.0: never.
        self.stored_at = self.old_since = 0.0
        self.spent = self.saved = 0.0
        self.costs: dict[int, int] = {}
        self.warned: set[str] = set()

    def totals(self) -> Totals:
        return Totals(
            self.hits,
            self.misses,
            self.stale,
            self.waits,
            self.errors,
            self.failed,
            self.near,
            self.computations,
            self.stores,
            self.stored_bytes,
            self.too_large,
            self.invalidations,
            self.audited,
            self.wrong,
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
        """Send the signal of a hit that was counted, and call its hook."""
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
        """Count an entry that was served, and whose computation took ``cost``
        seconds."""
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
        """Count a run of ``cost`` seconds, even if it raised."""
        self.computations += 1
        self.spent += cost
        number = bucket(cost)
        self.costs[number] = self.costs.get(number, 0) + 1
        self._tell("computed", key, cost)

    def invalidated(self, key: str) -> None:
        self.invalidations += 1
        self._tell("invalidated", key)

    def stored(self, now: float, size: int) -> None:
        """Count a stored entry: no caller gets a value from before it."""
        self.stored_at, self.old_since = now, 0.0
        self.stores += 1
        self.stored_bytes += size

    def refresh_failed(
        self, key: str, clock: Clock, why: str, error: BaseException | None = None
    ) -> None:
        """Count a refresh that stored nothing, and log one of them per minute."""
        self.failed += 1
        self.old_since = self.old_since or clock.time()
        log_sometimes(
            logger.warning,
            "%s: a refresh failed (%s); the old value is served until it is too old",
            self.name,
            why,
            error=error,
        )
        self._tell("failed", key, detail=why)

    def found_wrong(self, key: str, age: float, depends_on: str) -> None:
        """Count and log a hit that an audit has found to be wrong."""
        self.audited += 1
        self.wrong += 1
        logger.error(
            "%s: an audit found a wrong value, %.0f s old, under %s: what it was made "
            "of has changed without an invalidation; it depends on %s",
            *(self.name, age, key, depends_on),
        )
        self._tell("wrong", key, age)

    def _failed(self, what: str) -> None:
        self.errors += 1
        self._tell("error", "", detail=what)

    def _tell(
        self, kind: str, key: str, seconds: float = 0.0, detail: str = ""
    ) -> None:
        reporter.watch(self)
        is_logged = kind not in _NOT_LOGGED and logger.isEnabledFor(logging.DEBUG)
        if is_logged or signals.ALL[kind].receivers:
            event = Event(kind, self.path, self.alias, key, seconds, detail)
            announce(event, self._function())

    # --- the log, and hooks ----------------------------------------------------------

    def trouble(self, what: str, error: BaseException) -> None:
        """Count and log a failure of the cache; raise it if the settings say so."""
        self._failed(what)
        if conf().ON_ERROR == "raise":
            raise error
        logger.warning("%s: %s: %r", self.name, what, error)

    def trouble_once(self, what: str, error: BaseException) -> None:
        """Like :meth:`trouble`, for failures that repeat: log one per function."""
        if what not in self.warned or conf().ON_ERROR == "raise":
            self.warned.add(what)
            self.trouble(what, error)
        else:
            self._failed(what)

    def warn_once(self, what: str, error: BaseException) -> None:
        """Log once per function that an option has no effect. This is no failure."""
        if what not in self.warned:
            self.warned.add(what)
            logger.warning("%s: %s: %r", self.name, what, error)

    def hook(self, hook: Callable[..., object], args: Any, kwargs: Any) -> None:
        """Call a hit or miss callable; log exceptions, and raise none."""
        try:
            hook(*args, **kwargs)
        except Exception:
            name = getattr(hook, "__qualname__", type(hook).__qualname__)
            logger.exception("%s: %s raised; the call goes on", self.name, name)


#: What happened to keys and tags in each cache, whichever function they belong to.
_of_caches: dict[str, Stats] = {}


def stats_of_cache(alias: str) -> Stats:
    """Return the invalidations in a cache; they are reported under an empty path."""
    found = _of_caches.get(alias) or _of_caches.setdefault(alias, Stats(""))
    found.alias = alias
    return found


def note_invalidation(alias: str, keys: Iterable[str], now: float, cause: str) -> None:
    """Remember why the entries under these keys, or with these tags, are gone."""
    stats = stats_of_cache(alias)
    for key in keys:
        stats.history.note(key, Trace(now, text=cause))
        stats.invalidations += 1
    reporter.watch(stats)


def _refer_to(function: Any) -> Callable[[], Any]:
    try:
        return weakref.ref(function)
    except TypeError:  # an object with slots, or None
        return lambda: function


def announce(event: Event, function: Any = None) -> None:
    """Log an event and send its signal."""
    if event.kind not in _NOT_LOGGED:
        values = event.function, event.kind, event.key, event.seconds
        logger.debug("%s: %s %s (%.6f s)", *values)
    signals.ALL[event.kind].send_robust(function, event=event)
