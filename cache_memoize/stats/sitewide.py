"""The figures of the whole site: the counts of all processes and hosts.

Each function has one key in its own cache, to which every process adds its counts by
the same atomic replacement by which entries are stored: so a report is added once, or
not at all if its process dies before. Where the cache cannot replace atomically, no
figures are kept. They are stored as JSON, which is safe to read without a signature.
"""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from .. import process
from ..cache.breaker import PAUSE, SLOW, Breaker, breaker_of
from ..cache.connections import have_key_functions
from ..cache.errors import CacheDidNotAnswer, hangs
from ..cache.store import Store, run
from ..clock import Clock
from ..conf import conf
from ..keys.encoding import digest, label
from .history import Trace, merge, parse, shared
from .reporter import reporter
from .totals import Totals, bucket

__all__ = ["MINUTES", "Figures", "Minute", "kept", "read", "tell", "up_to_date"]

#: Minutes back for which there are figures by the minute.
MINUTES = 60
#: Seconds after the last report after which the figures of a function are removed.
KEPT_FOR = 30 * 24 * 60 * 60
#: Attempts to add a report, while other processes add theirs.
TRIES = 20
#: Seconds by which the pauses between attempts grow, at most.
STEP = 0.002

#: Bytes of figures at most: with 60 minutes, all buckets and long traces there are
#: fewer.
LONGEST = 100_000
#: Seconds by which the clock of a host may be ahead.
AHEAD = 60.0
#: The largest count, and the largest number of seconds, that can be true.
LARGEST = 10**15

#: Until when a cache that hung is left alone, in monotonic seconds, by alias.
_rests: dict[str, float] = {}

_digest = digest("cache_memoize figures 2")  # of another form than in 1.0.0


class Minute(NamedTuple):
    """The counts of one minute."""

    hits: int = 0
    misses: int = 0
    stale: int = 0
    errors: int = 0


class Figures(NamedTuple):
    """The figures of one function, of all processes that share its cache."""

    totals: Totals = Totals()
    #: The time of the first report, in seconds since the epoch; 0.0: no report.
    since: float = 0.0
    #: By the minute since the epoch; minutes without counts are left out.
    minutes: dict[int, Minute] = {}
    #: When a result was last stored, and when a refresh first failed after that.
    stored_at: float = 0.0
    old_since: float = 0.0
    #: The last entries of the function; under an empty path, the last invalidations.
    traces: dict[str, Trace] = {}

    def last_hour(self, now: float) -> list[Minute]:
        """Return the last :data:`MINUTES` minutes, the present one last."""
        end = int(now // 60)
        wanted = range(end - MINUTES + 1, end + 1)
        return [self.minutes.get(minute, Minute()) for minute in wanted]


def _key(path: str) -> str:
    name = f"{conf().KEY_PREFIX} {path}"
    return f"cache_memoize.figures:{label(path)[-40:]}:{_digest(name)}"


class _Store(Store):
    """A store whose errors do not open the breaker: reports may wait for each other,
    as for the lock on a row, and callers should not lose their cache for that. But a
    cache that hangs is left alone for a while."""

    def trouble(self, error: BaseException) -> None:
        if isinstance(error, CacheDidNotAnswer) or hangs(error):
            _rests[self.alias] = time.monotonic() + PAUSE

    def check_rest(self, also: bool = False) -> None:
        """Raise OSError if the cache has hung, or ``also`` something else is wrong."""
        now = time.monotonic()
        if also or now < _rests.get(self.alias, now):
            raise OSError(f"the cache {self.alias!r} is left alone for a while")


def _store(alias: str) -> _Store | None:
    """Return the store of the figures; None if the cache cannot keep any."""
    store = _Store(alias, Breaker(), Clock())
    backend = store.backend()
    if not (backend.stores and backend.atomic):
        return None
    return store


def kept(alias: str) -> bool:
    """Return whether figures are kept in this cache."""
    return _store(alias) is not None


def tell(source: Any, new: Totals) -> None:
    """Add counts of this process. Raise the errors of the cache."""
    store, alias = _store(source.alias), source.alias
    if store is None:
        return
    store.check_rest(breaker_of(alias).tripped)
    if store.is_in_transaction():
        # A rollback would remove them, and until then other processes would wait.
        raise OSError(f"the cache {alias!r} is in a database, and a transaction open")
    began = time.monotonic()
    try:
        _tell(store, source, new)
    except Exception:
        if time.monotonic() - began > SLOW:  # the next function would wait as long
            _rests[alias] = time.monotonic() + PAUSE
        raise


def _tell(store: Store, source: Any, new: Totals) -> None:
    key = _key(source.path)
    for tried in range(TRIES):
        if tried:  # workers often end all at the same moment
            store.clock.sleep(store.clock.random() * tried * STEP)
        old = run(store.raw(key))
        if isinstance(old, bytes):
            added = run(store.swap(key, old, _add_report(old, source, new), KEPT_FOR))
        else:
            if old is not None:  # a foreign value
                run(store.delete(key))
            added = run(store.add(key, _add_report(b"", source, new), KEPT_FOR))
        if added:
            return
    raise OSError(f"the cache {store.alias!r} did not take the figures")


def _add_report(old: bytes, source: Any, new: Totals) -> bytes:
    figures, now = _parse_figures(old), time.time()
    minute = int(now // 60)
    minutes = {m: f for m, f in figures.minutes.items() if m > minute - MINUTES}
    before = minutes.get(minute, Minute())
    more = (new.hits, new.misses, new.stale, new.errors)
    minutes[minute] = Minute(*(a + b for a, b in zip(before, more, strict=True)))
    totals = figures.totals.plus(new)
    stored_at = max(figures.stored_at, source.stored_at)
    moments = figures.old_since, source.old_since
    old_since = min((each for each in moments if each > stored_at), default=0.0)
    since = figures.since or now
    traces = shared(merge(figures.traces, source.history.copy()), now + AHEAD)
    return json.dumps(
        [totals[:-1], totals.costs, since, minutes, stored_at, old_since, traces],
        separators=(",", ":"),
    ).encode()


def _parse_figures(raw: Any) -> Figures:
    """Return the figures in ``raw``; empty ones if it has none that can be true."""
    try:
        if type(raw) is not bytes or len(raw) > LONGEST:
            return Figures()
        counts, costs, since, minutes, stored_at, old_since, traces = json.loads(raw)
        numbers = [*map(_count, counts[:-2]), *map(_seconds, counts[-2:])]
        by_bucket = {_bucket(key): _count(number) for key, number in costs.items()}
        by_minute = {
            _count(int(minute)): Minute(*map(_count, figures))
            for minute, figures in minutes.items()
        }
        totals = Totals._make([*numbers, by_bucket])
        if not totals.is_whole or len(numbers) != len(Totals._fields) - 1:
            return Figures()
        moments = _seconds(stored_at), _seconds(old_since)
        return Figures(totals, _seconds(since), by_minute, *moments, parse(traces))
    except (ValueError, TypeError, AttributeError, RecursionError):
        return Figures()


def _count(found: Any) -> int:
    if type(found) is not int or not 0 <= found <= LARGEST:
        raise ValueError(found)
    return found


def _seconds(found: Any) -> float:
    if type(found) not in (int, float) or not 0 <= found <= LARGEST:
        raise ValueError(found)
    return float(found)


def _bucket(found: str) -> int:
    if not bucket(0.0) <= (number := int(found)) <= bucket(LARGEST):
        raise ValueError(found)
    return number


def read(alias: str, paths: list[str]) -> dict[str, Figures]:
    """Return the figures of functions by path; empty ones if the cache keeps none.

    Raise the errors of the cache.
    """
    store = _store(alias)
    if store is None or not paths:
        return {path: Figures() for path in paths}
    store.check_rest()
    keys = {path: _key(path) for path in paths}
    stored = run(store.raw_many(list(keys.values())))
    return {path: _parse_figures(stored.get(key)) for path, key in keys.items()}


def up_to_date(alias: str, paths: list[str]) -> dict[str, Figures]:
    """Return :func:`read` after a report of this process.

    A ``KEY_FUNCTION`` may depend on the tenant of this thread, and the figures belong
    to no tenant: then they are read, as they are reported, in a thread of their own.
    """

    def read_now() -> dict[str, Figures]:
        reporter.flush_stats()
        return read(alias, paths)

    def read_in_thread() -> dict[str, Figures]:
        try:
            return read_now()
        finally:
            process.end_thread()

    if not have_key_functions():  # of any cache: all are reported to
        return read_now()
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(read_in_thread).result()
